//! The server's end of gRPC over one connection: each call is given to a handler as whole
//! messages, both ways. Used by the control plane (TLS) and by the agent (Unix sockets).
//!
//! ```text
//! serve_unix(listener, |call: Call| async move {
//!     let Some((service, mode)) = xds::Service::from_path(&call.path) else {
//!         return Err(Status::new(Code::Unimplemented, "no such method"));
//!     };
//!     let Call { mut requests, responses, .. } = call;
//!     while let Some(request) = requests.message::<DeltaDiscoveryRequest>().await? {
//!         responses.send(xds::wire::encode_delta(&outgoing)).await?;   // or message(&prost)
//!     }
//!     Ok(())                                                           // status OK
//! }, Limits::default(), shutdown).await
//! ```
//! The handler's future is polled by the response body itself: a client that goes away drops it.
//! What must happen at the end of a call belongs into a `Drop`.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::frame::{Chunks, Deframer};
use super::{Code, Status};

/// Messages that wait to be written, per call.
const QUEUED_RESPONSES: usize = 4;
/// How long calls may take to end after a shutdown was asked for.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// What one connection may use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Calls open at once.
    pub calls: u32,
    /// Connections open at once (where this module accepts them).
    pub connections: usize,
    /// Pings when idle.
    pub keep_alive: Duration,
    /// How long a ping may stay unanswered.
    pub keep_alive_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            calls: 100,
            connections: 256,
            keep_alive: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(10),
        }
    }
}

/// One call, as the handler gets it.
pub struct Call {
    /// `/package.Service/Method`.
    pub path: String,
    /// The call's metadata.
    pub headers: HeaderMap,
    /// What the client sends.
    pub requests: Requests,
    /// What it is answered.
    pub responses: Responses,
}

/// The client's messages.
pub struct Requests {
    body: Incoming,
    deframer: Deframer,
}

impl Requests {
    /// The next message as bytes; `None` when the client has said all. Safe to cancel.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.deframer.next()? {
                return Ok(Some(message));
            }
            let body = &mut self.body;
            let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
            match frame {
                None if self.deframer.is_empty() => return Ok(None),
                None => return Err(Status::invalid_argument("the last message is cut short")),
                Some(Err(error)) => return Err(Status::new(Code::Canceled, error.to_string())),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.deframer.push(bytes);
                    }
                }
            }
        }
    }

    /// The next message, decoded.
    pub async fn message<M: prost::Message + Default>(&mut self) -> Result<Option<M>, Status> {
        let Some(bytes) = self.next().await? else {
            return Ok(None);
        };
        M::decode(bytes).map(Some).map_err(Status::invalid_argument)
    }
}

/// The server's messages. Waits while the client does not read.
#[derive(Clone)]
pub struct Responses(mpsc::Sender<Chunks>);

impl Responses {
    /// Sends one message, given as chunks of its encoding (nothing is copied).
    pub async fn send(&self, message: Vec<Bytes>) -> Result<(), Status> {
        let frame = Chunks::frame(message)?;
        self.0
            .send(frame)
            .await
            .map_err(|_| Status::new(Code::Canceled, "the call has ended"))
    }

    /// Encodes and sends one message.
    pub async fn message<M: prost::Message>(&self, message: &M) -> Result<(), Status> {
        self.send(vec![message.encode_to_vec().into()]).await
    }
}

/// Serves one connection until it ends; after `shutdown` it takes no new calls, and is closed
/// when its calls have ended or after 2 s.
pub async fn serve_connection<I, H, F>(
    io: I,
    handler: H,
    limits: &Limits,
    shutdown: impl Future<Output = ()>,
) -> Result<(), hyper::Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Call) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let response = answer(request, &handler);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(limits.keep_alive)
            .keep_alive_timeout(limits.keep_alive_timeout)
            .max_concurrent_streams(limits.calls)
            .serve_connection(TokioIo::new(io), service)
    );
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = shutdown => connection.as_mut().graceful_shutdown(),
    }
    tokio::time::timeout(SHUTDOWN_GRACE, connection)
        .await
        .unwrap_or(Ok(()))
}

/// Accepts on a Unix socket until `shutdown`; each call of each connection goes to the handler.
pub async fn serve_unix<H, F>(
    listener: UnixListener,
    handler: H,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) where
    H: Fn(Call) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = shutdown.as_mut() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < limits.connections => accepted,
        };
        let Ok((io, _)) = accepted.inspect_err(|error| tracing::warn!(%error, "accept failed"))
        else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (handler, limits, mut stopped) = (handler.clone(), limits.clone(), stopped.clone());
        connections.spawn(async move {
            let shutdown = async move {
                let _ = stopped.wait_for(|stopped| *stopped).await;
            };
            if let Err(error) = serve_connection(io, handler, &limits, shutdown).await {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
    let _ = stop.send(true);
    while connections.join_next().await.is_some() {}
}

fn answer<H, F>(request: Request<Incoming>, handler: &H) -> Response<ResponseBody>
where
    H: Fn(Call) -> F,
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let is_grpc = request
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    let (sender, queue) = mpsc::channel(QUEUED_RESPONSES);
    let mut response = Response::new(ResponseBody {
        handler: None,
        queue,
        ended: None,
    });
    if request.method() != Method::POST || !is_grpc {
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return response;
    }
    let (head, body) = request.into_parts();
    let call = Call {
        path: head.uri.path().to_owned(),
        headers: head.headers,
        requests: Requests {
            body,
            deframer: Deframer::default(),
        },
        responses: Responses(sender),
    };
    response.body_mut().handler = Some(Box::pin(handler(call)));
    let content_type = http::HeaderValue::from_static("application/grpc");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, content_type);
    response
}

type Handler = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

struct ResponseBody {
    handler: Option<Handler>,
    queue: mpsc::Receiver<Chunks>,
    ended: Option<Status>,
}

impl ResponseBody {
    fn drive(&mut self, cx: &mut Context<'_>) {
        let Some(handler) = &mut self.handler else {
            return;
        };
        if let Poll::Ready(result) = handler.as_mut().poll(cx) {
            self.handler = None;
            self.ended = Some(result.err().unwrap_or_else(|| Status::new(Code::Ok, "")));
            self.queue.close();
        }
    }
}

impl Body for ResponseBody {
    type Data = Chunks;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunks>, Infallible>>> {
        self.drive(cx);
        match self.queue.poll_recv(cx) {
            Poll::Ready(Some(chunks)) => Poll::Ready(Some(Ok(Frame::data(chunks)))),
            Poll::Pending => Poll::Pending,
            // The handler has let go of its sender but still works: it wakes us when it ends.
            Poll::Ready(None) if self.handler.is_some() => Poll::Pending,
            Poll::Ready(None) => {
                let trailers = self.ended.take().map(|status| status.trailers());
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
        }
    }
}
