//! The standard gRPC health check, one unary call.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;

use daemon::tasks;

const PREFIX: usize = 5;
const MOST_ANSWER: usize = 64 << 10;
const SERVING: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

pub(super) async fn is_serving(stream: TcpStream, service: &str) -> io::Result<bool> {
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
    let _connection = tasks::spawn("gRPC probe", async move {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "gRPC probe: connection ended");
        }
    });
    let message = HealthCheckRequest {
        service: service.to_string(),
    }
    .encode_to_vec();
    let mut framed = BytesMut::with_capacity(message.len() + PREFIX);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).map_err(io::Error::other)?);
    framed.extend_from_slice(&message);
    let request = Request::post("http://probe/grpc.health.v1.Health/Check")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::<Bytes>::new(framed.freeze()))
        .map_err(io::Error::other)?;
    let response = sender
        .send_request(request)
        .await
        .map_err(io::Error::other)?;
    let body = Limited::new(response.into_body(), MOST_ANSWER)
        .collect()
        .await;
    let body = body.map_err(io::Error::other)?.to_bytes();
    // An error status comes without a message: that is "not serving" too.
    let Some(message) = body.get(PREFIX..) else {
        return Ok(false);
    };
    let health = HealthCheckResponse::decode(message).map_err(io::Error::other)?;
    Ok(health.status == SERVING)
}
