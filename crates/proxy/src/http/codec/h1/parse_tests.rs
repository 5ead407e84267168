//! Hostile and ordinary heads, as tables.
use super::*;

fn parse(raw: &str) -> Result<Request, CodecError> {
    let raw = raw.replace('\n', "\r\n");
    request(Bytes::from(raw), &Limits::default())
}

#[test]
fn refuses_what_could_be_read_in_two_ways() {
    let cases: &[(&str, u16, &str)] = &[
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "both framings",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
            400,
            "two lengths, even if equal",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\n",
            400,
            "a list of lengths",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n",
            400,
            "a signed length",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
            400,
            "a length that overflows",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
            501,
            "other coding",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            501,
            "list of codings",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
             Transfer-Encoding: x\r\n\r\n",
            501,
            "second coding line",
        ),
        (
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "chunked in 1.0",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n",
            400,
            "obs-fold",
        ),
        (
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            400,
            "blank before the first header",
        ),
        (
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            400,
            "blank before the colon",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            400,
            "two hosts",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
            400,
            "bare CR",
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400, "NUL"),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "two blanks"),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 426, "unknown version"),
        (
            "GET a/b HTTP/1.1\r\nHost: a\r\n\r\n",
            400,
            "relative target",
        ),
        (
            "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            400,
            "user in the target",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nBad[Name]: 1\r\n\r\n",
            400,
            "name is no token",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n",
            417,
            "unknown expectation",
        ),
    ];
    for (raw, want, why) in cases {
        match request(Bytes::copy_from_slice(raw.as_bytes()), &Limits::default()) {
            Err(CodecError::Protocol { status, .. }) => assert_eq!(status, *want, "{why}"),
            other => panic!("{why}: {other:?}"),
        }
    }
}

#[test]
fn bare_line_feeds_end_a_head_at_once() {
    for (raw, why) in [
        (&b"GET / HTTP/1.1\n"[..], "request line"),
        (b"GET / HTTP/1.1\r\nHost: a\n", "header line"),
        (b"\nGET", "first byte"),
    ] {
        assert!(head_end(raw, &mut 0).is_err(), "{why}");
    }
    let mut from = 0;
    assert!(matches!(
        head_end(b"GET / HTTP/1.1\r\nA: b\r\n", &mut from),
        Ok(None)
    ));
    assert_eq!(
        head_end(b"GET / HTTP/1.1\r\nA: b\r\n\r\nrest", &mut from).unwrap(),
        Some(24)
    );
}

#[test]
fn reads_targets_and_framing() {
    let cases = [
        (
            "GET /a?b HTTP/1.1\nHost: h:1\n\n",
            "h:1",
            "/a?b",
            BodyLength::None,
        ),
        (
            "GET http://x/a HTTP/1.1\nHost: h\n\n",
            "x",
            "/a",
            BodyLength::None,
        ),
        (
            "GET http://x?q HTTP/1.1\nHost: h\n\n",
            "x",
            "/?q",
            BodyLength::None,
        ),
        (
            "OPTIONS * HTTP/1.1\nHost: h\n\n",
            "h",
            "*",
            BodyLength::None,
        ),
        (
            "POST / HTTP/1.1\nHost: h\nContent-Length: 5\n\n",
            "h",
            "/",
            BodyLength::Exactly(5),
        ),
        (
            "POST / HTTP/1.1\nHost: h\ntransfer-encoding: Chunked\n\n",
            "h",
            "/",
            BodyLength::Chunked,
        ),
    ];
    for (raw, authority, path, body) in cases {
        let got = parse(raw).unwrap();
        assert_eq!(got.head.authority, authority, "{raw}");
        assert_eq!(got.head.path, path, "{raw}");
        assert_eq!(got.body, body, "{raw}");
    }
}

#[test]
fn hop_by_hop_headers_end_here() {
    let got = parse(
        "GET / HTTP/1.1\nHost: h\nConnection: close, x-hop, x-forwarded-for\nX-Hop: 1\n\
         X-Forwarded-For: 1.2.3.4\nKeep-Alive: 5\nTE: gzip\nUpgrade: websocket\nX-End: 1\n\n",
    )
    .unwrap();
    let names: Vec<_> = got
        .head
        .headers
        .iter()
        .map(|(name, _)| String::from_utf8_lossy(name))
        .collect();
    assert_eq!(names, ["X-Forwarded-For", "X-End"]);
    assert!(
        !got.keep_alive && got.head.upgrade.is_none(),
        "Upgrade without its connection token"
    );
    let got =
        parse("GET / HTTP/1.1\nHost: h\nConnection: Upgrade\nUpgrade: WebSocket\n\n").unwrap();
    assert_eq!(got.head.upgrade.as_deref(), Some(&b"websocket"[..]));
}
