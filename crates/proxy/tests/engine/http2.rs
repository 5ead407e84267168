//! HTTP/2: streams both ways with trailers, HTTP/2 to HTTP/1, resets.
use std::net::SocketAddr;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::harness::*;

fn start(upstream: SocketAddr, more: Value) -> Proxy {
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "up", "timeout": "0s"}}]);
    let clusters = json!([cluster("up", upstream, more)]);
    let listener = http_listener(routes, json!({}));
    Proxy::start(json!({"listeners": [listener], "clusters": clusters}), 1)
}

/// Answers each DATA frame with itself, as it comes, then trailers: a streaming gRPC server.
fn streaming_upstream() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(echo(request, respond));
                    }
                });
            }
        });
    });
    address
}

async fn echo(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
) {
    if request.uri().path() == "/reset" {
        return respond.send_reset(h2::Reason::ENHANCE_YOUR_CALM);
    }
    let mut body = request.into_body();
    let mut send = respond
        .send_response(http::Response::new(()), false)
        .unwrap();
    while let Some(Ok(bytes)) = body.data().await {
        let _ = body.flow_control().release_capacity(bytes.len());
        send.send_data(bytes, false).unwrap();
    }
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    send.send_trailers(trailers).unwrap();
}

async fn client(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    send
}

fn request(path: &str) -> http::Request<()> {
    let uri = format!("http://a.test{path}");
    http::Request::post(uri)
        .header("te", "trailers")
        .body(())
        .unwrap()
}

#[test]
fn streams_both_ways_with_trailers() {
    let proxy = start(streaming_upstream(), http2());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut send = client(proxy.address("http")).await;
        let (response, mut stream) = send.send_request(request("/x"), false).unwrap();
        stream.send_data(Bytes::from_static(b"one"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(
            body.data().await.unwrap().unwrap(),
            "one",
            "before the request has ended"
        );
        stream.send_data(Bytes::from_static(b"two"), true).unwrap();
        assert_eq!(body.data().await.unwrap().unwrap(), "two");
        while let Some(Ok(more)) = body.data().await {
            assert!(more.is_empty(), "{more:?}");
        }
        let trailers = body.trailers().await.unwrap().expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");

        let (response, _) = send.send_request(request("/reset"), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 503, "a reset before headers");
    });
}

#[test]
fn http2_to_http1_and_many_streams() {
    let proxy = start(echo_upstream(), json!({}));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut send = client(proxy.address("http")).await;
        let mut answers = Vec::new();
        for number in 0..50 {
            let path = format!("/{number}");
            answers.push((
                path.clone(),
                send.send_request(request(&path), true).unwrap().0,
            ));
        }
        for (path, answer) in answers {
            let response = answer.await.unwrap();
            assert_eq!(response.status(), 200);
            let mut body = response.into_body();
            let mut all = Vec::new();
            while let Some(Ok(bytes)) = body.data().await {
                let _ = body.flow_control().release_capacity(bytes.len());
                all.extend_from_slice(&bytes);
            }
            let text = String::from_utf8(all).unwrap();
            assert!(text.contains(&format!("POST {path} HTTP/1.1")), "{text}");
        }
    });
}

#[test]
fn an_upstream_that_says_goaway_loses_no_request() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(echo(request, respond));
                        // Each connection serves one request and a bit.
                        connection.graceful_shutdown();
                    }
                });
            }
        });
    });
    let proxy = start(address, http2());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut send = client(proxy.address("http")).await;
        for number in 0..20 {
            let response = send
                .send_request(request("/x"), true)
                .unwrap()
                .0
                .await
                .unwrap();
            assert_eq!(response.status(), 200, "request {number}");
        }
    });
}

#[test]
fn an_upstream_that_no_longer_answers_is_found() {
    // It reads and says nothing: only its missing answers to PING tell.
    let silent = upstream(|mut stream, _| {
        let _ = std::io::Read::read_to_end(&mut stream, &mut Vec::new());
    });
    let mut more = http2();
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let keepalive = json!({"interval": "0.05s", "timeout": "0.1s"});
    more["typed_extension_protocol_options"][options]["explicit_http_config"] =
        json!({"http2_protocol_options": {"connection_keepalive": keepalive}});
    let proxy = start(silent, more);
    let answer = exchange(
        proxy.address("http"),
        b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}
