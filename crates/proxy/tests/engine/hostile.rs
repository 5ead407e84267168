//! Requests that are attacks (or nonsense): each is refused, and nothing of it reaches the
//! upstream.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::harness::*;

#[test]
fn smuggling_is_refused() {
    let reached = Arc::new(AtomicUsize::new(0));
    let counter = reached.clone();
    let up = upstream(move |mut stream, _| {
        if read_request(&mut stream).is_some() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "up"}}]);
    let listener = http_listener(routes, json!({"normalize_path": true}));
    let clusters = json!([cluster("up", up, json!({}))]);
    let proxy = Proxy::start(json!({"listeners": [listener], "clusters": clusters}), 1);
    let long = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(61 * 1024)
    );
    let many = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "X: 1\r\n".repeat(101)
    );
    let smuggled = "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n";
    let both = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
         0\r\n\r\n{smuggled}"
    );
    let cases: &[(&str, &str, &str)] = &[
        (&both, "400", "both framings"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n",
            "501",
            "coding",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            "400",
            "blank",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
            "400",
            "negative length",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "400",
            "two",
        ),
        ("GET / HTTP/1.1\nHost: a\n\n", "400", "bare LF"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n y\r\n\r\n",
            "400",
            "obs-fold",
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", "400", "NUL"),
        ("GET / HTTP/1.1\r\n\r\n", "400", "no host"),
        ("GET / HTTP/1.0\r\n\r\n", "426", "old version"),
        ("GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", "400", "fragment"),
        ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", "400", "escaped NUL"),
        (
            "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
            "404",
            "CONNECT",
        ),
        (
            "\x16\x03\x01\x02\x00\x01\r\n\r\n",
            "400",
            "TLS to a plain port",
        ),
        (&long, "431", "head too large"),
        (&many, "431", "too many headers"),
    ];
    for (raw, status, why) in cases {
        let answer = exchange(proxy.address("http"), raw.as_bytes());
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{why}: {answer}"
        );
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            1,
            "{why}: one answer, then the end"
        );
    }
    assert_eq!(
        reached.load(Ordering::Relaxed),
        0,
        "nothing reached the upstream"
    );
}

#[test]
fn a_bad_chunk_ends_the_connection() {
    let up = upstream(|mut stream, _| {
        use std::io::Read;
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        assert!(!String::from_utf8_lossy(&all).contains("/smuggled"));
    });
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "up"}}]);
    let clusters = json!([cluster("up", up, json!({}))]);
    let listener = http_listener(routes, json!({}));
    let proxy = Proxy::start(json!({"listeners": [listener], "clusters": clusters}), 1);
    for chunk in [
        "x\r\n",
        "3\nabc\r\n",
        "3\r\nabcd\r\n",
        "-1\r\n",
        "ffffffffffffffff1\r\n",
    ] {
        let raw = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}\
             0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        let answer = exchange(proxy.address("http"), raw.as_bytes());
        assert!(!answer.contains(" 200 "), "{chunk:?}: {answer}");
    }
}
