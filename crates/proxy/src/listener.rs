//! Listeners on a worker: accept, restore the destination, inspect, choose a chain, hand over.
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use tokio::net::TcpStream;

use crate::access_log::Input;
use crate::network::transport::{Socket, Transport};
use crate::parse::listener as config;
use crate::stats::record::ListenerConnection;
use crate::stats::tables::Listener as Stat;
use crate::stream_info::{Connection, ResponseFlags, StreamInfo};
use crate::tls::ServerContext;
use crate::workers::Worker;

pub mod chain_match;
mod inspect;
mod proxy_protocol;

/// A listener as the main thread built it; workers share it.
#[derive(Debug)]
pub struct ListenerEntry {
    pub config: Arc<config::Listener>,
    pub chains: Vec<Arc<ChainEntry>>,
    pub default_chain: Option<Arc<ChainEntry>>,
}

#[derive(Debug)]
pub struct ChainEntry {
    pub config: Arc<config::FilterChain>,
    pub tls: Option<Arc<ServerContext>>,
    /// Of the whole chain: an equal one is the same chain.
    pub hash: u64,
    /// Of criteria and transport: connections may move on to such a chain.
    pub transport_hash: u64,
}

/// Tells the connections of a chain to finish.
#[derive(Debug, Default)]
pub struct DrainSignal {
    draining: Cell<bool>,
    closing: Cell<bool>,
    changed: tokio::sync::Notify,
}

impl DrainSignal {
    /// Finish what is in flight, begin nothing new.
    pub fn drain(&self) {
        self.draining.set(true);
        self.changed.notify_waiters();
    }

    /// The time to finish is over.
    pub fn close(&self) {
        self.draining.set(true);
        self.closing.set(true);
        self.changed.notify_waiters();
    }

    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    pub fn is_closing(&self) -> bool {
        self.closing.get()
    }

    pub async fn drained(&self) {
        while !self.draining.get() {
            self.changed.notified().await;
        }
    }

    pub async fn closed(&self) {
        while !self.closing.get() {
            self.changed.notified().await;
        }
    }
}

/// A filter chain in force on this worker, or draining.
pub struct ActiveChain {
    pub entry: Arc<ChainEntry>,
    pub listener: Arc<config::Listener>,
    pub drain: DrainSignal,
    pub connections: Cell<u32>,
    successor: RefCell<Option<Rc<ActiveChain>>>,
    in_force: Cell<bool>,
}

impl ActiveChain {
    fn new(entry: Arc<ChainEntry>, listener: Arc<config::Listener>) -> Rc<ActiveChain> {
        Rc::new(ActiveChain {
            entry,
            listener,
            drain: DrainSignal::default(),
            connections: Cell::new(0),
            successor: RefCell::new(None),
            in_force: Cell::new(true),
        })
    }

    /// Its listener is gone, or has another chain in its place.
    pub fn retire(&self) {
        self.in_force.set(false);
    }

    /// New connections may still get it.
    pub fn is_in_force(&self) -> bool {
        self.in_force.get()
    }

    pub fn has_successor(&self) -> bool {
        self.successor.borrow().is_some()
    }

    /// The chain whose HTTP settings new streams of this connection use.
    pub fn latest(self: &Rc<ActiveChain>) -> Rc<ActiveChain> {
        let mut chain = self.clone();
        loop {
            let next = chain.successor.borrow().clone();
            match next {
                Some(next) => chain = next,
                None => return chain,
            }
        }
    }
}

/// Counts a connection while it lives.
pub struct ConnectionCount(Rc<ActiveChain>);

impl ConnectionCount {
    pub fn new(chain: Rc<ActiveChain>) -> ConnectionCount {
        chain.connections.set(chain.connections.get() + 1);
        ConnectionCount(chain)
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
    }
}

/// A listener in force on this worker.
pub struct ActiveListener {
    pub entry: Arc<ListenerEntry>,
    chains: Vec<Rc<ActiveChain>>,
    default_chain: Option<Rc<ActiveChain>>,
}

impl ActiveListener {
    /// Takes over what is equal in `previous`; what it does not take over is returned to drain.
    pub fn new(
        entry: Arc<ListenerEntry>,
        previous: Option<&ActiveListener>,
    ) -> (Rc<ActiveListener>, Vec<Rc<ActiveChain>>) {
        let mut old: Vec<Rc<ActiveChain>> = previous.map(ActiveListener::all).unwrap_or_default();
        let mut make = |chain: &Arc<ChainEntry>| {
            let same = old.iter().position(|one| one.entry.hash == chain.hash);
            match same {
                Some(at) => old.remove(at),
                None => ActiveChain::new(chain.clone(), entry.config.clone()),
            }
        };
        let chains: Vec<_> = entry.chains.iter().map(&mut make).collect();
        let default_chain = entry.default_chain.as_ref().map(&mut make);
        let listener = Rc::new(ActiveListener {
            entry,
            chains,
            default_chain,
        });
        let new = listener.all();
        for chain in &old {
            chain.retire();
            let successor = new
                .iter()
                .find(|one| one.entry.transport_hash == chain.entry.transport_hash)
                .cloned();
            *chain.successor.borrow_mut() = successor;
        }
        (listener, old)
    }

    pub fn all(&self) -> Vec<Rc<ActiveChain>> {
        self.chains
            .iter()
            .chain(&self.default_chain)
            .cloned()
            .collect()
    }

    fn choose(&self, connection: &Connection) -> Option<Rc<ActiveChain>> {
        let facts = chain_match::Facts::of(connection);
        let criteria = self.chains.iter().map(|chain| &chain.entry.config.criteria);
        match chain_match::find(criteria, &facts) {
            Some(index) => Some(self.chains[index].clone()),
            None => self.default_chain.clone(),
        }
    }

