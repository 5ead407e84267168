//! One HTTP/1.1 call to another service: a new connection each, bounded in time and size.

use crate::settings::Peer;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;

const MAX_BODY: usize = 1 << 20;

/// What came back.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why nothing came back; printed to the log, never to the user.
pub type CallError = Box<dyn std::error::Error + Send + Sync>;

/// GET `path` from `peer` within `timeout`, connection included.
pub async fn get(
    peer: &Peer,
    path: &str,
    headers: HeaderMap,
    timeout: Duration,
) -> Result<Answer, CallError> {
    match tokio::time::timeout(timeout, exchange(peer, path, headers)).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer from {} within {timeout:?}", peer.host).into()),
    }
}

async fn exchange(peer: &Peer, path: &str, headers: HeaderMap) -> Result<Answer, CallError> {
    let stream = TcpStream::connect((peer.host.as_str(), peer.port)).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await?;
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .body(Full::default())?;
    *request.headers_mut() = headers;
    let authority = match peer.port {
        80 => peer.host.clone(),
        port => format!("{}:{port}", peer.host),
    };
    request
        .headers_mut()
        .insert(http::header::HOST, HeaderValue::from_str(&authority)?);
    let answer = async {
        let response = sender.send_request(request).await?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await?.to_bytes();
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    };
    // Both halves live in this future: dropping it at the timeout closes the connection.
    tokio::pin!(connection);
    tokio::pin!(answer);
    tokio::select! {
        biased;
        result = &mut answer => result,
        ended = &mut connection => match ended {
            Err(error) => Err(error.into()),
            Ok(()) => answer.await,
        },
    }
}
