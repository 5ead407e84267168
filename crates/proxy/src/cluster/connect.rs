//! Opens one upstream connection: socket from the configured source, TLS, within the time allowed.
use std::borrow::Cow;
use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::net::{TcpSocket, UnixStream};

use super::Cluster;
use super::shared::{Address, Host};
use crate::network::transport::{Socket, Transport};
use crate::stats::record::Active;
use crate::stream_info::TlsPeer;
use crate::tls::client;

/// What distinguishes connections to the same host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConnectOptions {
    /// Offered instead of the context's protocols (`istio.alpn`, or the pool's protocol).
    pub alpn: Option<Arc<[Vec<u8>]>>,
    /// SNI from the request's host (`auto_sni`).
    pub server_name: Option<Arc<str>>,
}

/// Facts about an upstream connection, shared with the streams that use it.
#[derive(Debug)]
pub struct UpstreamConnection {
    pub id: u64,
    pub local: Option<SocketAddr>,
    pub remote: Option<SocketAddr>,
    pub tls: Option<Arc<TlsPeer>>,
    pub connect_time: Duration,
    pub opened: Instant,
    pub requests: Cell<u64>,
    _permit: ConnectionPermit,
}

/// Counts a connection in the cluster's and the host's blocks while it lives.
#[derive(Debug)]
pub struct ConnectionPermit {
    cluster: Rc<Cluster>,
    host: Arc<Host>,
    _active: Active,
}

impl ConnectionPermit {
    pub fn new(cluster: Rc<Cluster>, host: Arc<Host>) -> ConnectionPermit {
        cluster.block.priorities[0]
            .connections
            .fetch_add(1, Ordering::Relaxed);
        host.block
            .active_connections
            .fetch_add(1, Ordering::Relaxed);
        host.block.connections_total.fetch_add(1, Ordering::Relaxed);
        let active = Active::connection(&cluster.stats, None);
        ConnectionPermit {
            cluster,
            host,
            _active: active,
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.cluster.block.priorities[0]
            .connections
            .fetch_sub(1, Ordering::Relaxed);
        self.host
            .block
            .active_connections
            .fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub struct Opened {
    pub transport: Transport,
    pub connection: Rc<UpstreamConnection>,
}

/// Why there is no connection.
#[derive(Clone, Debug)]
pub struct ConnectFailure {
    pub timeout: bool,
    /// Envoy's `transport failure reason`, for logs and bodies.
    pub reason: Cow<'static, str>,
}

/// Connects to a host; the permit was taken by the caller's breaker check.
pub async fn open(
    cluster: &Rc<Cluster>,
    host: &Arc<Host>,
    options: &ConnectOptions,
) -> Result<Opened, ConnectFailure> {
    let permit = ConnectionPermit::new(cluster.clone(), host.clone());
    let started = Instant::now();
    let attempt = attempt(cluster, host, options);
    let result = match tokio::time::timeout(cluster.config.connect_timeout, attempt).await {
        Ok(result) => result,
        Err(_) => Err(ConnectFailure {
            timeout: true,
            reason: "".into(),
        }),
    };
    let (transport, tls) = result.inspect_err(|_| {
        host.block.connect_failures.fetch_add(1, Ordering::Relaxed);
    })?;
    let socket = transport.socket();
    let connection = UpstreamConnection {
        id: cluster.worker_ids.next(),
        local: socket.local_addr(),
        remote: host.address.socket(),
        tls,
        connect_time: started.elapsed(),
        opened: Instant::now(),
        requests: Cell::new(0),
        _permit: permit,
    };
    Ok(Opened {
        transport,
        connection: Rc::new(connection),
    })
}

async fn attempt(
    cluster: &Cluster,
    host: &Host,
    options: &ConnectOptions,
) -> Result<(Transport, Option<Arc<TlsPeer>>), ConnectFailure> {
    let socket = connect_socket(cluster, host)
        .await
        .map_err(socket_failure)?;
    let Some(context) = cluster.tls_for(host) else {
        return Ok((Transport::Plain(socket), None));
    };
    let by_host = context.parsed().auto_host_sni && !host.hostname.is_empty();
    let server_name = match &options.server_name {
        Some(name) => Some(&**name),
        None if by_host => Some(&*host.hostname),
        None => None,
    };
    let request = client::Request {
        server_name,
        address: host.address.socket().map(|address| address.ip()),
        alpn: options.alpn.as_deref(),
    };
    let (stream, peer) = context
        .connect(socket, request)
        .await
        .map_err(tls_failure)?;
    Ok((Transport::Client(Box::new(stream)), Some(peer)))
}

async fn connect_socket(cluster: &Cluster, host: &Host) -> io::Result<Socket> {
    match &host.address {
        Address::Socket(address) => {
            let bind = cluster.config.bind.as_ref();
            let keepalive = cluster.config.keepalive.as_ref();
            let socket = crate::sys::upstream_socket(*address, bind, keepalive)?;
            Ok(Socket::tcp(
                TcpSocket::from_std_stream(socket).connect(*address).await?,
            ))
        }
        Address::Pipe(path) => Ok(Socket::unix(UnixStream::connect(path).await?)),
    }
}

fn socket_failure(error: io::Error) -> ConnectFailure {
    let reason = match error.raw_os_error() {
        Some(_) => format!("delayed connect error: {}", os_words(&error)),
        None => format!("delayed connect error: {error}"),
    };
    ConnectFailure {
        timeout: false,
        reason: reason.into(),
    }
}

/// The system's words without the number that Rust appends.
fn os_words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn tls_failure(error: client::ConnectError) -> ConnectFailure {
    let reason = match &error {
        client::ConnectError::NoSecret => "TLS error: Secret is not supplied by SDS".to_owned(),
        other => format!("TLS_error: {other}"),
    };
    ConnectFailure {
        timeout: false,
        reason: reason.into(),
    }
}
