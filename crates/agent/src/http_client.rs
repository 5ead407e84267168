//! One HTTP/1.1 request on one connection, bounded in time and size: probes, scrapes, admin calls.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};

use daemon::tasks;

#[derive(Clone, Debug)]
pub struct Call {
    pub method: Method,
    pub address: SocketAddr,
    /// Bound before connecting, where capture must be passed by.
    pub source: Option<IpAddr>,
    /// With the query.
    pub path: String,
    /// `host` among them, if it shall not be the address.
    pub headers: HeaderMap,
    pub timeout: Duration,
    /// Longer bodies are cut (`is_cut`) or refused.
    pub most_bytes: usize,
}

#[derive(Debug)]
pub struct Answer {
    pub status: http::StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Call {
    pub fn new(method: Method, address: SocketAddr, path: &str) -> Call {
        Call {
            method,
            address,
            source: None,
            path: path.to_string(),
            headers: HeaderMap::new(),
            timeout: Duration::from_secs(5),
            most_bytes: 10 << 20,
        }
    }

    pub async fn send(&self) -> io::Result<Answer> {
        let sending = async {
            let stream = connect(self.address, self.source).await?;
            self.send_on(stream).await
        };
        tokio::time::timeout(self.timeout, sending).await?
    }

    /// On a connection that is open already (TLS); without the time limit.
    pub async fn send_on<S>(&self, stream: S) -> io::Result<Answer>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        // Aborted when this function is left.
        let _connection = tasks::spawn("HTTP call", async move {
            if let Err(error) = connection.await {
                tracing::trace!(%error, "HTTP call: connection ended");
            }
        });
        let response = sender
            .send_request(self.request()?)
            .await
            .map_err(io::Error::other)?;
        self.read(response).await
    }

    fn request(&self) -> io::Result<Request<Full<Bytes>>> {
        let mut request = Request::new(Full::default());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.path.parse().map_err(io::Error::other)?;
        let headers = request.headers_mut();
        *headers = self.headers.clone();
        if !headers.contains_key(http::header::HOST) {
            let host = HeaderValue::try_from(self.address.to_string()).map_err(io::Error::other)?;
            headers.insert(http::header::HOST, host);
        }
        headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        Ok(request)
    }

    async fn read(&self, response: Response<Incoming>) -> io::Result<Answer> {
        let (head, body) = response.into_parts();
        let body = match Limited::new(body, self.most_bytes).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(io::Error::other(format!(
                    "more than {} bytes",
                    self.most_bytes
                )));
            }
            Err(error) => return Err(io::Error::other(error)),
        };
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body,
        })
    }
}

pub async fn connect(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let Some(source) = source else {
        return TcpStream::connect(address).await;
    };
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.bind(SocketAddr::new(source, 0))?;
    socket.connect(address).await
}
