//! Opens gRPC calls on Unix sockets, TCP and TLS. `Call` is the low level: whole messages as
//! bytes, both ways; a relay forwards them verbatim, `grpc::client` speaks xDS over it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::frame::{Chunks, Deframer};
use super::{Code, Status};

/// Flow-control windows: a first answer for a large mesh is megabytes.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests that wait to be written, per call.
const QUEUED_REQUESTS: usize = 16;

/// Where a server listens.
#[derive(Debug, Clone)]
pub enum Address {
    /// A Unix stream socket.
    Unix(PathBuf),
    /// Plain TCP.
    Tcp(SocketAddr),
    /// TLS over TCP; ALPN `h2` is set here.
    Tls {
        /// Where to connect.
        addr: SocketAddr,
        /// Whose certificate is expected.
        server_name: ServerName<'static>,
        /// Roots, client certificate, provider.
        config: Arc<rustls::ClientConfig>,
    },
}

/// Makes the metadata of a call, anew for each call (a token file may have changed).
pub type MetadataSource = Arc<dyn Fn() -> Vec<(String, String)> + Send + Sync>;

/// A server and the metadata every call to it carries.
#[derive(Clone)]
pub struct Target {
    /// Where it listens.
    pub address: Address,
    /// Sent with each call, such as `authorization`.
    pub metadata: Vec<(String, String)>,
    /// More of it, asked for at each call.
    pub metadata_source: Option<MetadataSource>,
}

impl Target {
    /// A target without metadata.
    pub fn new(address: Address) -> Target {
        Target {
            address,
            metadata: Vec::new(),
            metadata_source: None,
        }
    }

    /// A Unix socket.
    pub fn unix(path: impl Into<PathBuf>) -> Target {
        Target::new(Address::Unix(path.into()))
    }

    /// Plain TCP.
    pub fn tcp(addr: SocketAddr) -> Target {
        Target::new(Address::Tcp(addr))
    }

    /// TLS.
    pub fn tls(
        addr: SocketAddr,
        server_name: ServerName<'static>,
        config: Arc<rustls::ClientConfig>,
    ) -> Target {
        Target::new(Address::Tls {
            addr,
            server_name,
            config,
        })
    }

    /// Adds one fixed entry of metadata.
    pub fn with_metadata(mut self, name: &str, value: &str) -> Target {
        self.metadata.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Asks for more metadata at each call.
    pub fn with_metadata_source(mut self, source: MetadataSource) -> Target {
        self.metadata_source = Some(source);
        self
    }

    fn headers(&self) -> Result<HeaderMap, Status> {
        let mut headers = HeaderMap::new();
        let dynamic = self
            .metadata_source
            .as_ref()
            .map(|source| source())
            .unwrap_or_default();
        for (name, value) in self.metadata.iter().chain(&dynamic) {
            let bad = || Status::internal(format!("metadata {name:?} is no header"));
            let name = HeaderName::try_from(name).map_err(|_| bad())?;
            let mut value = HeaderValue::try_from(value).map_err(|_| bad())?;
            value.set_sensitive(name == http::header::AUTHORIZATION);
            headers.append(name, value);
        }
        Ok(headers)
    }
}

/// One HTTP/2 connection. Dropping it (and all its calls) closes it.
pub struct Connection {
    sender: http2::SendRequest<RequestBody>,
    driver: Driver,
    headers: HeaderMap,
}

/// The task that moves the connection's bytes; it lives as long as its last user.
#[derive(Clone)]
struct Driver {
    _task: Arc<AbortOnDrop>,
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    /// Connects within 10 s.
    pub async fn connect(target: &Target) -> Result<Connection, Status> {
        let connecting = async {
            match &target.address {
                Address::Unix(path) => {
                    let io = UnixStream::connect(path).await.map_err(|error| {
                        Status::unavailable(format!("{}: {error}", path.display()))
                    })?;
                    handshake(io).await
                }
                Address::Tcp(addr) => handshake(connect_tcp(*addr).await?).await,
                Address::Tls {
                    addr,
                    server_name,
                    config,
                } => {
                    let mut config = rustls::ClientConfig::clone(config);
                    config.alpn_protocols = vec![b"h2".to_vec()];
                    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
                    let io = connect_tcp(*addr).await?;
                    let io = connector
                        .connect(server_name.clone(), io)
                        .await
                        .map_err(|error| {
                            Status::unavailable(format!("TLS with {addr}: {error}"))
                        })?;
                    handshake(io).await
                }
            }
        };
        let (sender, driver) = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| Status::unavailable("connecting took longer than 10 s"))??;
        Ok(Connection {
            sender,
            driver,
            headers: target.headers()?,
        })
    }

