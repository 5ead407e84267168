//! Network level: transports (sockets, TLS), network filters, the TCP proxy, the entry into HTTP.
use std::cell::RefCell;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use crate::access_log::Input;
use crate::cluster::connect::UpstreamConnection;
use crate::listener::ActiveChain;
use crate::parse::listener::Direction;
use crate::parse::network_filter::{NetworkFilter, Terminal};
use crate::stats::istio::TcpReport;
use crate::stats::record::TcpConnection;
use crate::stream_info::{Connection, ResponseFlags, StreamInfo};
use crate::workers::{StreamCount, Worker};
use transport::{Io, Transport};

pub mod metadata_exchange;
pub mod rbac;
pub mod tcp_proxy;
pub mod transport;

/// One connection on its chain.
pub struct Session {
    pub worker: Rc<Worker>,
    pub chain: Rc<ActiveChain>,
    pub connection: Rc<Connection>,
    /// The chain whose network filters let this connection pass.
    admitted: RefCell<Rc<ActiveChain>>,
    /// Upstream connections that count as long as this one lives.
    held: RefCell<Vec<Rc<UpstreamConnection>>>,
}

impl Session {
    pub fn hold(&self, upstream: Rc<UpstreamConnection>) {
        self.held.borrow_mut().push(upstream);
    }

    /// The chain whose settings the next request gets, never older than what is in force: the
    /// successor of the connection's own chain or, where that was replaced by other chains, the
    /// one that its listener matches now. `None`: no request may be served any more.
    pub fn newest_chain(&self) -> Option<Rc<ActiveChain>> {
        let mut chain = self.chain.latest();
        // Of a listener that was removed nothing newer exists: its connections only drain.
        if !chain.is_in_force()
            && let Some(listener) = self.worker.listener(&self.connection.listener_name)
        {
            chain = listener.rematch(&self.connection)?;
        }
        let known = Rc::ptr_eq(&chain, &self.admitted.borrow());
        if !known {
            let mut info = StreamInfo::new(self.connection.clone(), None);
            if !is_authorized(&chain, &mut info) {
                return None;
            }
            *self.admitted.borrow_mut() = chain.clone();
        }
        Some(chain)
    }

    /// New requests of this connection are told that it closes.
    pub fn is_draining(&self) -> bool {
        self.worker.drain.is_draining()
            || self.chain.drain.is_draining()
            || self.chain.latest().drain.is_draining()
    }

    pub fn source_hash(&self) -> u64 {
        let mut hasher = xxhash_rust::xxh64::Xxh64::new(0);
        self.connection.remote.ip().hash(&mut hasher);
        hasher.finish()
    }
}

/// Runs the chain's filters and its terminal filter; the record of the connection comes back.
pub async fn serve(
    worker: Rc<Worker>,
    chain: Rc<ActiveChain>,
    transport: Transport,
    connection: Connection,
) -> StreamInfo {
    let connection = Rc::new(connection);
    let session = Session {
        worker,
        admitted: RefCell::new(chain.clone()),
        chain,
        connection,
        held: RefCell::default(),
    };
    let config = session.chain.entry.config.clone();
    let mut info = StreamInfo::new(session.connection.clone(), None);
    if !admit(&session, &mut info) {
        close_politely(Io::new(transport)).await;
        log_connection(&session, &mut info);
        return info;
    }
    match &config.terminal {
        Terminal::Http(http) => {
            crate::http::connection::serve(Rc::new(session), http.clone(), transport).await;
        }
        Terminal::Tcp(tcp) => {
            let counted = TcpConnection::begin(&tcp.stats);
            let _count = StreamCount::new(session.worker.clone());
            tcp_proxy::run(&session, tcp, &Io::new(transport), &mut info).await;
            counted.end(&info);
            log_connection(&session, &mut info);
        }
        Terminal::DirectResponse(bytes) => {
            let io = Io::new(transport);
            let _ = write_all(&io, bytes).await;
        }
        Terminal::Close => {}
    }
    info
}

/// Ends a connection without a reset: what the client has sent already is taken first.
async fn close_politely(io: Io) {
    let mut taken = bytes::BytesMut::with_capacity(4096);
    std::future::poll_fn(|cx| {
        while taken.len() < 64 * 1024 {
            taken.reserve(1024);
            match io.poll_read(cx, &mut taken) {
                std::task::Poll::Ready(Ok(count)) if count > 0 => {}
                _ => break,
            }
        }
        std::task::Poll::Ready(())
    })
    .await;
    let _ = std::future::poll_fn(|cx| io.poll_shutdown(cx)).await;
}

async fn write_all(io: &Io, bytes: &[u8]) -> std::io::Result<()> {
    let mut at = 0;
    while at < bytes.len() {
        at += std::future::poll_fn(|cx| io.poll_write(cx, &bytes[at..])).await?;
    }
    std::future::poll_fn(|cx| io.poll_flush(cx)).await?;
    std::future::poll_fn(|cx| io.poll_shutdown(cx)).await
}

/// What RBAC filters of a chain that the connection did not begin with say of it.
fn is_authorized(chain: &ActiveChain, info: &mut StreamInfo) -> bool {
    chain
        .entry
        .config
        .filters
        .iter()
        .all(|filter| match filter {
            NetworkFilter::Rbac(rbac) => rbac.check(info).allowed,
            _ => true,
        })
}

/// The network filters before the terminal one; false closes the connection.
fn admit(session: &Session, info: &mut StreamInfo) -> bool {
    for filter in &session.chain.entry.config.filters {
        match filter {
            NetworkFilter::Rbac(rbac) => {
                if !rbac.check(info).allowed {
                    return false;
                }
            }
            NetworkFilter::ConnectionLimit {
                max_connections, ..
            } => {
                let open = u64::from(session.chain.connections.get());
                if open.saturating_mul(session.worker.settings.workers as u64) > *max_connections {
                    info.response_flags.insert(ResponseFlags::UPSTREAM_OVERFLOW);
                    return false;
                }
            }
            NetworkFilter::MetadataExchange | NetworkFilter::IstioStats(_) => {}
        }
    }
    true
}

fn log_connection(session: &Session, info: &mut StreamInfo) {
    info.durations.total = Some(info.elapsed());
    if let Terminal::Tcp(tcp) = &session.chain.entry.config.terminal {
        for log in &tcp.access_logs {
            let input = Input {
                stream: info,
                request: None,
                response: None,
                trailers: None,
            };
            log.log(&input, session.worker.random());
        }
    }
    for filter in &session.chain.entry.config.filters {
        if let NetworkFilter::IstioStats(stats) = filter {
            let inbound = session.chain.listener.direction == Direction::Inbound;
            let (sent, received) = (info.bytes.sent, info.bytes.received);
            let report = TcpReport {
                inbound,
                opened: true,
                closed: true,
                sent,
                received,
            };
            stats.tcp_report(info, report);
        }
    }
}
