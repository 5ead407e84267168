//! The admin server over real sockets.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::*;
use crate::drain::Drain;
use crate::tasks;

fn router() -> Router {
    Router::new()
        .get("/ready", |_| async { text(StatusCode::OK, "yes\n") })
        .get("/pods/*", |request| async move {
            text(StatusCode::OK, request.path_after("/pods/").join("+"))
        })
        .post("/echo", |request| async move {
            response(StatusCode::OK, "x/y", request.body)
        })
        .get("/stream", |_| async {
            let (sender, body) = Body::channel(1);
            drop(tokio::spawn(async move {
                for chunk in ["a", "b", "c"] {
                    sender.send(chunk).await;
                }
            }));
            response(StatusCode::OK, "text/plain", body)
        })
}

async fn call<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn routes_and_methods() {
    let (drain, watch) = Drain::new();
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.tcp_address().unwrap();
    let limits = Limits {
        body_bytes: 4,
        ..Limits::default()
    };
    let server = tasks::spawn("server", serve_with(listener, router(), limits, watch));
    for (head, body, want, why) in [
        ("GET /ready", "", "200 OK", "an exact path"),
        ("HEAD /ready", "", "200 OK", "HEAD by GET's handler"),
        ("GET /pods/a/b?x=1", "", "a+b", "a prefix"),
        ("POST /echo", "abcd", "abcd", "a body"),
        (
            "POST /echo",
            "abcde",
            "413 Payload",
            "a body over the limit",
        ),
        ("GET /stream", "", "1\r\nb", "chunks as they come"),
        ("GET /echo", "", "allow: POST", "405 says what is allowed"),
        ("GET /nothing", "", "404 Not Found", "an unknown path"),
    ] {
        let stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "{head} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = call(stream, &request).await;
        assert!(answer.contains(want), "{why}: {answer}");
    }
    drain.start();
    server.await.unwrap();
}

#[tokio::test]
async fn a_unix_socket_with_permissions_and_no_double_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let (drain, watch) = Drain::new();
    let listener = Listener::unix(&path, 0o600).unwrap();
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let server = tasks::spawn("server", serve(listener, router(), watch));
    let stream = UnixStream::connect(&path).await.unwrap();
    let answer = call(stream, "GET /ready HTTP/1.0\r\n\r\n").await;
    assert!(answer.ends_with("yes\n"), "{answer}");
    let error = Listener::unix(&path, 0o600).unwrap_err();
    assert_eq!(
        error.kind(),
        std::io::ErrorKind::AddrInUse,
        "a live socket is not taken"
    );
    drain.start();
    server.await.unwrap();
    Listener::unix(&path, 0o600).expect("a dead socket file is replaced");
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    Listener::unix(&path, 0o600).expect_err("a file is never replaced");
}

#[tokio::test]
async fn slow_heads_and_surplus_connections_do_not_block_others() {
    let (_drain, watch) = Drain::new();
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.tcp_address().unwrap();
    let limits = Limits {
        connections: 1,
        header_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let _server = tasks::spawn("server", serve_with(listener, router(), limits, watch));
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /re").await.unwrap();
    let second = TcpStream::connect(address).await.unwrap();
    let answer = call(second, "GET /ready HTTP/1.0\r\n\r\n").await;
    assert!(
        answer.ends_with("yes\n"),
        "served once the slow one was cut off: {answer}"
    );
}
