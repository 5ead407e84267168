//! HTTP/1.1 to HTTP/1.1: forwarding, framing, keep-alive, replies of the proxy, retries, upgrades.
use std::io::{Read, Write};
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::*;

fn to(cluster_name: &str) -> Value {
    json!([{"match": {"prefix": "/"}, "route": {"cluster": cluster_name}}])
}

fn simple(upstream: SocketAddr, concurrency: usize) -> Proxy {
    let listener = http_listener(to("up"), json!({"use_remote_address": true}));
    let clusters = json!([cluster("up", upstream, json!({}))]);
    Proxy::start(
        json!({"listeners": [listener], "clusters": clusters}),
        concurrency,
    )
}

fn get(proxy: &Proxy, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    exchange(proxy.address("http"), request.as_bytes())
}

#[test]
fn forwards_and_tells_the_upstream_who_came() {
    for concurrency in [1, 4] {
        let proxy = simple(echo_upstream(), concurrency);
        let request = "GET /a?b=c HTTP/1.1\r\nHost: a.test\r\nX-Mixed: Case\r\n\
                       x-envoy-retry-on: 5xx\r\nConnection: close\r\n\r\n";
        let answer = exchange(proxy.address("http"), request.as_bytes());
        for part in [
            "HTTP/1.1 200 OK\r\n",
            "X-Case: Kept\r\n",
            "server: envoy\r\n",
            "x-envoy-upstream-service-time: ",
            "connection: close\r\n",
            "GET /a?b=c HTTP/1.1\r\nhost: a.test\r\nX-Mixed: Case\r\n",
            "x-forwarded-for: 127.0.0.1\r\n",
            "x-forwarded-proto: http\r\n",
            "x-request-id: ",
            "x-envoy-expected-rq-timeout-ms: 15000\r\n",
        ] {
            assert!(answer.contains(part), "{part:?} is missing in\n{answer}");
        }
    }
}

#[test]
fn keeps_connections_and_serves_pipelined_requests_in_order() {
    let proxy = simple(echo_upstream(), 1);
    let mut stream = connect(proxy.address("http"));
    let two = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\n\
               Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    stream.write_all(two.as_bytes()).unwrap();
    let last = "GET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(last.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
    assert!(
        answer.contains("\r\n\r\nabcde") || answer.contains("abcde"),
        "{answer}"
    );
    let at = |text: &str| {
        answer
            .find(text)
            .unwrap_or_else(|| panic!("{text} in {answer}"))
    };
    assert!(at("GET /1") < at("POST /2") && at("POST /2") < at("GET /3"));
    assert_eq!(
        answer.matches("#0\n").count(),
        3,
        "one upstream connection serves all"
    );
}

#[test]
fn large_bodies_pass_both_ways() {
    let proxy = simple(echo_upstream(), 1);
    let body = "x".repeat(3_000_000);
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let answer = exchange(proxy.address("http"), (head + &body).as_bytes());
    assert!(answer.ends_with(&body), "{} bytes came back", answer.len());
}

#[test]
fn answers_itself_as_envoy_does() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let silent = upstream(|mut stream, _| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.read(&mut [0; 1024]);
    });
    let hangs_up = upstream(|mut stream, _| {
        let _ = read_request(&mut stream);
    });
    let nonsense = upstream(|mut stream, _| {
        let _ = read_request(&mut stream);
        let _ = stream.write_all(b"SSH-2.0\r\n\r\n");
    });
    let routes = json!([
        {"match": {"prefix": "/closed"}, "route": {"cluster": "closed"}},
        {"match": {"prefix": "/silent"}, "route": {"cluster": "silent", "timeout": "0.2s"}},
        {"match": {"prefix": "/hangs-up"}, "route": {"cluster": "hangs-up"}},
        {"match": {"prefix": "/nonsense"}, "route": {"cluster": "nonsense"}},
        {"match": {"prefix": "/empty"}, "route": {"cluster": "empty"}},
        {"match": {"prefix": "/missing"}, "route": {"cluster": "missing"}},
        {"match": {"prefix": "/direct"}, "direct_response": {
            "status": 418, "body": {"inline_string": "tea"}}},
        {"match": {"prefix": "/redirect"}, "redirect": {"path_redirect": "/new"}},
    ]);
    let clusters = json!([
        cluster("closed", closed, json!({})),
        cluster("silent", silent, json!({})),
        cluster("hangs-up", hangs_up, json!({})),
        cluster("nonsense", nonsense, json!({})),
        {"name": "empty", "load_assignment": {"cluster_name": "empty"}},
    ]);
    let listener = http_listener(routes, json!({}));
    let proxy = Proxy::start(json!({"listeners": [listener], "clusters": clusters}), 1);
    for (path, want, part) in [
        (
            "/closed",
            "503",
            "reset reason: remote connection failure, transport failure reason: \
                            delayed connect error: Connection refused",
        ),
        ("/silent", "504", "upstream request timeout"),
        ("/hangs-up", "503", "reset reason: connection termination"),
        ("/nonsense", "502", "reset reason: protocol error"),
        ("/empty", "503", "no healthy upstream"),
        ("/missing", "503", "content-length: 0"),
        ("/direct", "418", "\r\n\r\ntea"),
        ("/redirect", "301", "location: http://a.test/new"),
        ("/nowhere", "404", "content-length: 0"),
    ] {
        let answer = get(&proxy, path);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {want} ")),
            "{path}: {answer}"
        );
        assert!(answer.contains(part), "{path}: {part:?} in {answer}");
    }
}

