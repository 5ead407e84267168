//! A small HTTP/1.1 server for admin, debug and control surfaces, on TCP or unix sockets.
//! Bounded in connections, header time and body size. Not for the traffic of the mesh.

mod body;
mod listener;
mod request;
mod router;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

pub use body::{Body, BodySender};
pub use listener::{Accepted, Listener};
pub use request::{Peer, Request};
pub use router::Router;

use crate::drain::DrainWatch;
use crate::tasks::Tasks;

pub type Response = http::Response<Body>;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections: usize,
    /// From accept, or from the end of the last response, to a complete request head.
    pub header_timeout: Duration,
    pub body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 256,
            header_timeout: Duration::from_secs(30),
            body_bytes: 16 << 20,
        }
    }
}

/// Serves until the drain starts, then finishes the requests that are being answered.
pub async fn serve(listener: Listener, router: Router, drain: DrainWatch) {
    serve_with(listener, router, Limits::default(), drain).await;
}

pub async fn serve_with(listener: Listener, router: Router, limits: Limits, drain: DrainWatch) {
    let router = Arc::new(router);
    let free = Arc::new(Semaphore::new(limits.connections));
    let connections = Tasks::new();
    loop {
        let next = async {
            // Accepting only with a free place leaves the surplus in the kernel's queue.
            let place = free.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let Some((place, accepted)) = drain.unless_draining(next).await else {
            break;
        };
        let router = router.clone();
        let drain = drain.clone();
        match accepted {
            Ok(Accepted::Tcp(stream, peer)) => connections.spawn("admin connection", async move {
                let _place = place;
                connection(stream, peer, &router, limits, drain).await;
            }),
            Ok(Accepted::Unix(stream, peer)) => connections.spawn("admin connection", async move {
                let _place = place;
                connection(stream, peer, &router, limits, drain).await;
            }),
            Err(error) => {
                tracing::warn!(%error, "admin: accept failed");
                // Out of descriptors, most likely: do not spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    connections.join().await;
}

async fn connection<S>(stream: S, peer: Peer, router: &Router, limits: Limits, drain: DrainWatch)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request| answer(request, peer, router, limits));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let done = tokio::select! {
        done = connection.as_mut() => done,
        () = drain.started() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = done {
        tracing::debug!(%error, "admin: connection ended");
    }
}

async fn answer(
    request: hyper::Request<Incoming>,
    peer: Peer,
    router: &Router,
    limits: Limits,
) -> Result<Response, Infallible> {
    let (head, body) = request.into_parts();
    // Routed before the body is read: an unknown path costs nothing.
    let handler = match router.find(&head.method, head.uri.path()) {
        Ok(handler) => handler,
        Err(response) => return Ok(response),
    };
    let body = match Limited::new(body, limits.body_bytes).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return Ok(text(
                StatusCode::PAYLOAD_TOO_LARGE,
                "request body too large\n",
            ));
        }
        Err(_) => return Ok(text(StatusCode::BAD_REQUEST, "request body broke off\n")),
    };
    Ok(handler(Request::new(head, body, peer)).await)
}

pub fn text(status: StatusCode, text: impl Into<String>) -> Response {
    response(status, "text/plain; charset=utf-8", text.into())
}

/// `json` is text that is JSON already.
pub fn json(status: StatusCode, json: impl Into<String>) -> Response {
    response(status, "application/json", json.into())
}

pub fn response(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let value = http::HeaderValue::from_static(content_type);
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, value);
    response
}

#[cfg(test)]
mod tests;