    /// The chain for the next request of a connection whose own chain is gone: what a new
    /// connection like it would get. Its handshake is over, so a chain that demands another
    /// transport, or a client certificate that was not shown, is none. Which authorities signed
    /// that certificate is not asked again.
    pub fn rematch(&self, connection: &Connection) -> Option<Rc<ActiveChain>> {
        let chain = self.choose(connection)?;
        let fits = match (&chain.entry.config.tls, &connection.tls) {
            (None, None) => true,
            (Some(tls), Some(peer)) => peer.verified || !tls.require_client_certificate,
            _ => false,
        };
        fits.then_some(chain)
    }
}

/// One accepted connection, from its first byte to its last.
// tidy: long function: one connection through its stages, in their order.
pub async fn serve(
    worker: Rc<Worker>,
    listener: Rc<ActiveListener>,
    mut stream: TcpStream,
    direct_remote: SocketAddr,
) {
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let _ = stream.set_nodelay(true);
    let mut connection = Connection::plain(worker.ids.next(), local, direct_remote);
    let mut buffer = BytesMut::new();
    let mut listener = listener;
    if listener.entry.config.use_original_dst {
        inspect::original_dst(&stream, &mut connection);
    }
    if !run_filters(
        &worker,
        &listener,
        &mut stream,
        &mut buffer,
        &mut connection,
    )
    .await
    {
        return;
    }
    if listener.entry.config.use_original_dst
        && connection.local_restored
        && let Some(other) = worker.listener_for(connection.local)
        && !Rc::ptr_eq(&other, &listener)
    {
        listener = other;
        if !run_filters(
            &worker,
            &listener,
            &mut stream,
            &mut buffer,
            &mut connection,
        )
        .await
        {
            return;
        }
    }
    connection.listener_name = listener.entry.config.name.clone();
    // The filters took their time: a chain that was replaced meanwhile must not be chosen.
    let Some(listener) = worker.listener(&connection.listener_name) else {
        return;
    };
    let stats = &listener.entry.config.stats;
    let _counted = ListenerConnection::begin(stats);
    let Some(chain) = listener.choose(&connection) else {
        stats.inc(Stat::NoFilterChainMatch);
        tracing::debug!(listener = %connection.listener_name, "no filter chain matches");
        if !buffer.is_empty() {
            // What was sent is dropped unread, and the client is told so.
            let _ = socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
        }
        let mut info = StreamInfo::new(Rc::new(connection), None);
        info.response_flags.insert(ResponseFlags::NO_ROUTE_FOUND);
        info.response_code_details = Some("filter_chain_not_found".into());
        log(&worker, &listener, info);
        return;
    };
    connection.filter_chain_name = chain.entry.config.name.clone();
    let _count = ConnectionCount::new(chain.clone());
    let socket = Socket::tcp(stream).with_prefix(buffer);
    let tls = chain.entry.tls.is_some();
    let secured = secure(&chain, socket, &mut connection).await;
    if tls {
        let (good, bad) = (Stat::SslHandshake, Stat::SslConnectionError);
        stats.inc(if secured.is_some() { good } else { bad });
    }
    let info = match secured {
        Some(transport) => {
            crate::network::serve(worker.clone(), chain, transport, connection).await
        }
        None => StreamInfo::new(Rc::new(connection), None),
    };
    log(&worker, &listener, info);
}

/// The listener's own logs, of each connection that passed its filters.
fn log(worker: &Worker, listener: &ActiveListener, mut info: StreamInfo) {
    info.durations.total = Some(info.downstream.start.elapsed());
    for log in &listener.entry.config.access_logs {
        let input = Input {
            stream: &info,
            request: None,
            response: None,
            trailers: None,
        };
        log.log(&input, worker.random());
    }
}

/// False: the connection ends here.
async fn run_filters(
    worker: &Worker,
    listener: &ActiveListener,
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    connection: &mut Connection,
) -> bool {
    let config = &listener.entry.config;
    if config.filters.is_empty() {
        return true;
    }
    let _ = worker;
    let run = inspect::run(config, stream, buffer, connection);
    let result = match config.filters_timeout {
        None => run.await,
        Some(limit) => match tokio::time::timeout(limit, run).await {
            Ok(result) => result,
            Err(_) if config.continue_on_filters_timeout => Ok(()),
            Err(_) => return false,
        },
    };
    match result {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(listener = %config.name, %error, "connection refused");
            false
        }
    }
}

async fn secure(
    chain: &ActiveChain,
    socket: Socket,
    connection: &mut Connection,
) -> Option<Transport> {
    let Some(context) = &chain.entry.tls else {
        return Some(Transport::Plain(socket));
    };
    let accept = context.accept(socket);
    let limit = chain.entry.config.transport_connect_timeout;
    let accepted = match limit {
        None => accept.await,
        Some(limit) => tokio::time::timeout(limit, accept).await.ok()?,
    };
    match accepted {
        Ok((stream, peer)) => {
            connection.transport_protocol = "tls";
            if connection.requested_server_name.is_none() {
                let name = stream.get_ref().1.server_name();
                connection.requested_server_name = name.map(Arc::from);
            }
            connection.tls = Some(peer);
            connection.start = Instant::now();
            Some(Transport::Server(Box::new(stream)))
        }
        Err(error) => {
            tracing::debug!(chain = %chain.entry.config.name, %error, "TLS handshake failed");
            None
        }
    }
}