#[test]
fn retries_on_another_connection_with_the_whole_body() {
    let flaky = upstream(|mut stream, number| {
        let Some((_, body)) = read_request(&mut stream) else {
            return;
        };
        if number < 2 {
            return;
        }
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "up", "retry_policy": {
        "retry_on": "reset", "num_retries": 3, "retry_back_off": {"base_interval": "0.001s"}}}}]);
    let clusters = json!([cluster("up", flaky, json!({}))]);
    let listener = http_listener(routes, json!({}));
    let proxy = Proxy::start(json!({"listeners": [listener], "clusters": clusters}), 1);
    let request =
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
    let answer = exchange(proxy.address("http"), request.as_bytes());
    assert!(
        answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello"),
        "{answer}"
    );
}

#[test]
fn websockets_become_tunnels_and_early_bytes_wait() {
    let echo = upstream(|mut stream, _| {
        let (head, _) = read_request(&mut stream).unwrap();
        assert!(
            head.to_ascii_lowercase().contains("upgrade: websocket"),
            "{head}"
        );
        stream
            .set_read_timeout(Some(std::time::Duration::from_millis(200)))
            .unwrap();
        let early = stream.read(&mut [0; 16]);
        assert!(
            early.is_err(),
            "bytes before the upgrade was accepted: {early:?}"
        );
        stream.set_read_timeout(None).unwrap();
        let accept = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                      Upgrade: websocket\r\n\r\n";
        stream.write_all(accept.as_bytes()).unwrap();
        let mut buffer = [0; 64];
        while let Ok(count) = stream.read(&mut buffer) {
            if count == 0 {
                return;
            }
            stream.write_all(&buffer[..count]).unwrap();
        }
    });
    let allowed = json!({"upgrade_configs": [{"upgrade_type": "websocket"}]});
    let listener = http_listener(to("up"), allowed);
    let clusters = json!([cluster("up", echo, json!({}))]);
    let proxy = Proxy::start(json!({"listeners": [listener], "clusters": clusters}), 1);
    let mut stream = connect(proxy.address("http"));
    let request =
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream
        .write_all(format!("{request}early").as_bytes())
        .unwrap();
    let head = read_until(&mut stream, "\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("upgrade: websocket"), "{head}");
    stream.write_all(b" bird").unwrap();
    assert_eq!(read_until(&mut stream, "bird"), "early bird");
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(
        stream.read(&mut [0; 8]).unwrap_or(0),
        0,
        "the tunnel ends with its client"
    );

    let refused = simple(echo_upstream(), 1);
    let answer = exchange(refused.address("http"), request.as_bytes());
    assert!(
        answer.starts_with("HTTP/1.1 403 "),
        "not configured: {answer}"
    );
}

#[test]
fn expect_continue_is_answered_at_once() {
    let proxy = simple(echo_upstream(), 1);
    let mut stream = connect(proxy.address("http"));
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\
                Connection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(
        read_until(&mut stream, "\r\n\r\n"),
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    stream.write_all(b"ok").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"),
        "{answer}"
    );
}

#[test]
fn drain_finishes_what_is_in_flight_and_closes_the_rest() {
    let proxy = simple(echo_upstream(), 1);
    let mut idle = connect(proxy.address("http"));
    idle.write_all(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    let first = read_until(&mut idle, "\r\n\r\n");
    assert!(!first.contains("connection: close"), "{first}");
    proxy.start_drain();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).unwrap();
}
