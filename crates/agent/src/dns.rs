//! A DNS server on UDP and TCP: what the mesh knows is answered here, the rest goes to the servers
//! of resolv.conf. Zone and forwarder also serve the local platform.

pub mod forward;
pub mod message;
pub mod resolv_conf;
pub mod zone;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use daemon::drain::DrainWatch;
use daemon::metrics::{Counter, Family, Registry};
use daemon::tasks::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};

use forward::{Forwarder, Transport};
use message::Step;
pub use resolv_conf::ResolvConf;
pub use zone::{Client, Zone};

/// The zone that is answered from; `None` until it is known.
pub type ZoneWatch = watch::Receiver<Option<Arc<Zone>>>;

/// Queries that wait for another server at once; more are answered with a failure.
const FORWARDED: usize = 1_024;
const TCP_CONNECTIONS: usize = 128;
const TCP_IDLE: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub struct Server {
    zone: ZoneWatch,
    forwarder: Arc<Forwarder>,
    places: Arc<Semaphore>,
    queries: Counter,
    forwarded: Counter,
    failures: Family<Counter>,
}

/// The two sockets of one address.
#[derive(Debug)]
pub struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    /// Port 0 gives both the same free port.
    pub async fn bind(address: SocketAddr) -> io::Result<Sockets> {
        const TRIES: usize = 8;
        let mut last = None;
        for _ in 0..TRIES {
            let tcp = TcpListener::bind(address).await?;
            match UdpSocket::bind(tcp.local_addr()?).await {
                Ok(udp) => return Ok(Sockets { udp, tcp }),
                // Only a port that the system chose can be another one next time.
                Err(error) if address.port() != 0 => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }
}

impl Server {
    pub fn new(zone: ZoneWatch, forwarder: Forwarder, registry: &Registry) -> Server {
        Server {
            zone,
            forwarder: Arc::new(forwarder),
            places: Arc::new(Semaphore::new(FORWARDED)),
            queries: registry.counter("istio_agent_dns_requests_total", "DNS queries."),
            forwarded: registry.counter(
                "istio_agent_dns_upstream_requests_total",
                "DNS queries that went to another server.",
            ),
            failures: registry.counters(
                "istio_agent_dns_failures_total",
                "DNS queries that could not be answered.",
                &["reason"],
            ),
        }
    }

    /// Serves until the drain starts.
    pub async fn serve(self, sockets: Sockets, drain: DrainWatch) {
        let Sockets { udp, tcp } = sockets;
        let tasks = Tasks::new();
        let serving = async {
            tokio::join!(
                self.serve_udp(Arc::new(udp), &tasks),
                self.serve_tcp(tcp, &tasks)
            );
        };
        drain.unless_draining(serving).await;
    }

    async fn serve_udp(&self, socket: Arc<UdpSocket>, tasks: &Tasks) {
        let mut buffer = vec![0; 65_535];
        loop {
            let (length, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    // An earlier answer that was refused shows up here; a broken socket too.
                    tracing::debug!(%error, "DNS: receive failed");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            };
            let query = &buffer[..length];
            match self.step(query, Transport::Udp) {
                Step::Reply(reply) => {
                    let _ = socket.send_to(&reply, client).await;
                }
                Step::Ignore => {}
                Step::Forward => {
                    let Ok(place) = self.places.clone().try_acquire_owned() else {
                        self.failures.with(&["busy"]).increment();
                        continue;
                    };
                    let (server, socket, query) = (self.clone(), socket.clone(), query.to_vec());
                    tasks.spawn("DNS query", async move {
                        let reply = server.forward(&query, Transport::Udp).await;
                        let _ = socket.send_to(&reply, client).await;
                        drop(place);
                    });
                }
            }
        }
    }

    async fn serve_tcp(&self, listener: TcpListener, tasks: &Tasks) {
        let places = Arc::new(Semaphore::new(TCP_CONNECTIONS));
        loop {
            let place = places.clone().acquire_owned().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    let server = self.clone();
                    tasks.spawn("DNS connection", async move {
                        if let Err(error) = server.connection(stream).await {
                            tracing::debug!(%error, "DNS: connection ended");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "DNS: accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let reading = read_message(&mut stream);
            let Some(query) = tokio::time::timeout(TCP_IDLE, reading).await?? else {
                return Ok(());
            };
            let reply = match self.step(&query, Transport::Tcp) {
                Step::Reply(reply) => reply,
                Step::Forward => self.forward(&query, Transport::Tcp).await,
                Step::Ignore => return Ok(()),
            };
            tokio::time::timeout(TCP_IDLE, write_message(&mut stream, &reply)).await??;
        }
    }

    fn step(&self, query: &[u8], transport: Transport) -> Step {
        self.queries.increment();
        let zone = self.zone.borrow().clone();
        let step = message::step(query, zone.as_deref(), transport);
        if zone.is_none() {
            self.failures.with(&["no_name_table"]).increment();
        }
        step
    }

    async fn forward(&self, query: &[u8], transport: Transport) -> Vec<u8> {
        self.forwarded.increment();
        match self.forwarder.ask(query, transport).await {
            Ok(reply) => reply,
            Err(error) => {
                tracing::debug!(%error, "DNS: no server answers");
                self.failures.with(&["upstream"]).increment();
                message::server_failure(query)
            }
        }
    }
}

/// One message with its length before it; `None` at the end of the stream.
pub(crate) async fn read_message(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

pub(crate) async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

#[cfg(test)]
mod tests;