    /// Opens a call. The response is awaited with its first message, as some servers send their
    /// headers only then.
    pub fn open(&mut self, path: &str) -> Result<Call, Status> {
        let (requests, queue) = mpsc::channel(QUEUED_REQUESTS);
        let mut request = Request::post(format!("http://xds{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(RequestBody { queue })
            .map_err(Status::internal)?;
        request.headers_mut().extend(self.headers.clone());
        let response = self.sender.send_request(request);
        Ok(Call {
            requests: Requests(requests),
            responses: Responses {
                state: State::Waiting(Box::pin(response)),
                deframer: Deframer::default(),
                _driver: self.driver.clone(),
            },
        })
    }

    /// One request, one response.
    pub async fn unary<Q, R>(&mut self, path: &str, request: &Q) -> Result<R, Status>
    where
        Q: prost::Message,
        R: prost::Message + Default,
    {
        let Call {
            requests,
            mut responses,
        } = self.open(path)?;
        requests.send(vec![request.encode_to_vec().into()]).await?;
        drop(requests);
        let message = responses
            .next()
            .await?
            .ok_or_else(|| Status::internal("the call ended without a response"))?;
        let response = R::decode(message).map_err(Status::internal)?;
        while responses.next().await?.is_some() {}
        Ok(response)
    }
}

/// An open call. The halves may be moved to different tasks.
pub struct Call {
    /// Writes messages; dropping it ends the request side.
    pub requests: Requests,
    /// Reads messages; dropping it cancels the call.
    pub responses: Responses,
}

/// The request side of a call.
#[derive(Clone)]
pub struct Requests(mpsc::Sender<Chunks>);

impl Requests {
    /// Queues one message, given as chunks of its encoding.
    pub async fn send(&self, message: Vec<Bytes>) -> Result<(), Status> {
        let frame = Chunks::frame(message)?;
        self.0
            .send(frame)
            .await
            .map_err(|_| Status::unavailable("the call has ended"))
    }
}

type ResponseFuture =
    Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send + Sync>>;

enum State {
    Waiting(ResponseFuture),
    Open(Incoming),
    Ended,
}

/// The response side of a call.
pub struct Responses {
    state: State,
    deframer: Deframer,
    _driver: Driver,
}

impl Responses {
    /// Waits until the server has accepted the call (its headers are there).
    pub async fn accepted(&mut self) -> Result<(), Status> {
        let State::Waiting(response) = &mut self.state else {
            return Ok(());
        };
        let response = response.await.map_err(describe)?;
        if let Some(status) = Status::from_headers(response.headers()) {
            self.state = State::Ended;
            return if status.code == Code::Ok {
                Ok(())
            } else {
                Err(status)
            };
        }
        if response.status() != StatusCode::OK {
            return Err(Status::unavailable(format!(
                "HTTP status {}",
                response.status()
            )));
        }
        self.state = State::Open(response.into_body());
        Ok(())
    }

    /// The next message; `None` when the call has ended well. Safe to cancel.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        self.accepted().await?;
        loop {
            if let Some(message) = self.deframer.next()? {
                return Ok(Some(message));
            }
            let State::Open(body) = &mut self.state else {
                return Ok(None);
            };
            let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
            let Some(frame) = frame else {
                self.state = State::Ended;
                return Err(Status::unavailable("the stream ended without a status"));
            };
            match frame.map_err(describe)?.into_data() {
                Ok(bytes) => self.deframer.push(bytes),
                Err(frame) => {
                    self.state = State::Ended;
                    let trailers = frame.into_trailers().unwrap_or_default();
                    let status = Status::from_headers(&trailers)
                        .unwrap_or_else(|| Status::unavailable("trailers without a status"));
                    if status.code != Code::Ok {
                        return Err(status);
                    }
                    if !self.deframer.is_empty() {
                        return Err(Status::internal("the last message is cut short"));
                    }
                }
            }
        }
    }
}

fn describe(error: hyper::Error) -> Status {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    Status::unavailable(text)
}

async fn connect_tcp(addr: SocketAddr) -> Result<TcpStream, Status> {
    let io = TcpStream::connect(addr)
        .await
        .map_err(|error| Status::unavailable(format!("{addr}: {error}")))?;
    io.set_nodelay(true).map_err(Status::unavailable)?;
    Ok(io)
}

async fn handshake<I>(io: I) -> Result<(http2::SendRequest<RequestBody>, Driver), Status>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(TokioIo::new(io))
        .await
        .map_err(describe)?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the discovery connection ended");
        }
    });
    Ok((
        sender,
        Driver {
            _task: Arc::new(AbortOnDrop(driver)),
        },
    ))
}

/// The request side as hyper reads it.
struct RequestBody {
    queue: mpsc::Receiver<Chunks>,
}

impl Body for RequestBody {
    type Data = Chunks;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunks>, Infallible>>> {
        self.queue
            .poll_recv(cx)
            .map(|chunks| chunks.map(|chunks| Ok(Frame::data(chunks))))
    }
}
