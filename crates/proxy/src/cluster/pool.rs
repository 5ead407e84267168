//! Connections to one host, per worker: idle HTTP/1 connections, shared HTTP/2 ones, and the
//! streams that wait for either. Connecting goes on when the stream that asked for it is gone.
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Cluster;
use super::connect::{self, ConnectFailure, ConnectOptions, UpstreamConnection};
use super::shared::{Host, RoutingPriority};
use crate::http::codec::h1;
use crate::http::codec::h2::{Coalesce, keepalive};
use crate::network::transport::{Io, Transport};
use crate::parse::http_options::Http2Options;
use crate::stats::tables::Cluster as Stat;

/// Which protocol a pool speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolProtocol {
    Http1,
    Http2,
    /// What ALPN says.
    Auto,
}

/// One HTTP/1 connection, in use or idle.
#[derive(Debug)]
pub struct Http1Connection {
    pub reader: h1::Reader,
    pub writer: h1::Writer,
    pub connection: Rc<UpstreamConnection>,
    idle_since: Instant,
}

/// One HTTP/2 connection, shared.
#[derive(Debug)]
pub struct Http2Connection {
    send: RefCell<h2::client::SendRequest<Bytes>>,
    pub connection: Rc<UpstreamConnection>,
    active: Cell<u32>,
    limit: u32,
    draining: Cell<bool>,
    idle_since: Cell<Instant>,
    task: RefCell<Option<tokio::task::AbortHandle>>,
}

impl Http2Connection {
    pub fn send(&self) -> h2::client::SendRequest<Bytes> {
        self.send.borrow().clone()
    }

    fn has_room(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let mut send = self.send.borrow_mut();
        match send.poll_ready(&mut cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Pending => return false,
            // The peer has said GOAWAY: what runs may finish, nothing new begins here.
            Poll::Ready(Err(_)) => self.draining.set(true),
        }
        let peer = u32::try_from(send.current_max_send_streams()).unwrap_or(u32::MAX);
        !self.draining.get() && self.active.get() < self.limit.min(peer)
    }
}

impl Drop for Http2Connection {
    fn drop(&mut self) {
        if let Some(task) = self.task.borrow_mut().take() {
            task.abort();
        }
    }
}

/// The right to one stream.
#[derive(Debug)]
pub enum Lease {
    Http1(Box<Http1Connection>),
    Http2(Http2Lease),
}

/// A place on a shared connection, given back on drop.
#[derive(Debug)]
pub struct Http2Lease {
    pub shared: Rc<Http2Connection>,
    pool: Rc<Pool>,
}

impl Drop for Http2Lease {
    fn drop(&mut self) {
        let shared = &self.shared;
        shared.active.set(shared.active.get() - 1);
        if shared.active.get() == 0 {
            shared.idle_since.set(Instant::now());
            if shared.draining.get() {
                self.pool.forget(shared);
            }
        }
        self.pool.serve();
    }
}

impl Lease {
    pub fn connection(&self) -> &Rc<UpstreamConnection> {
        match self {
            Lease::Http1(one) => &one.connection,
            Lease::Http2(one) => &one.shared.connection,
        }
    }
}

/// Why there is no lease.
#[derive(Clone, Debug)]
pub enum PoolFailure {
    Overflow,
    Connect(ConnectFailure),
}

#[derive(Debug)]
struct Waiter {
    sender: oneshot::Sender<Result<Lease, PoolFailure>>,
    _pending: PendingPermit,
}

/// Counts a waiting stream in the cluster's block.
#[derive(Debug)]
struct PendingPermit(Rc<Cluster>, RoutingPriority);

impl Drop for PendingPermit {
    fn drop(&mut self) {
        self.0
            .block
            .priority(self.1)
            .pending_requests
            .fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub struct Pool {
    cluster: Rc<Cluster>,
    host: Arc<Host>,
    protocol: PoolProtocol,
    options: ConnectOptions,
    // Boxed, because a connection moves between here and its streams.
    #[allow(clippy::vec_box)]
    idle: RefCell<Vec<Box<Http1Connection>>>,
    shared: RefCell<Vec<Rc<Http2Connection>>>,
    waiters: RefCell<VecDeque<Waiter>>,
    connecting: Cell<u32>,
    /// HTTP/1 connections that are in use.
    busy: Cell<u32>,
    closed: Cell<bool>,
    me: std::rc::Weak<Pool>,
}

impl Pool {
    pub fn new(
        cluster: Rc<Cluster>,
        host: Arc<Host>,
        protocol: PoolProtocol,
        options: ConnectOptions,
    ) -> Rc<Pool> {
        Rc::new_cyclic(|me| Pool {
            cluster,
            host,
            protocol,
            options,
            idle: RefCell::new(Vec::new()),
            shared: RefCell::new(Vec::new()),
            waiters: RefCell::new(VecDeque::new()),
            connecting: Cell::new(0),
            busy: Cell::new(0),
            closed: Cell::new(false),
            me: me.clone(),
        })
    }

    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// A connection for one stream: at once, or when one is free or connected.
    pub async fn lease(&self, priority: RoutingPriority) -> Result<Lease, PoolFailure> {
        if let Some(lease) = self.ready_lease() {
            return Ok(lease);
        }
        let thresholds = self.cluster.config.circuit_breakers.of(priority);
        let pending = &self.cluster.block.priority(priority).pending_requests;
        if pending.fetch_add(1, Ordering::Relaxed) >= thresholds.max_pending_requests {
            pending.fetch_sub(1, Ordering::Relaxed);
            return Err(PoolFailure::Overflow);
        }
        let permit = PendingPermit(self.cluster.clone(), priority);
        let (sender, receiver) = oneshot::channel();
        self.waiters.borrow_mut().push_back(Waiter {
            sender,
            _pending: permit,
        });
        self.connect_for_waiters(priority);
        match receiver.await {
            Ok(result) => result,
            Err(_) => Err(PoolFailure::Connect(ConnectFailure {
                timeout: false,
                reason: "connection pool closed".into(),
            })),
        }
    }

    /// Takes a connection back after its stream; closes it where it cannot serve another.
    pub fn give_back(&self, mut connection: Box<Http1Connection>, reusable: bool) {
        self.busy.set(self.busy.get() - 1);
        let served = connection.connection.requests.get();
        let most = self.cluster.config.limits.max_requests_per_connection;
        let worn = most.is_some_and(|most| served >= u64::from(most));
        if !reusable || worn || self.closed.get() || self.cluster.is_retired() {
            drop(connection);
            self.connect_for_waiters(RoutingPriority::Default);
            return;
        }
        connection.idle_since = Instant::now();
        self.idle.borrow_mut().push(connection);
        self.serve();
    }

    /// A leased connection was dropped with its stream.
    pub fn lost(&self) {
        self.busy.set(self.busy.get() - 1);
        self.connect_for_waiters(RoutingPriority::Default);
    }

    /// Closes what is idle too long or closed by the other side; true when nothing is left.
    pub fn sweep(&self, now: Instant) -> bool {
        let idle_timeout = self.cluster.config.limits.idle_timeout;
        let too_old =
            |since: Instant| idle_timeout.is_some_and(|most| now.duration_since(since) >= most);
        self.idle
            .borrow_mut()
            .retain_mut(|one| !too_old(one.idle_since) && is_quiet(one));
        let unused = |one: &Rc<Http2Connection>| one.active.get() == 0;
        self.shared
            .borrow_mut()
            .retain(|one| !(unused(one) && too_old(one.idle_since.get())));
        self.is_empty()
    }

    pub fn is_empty(&self) -> bool {
        self.idle.borrow().is_empty()
            && self.shared.borrow().is_empty()
            && self.waiters.borrow().is_empty()
            && self.busy.get() == 0
            && self.connecting.get() == 0
    }

    /// No new streams on what is there: idle connections close, busy ones after their stream.
    pub fn drain(&self) {
        self.closed.set(true);
        self.idle.borrow_mut().clear();
        for one in self.shared.borrow().iter() {
            one.draining.set(true);
        }
        self.shared.borrow_mut().retain(|one| one.active.get() > 0);
    }

    fn ready_lease(&self) -> Option<Lease> {
        loop {
            let popped = self.idle.borrow_mut().pop();
            let Some(mut connection) = popped else { break };
            if is_quiet(&mut connection) {
                self.busy.set(self.busy.get() + 1);
                return Some(Lease::Http1(connection));
            }
        }
        let shared = self
            .shared
            .borrow()
            .iter()
            .find(|one| one.has_room())
            .cloned()?;
        Some(self.lease_of(shared))
    }

    fn lease_of(&self, shared: Rc<Http2Connection>) -> Lease {
        shared.active.set(shared.active.get() + 1);
        let most = self.cluster.config.limits.max_requests_per_connection;
        let served = shared.connection.requests.get() + 1;
        if most.is_some_and(|most| served >= u64::from(most)) {
            shared.draining.set(true);
        }
        let pool = self.me.upgrade().expect("BUG: a pool lives in an Rc");
        Lease::Http2(Http2Lease { shared, pool })
    }

    /// Hands free connections to the streams that wait, in order.
    fn serve(&self) {
        loop {
            self.waiters
                .borrow_mut()
                .retain(|waiter| !waiter.sender.is_closed());
            if self.waiters.borrow().is_empty() {
                return;
            }
            let Some(lease) = self.ready_lease() else {
                return self.connect_for_waiters(RoutingPriority::Default);
            };
            let waiter = self.waiters.borrow_mut().pop_front();
            let Some(waiter) = waiter else { return };
            if let Err(Ok(Lease::Http1(unused))) = waiter.sender.send(Ok(lease)) {
                self.busy.set(self.busy.get() - 1);
                self.idle.borrow_mut().push(unused);
            }
        }
    }

    fn connect_for_waiters(&self, priority: RoutingPriority) {
        let waiting = u32::try_from(self.waiters.borrow().len()).unwrap_or(u32::MAX);
        let wanted = match self.protocol {
            PoolProtocol::Http1 => waiting,
            // One connection serves many; more only when all are full.
            PoolProtocol::Http2 | PoolProtocol::Auto => waiting.min(1),
        };
        while self.connecting.get() < wanted {
            let most = self
                .cluster
                .config
                .circuit_breakers
                .of(priority)
                .max_connections;
            let open = &self.cluster.block.priority(priority).connections;
            let mine = self.busy.get() as usize
                + self.connecting.get() as usize
                + self.shared.borrow().len();
            // A worker without any connection to the host may open one above the limit.
            if open.load(Ordering::Relaxed) >= most && mine > 0 {
                return;
            }
            self.connecting.set(self.connecting.get() + 1);
            let pool = self.me.upgrade().expect("BUG: a pool lives in an Rc");
            tokio::task::spawn_local(async move { pool.connect().await });
        }
    }

    async fn connect(&self) {
        let result = connect::open(&self.cluster, &self.host, &self.connect_options()).await;
        let result = match result {
            Ok(opened) => self.begin(opened).await,
            Err(failure) => Err(failure),
        };
        self.connecting.set(self.connecting.get() - 1);
        match result {
            Ok(()) => self.serve(),
            Err(failure) => {
                // As in Envoy: whoever waits for a connection learns that there is none.
                let waiters = std::mem::take(&mut *self.waiters.borrow_mut());
                for waiter in waiters {
                    let _ = waiter
                        .sender
                        .send(Err(PoolFailure::Connect(failure.clone())));
                }
            }
        }
    }

    fn connect_options(&self) -> ConnectOptions {
        let mut options = self.options.clone();
        if options.alpn.is_none() {
            let default = self
                .cluster
                .tls_for(&self.host)
                .map(|tls| &tls.parsed().context.alpn);
            if default.is_some_and(Vec::is_empty) {
                let protocols: &[&[u8]] = match self.protocol {
                    PoolProtocol::Http1 => &[],
                    PoolProtocol::Http2 => &[b"h2"],
                    PoolProtocol::Auto => &[b"h2", b"http/1.1"],
                };
                options.alpn = Some(
                    protocols
                        .iter()
                        .map(|name| name.to_vec())
                        .collect::<Arc<[Vec<u8>]>>(),
                );
            }
        }
        options
    }

    async fn begin(&self, opened: connect::Opened) -> Result<(), ConnectFailure> {
        let alpn = opened
            .connection
            .tls
            .as_ref()
            .and_then(|tls| tls.alpn.as_deref());
        let http2 = match self.protocol {
            PoolProtocol::Http1 => false,
            PoolProtocol::Http2 => true,
            PoolProtocol::Auto => alpn == Some(b"h2"),
        };
        let counted = if http2 {
            Stat::CxHttp2Total
        } else {
            Stat::CxHttp1Total
        };
        self.cluster.stats.inc(counted);
        if http2 {
            let shared = self
                .begin_http2(opened.transport, opened.connection)
                .await?;
            self.shared.borrow_mut().push(shared);
            return Ok(());
        }
        let io = Io::new(opened.transport);
        let trailers = self.cluster.http1_trailers();
        self.idle.borrow_mut().push(Box::new(Http1Connection {
            reader: h1::Reader::new(io.clone()).with_trailers(trailers),
            writer: h1::Writer::new(io).with_trailers(trailers),
            connection: opened.connection,
            idle_since: Instant::now(),
        }));
        Ok(())
    }

    async fn begin_http2(
        &self,
        transport: Transport,
        connection: Rc<UpstreamConnection>,
    ) -> Result<Rc<Http2Connection>, ConnectFailure> {
        let options = self.cluster.http2_options();
        let failed = |error: h2::Error| ConnectFailure {
            timeout: false,
            reason: format!("HTTP/2: {error}").into(),
        };
        let handshake = builder(options).handshake(Coalesce::new(transport));
        let (send, mut driver) = handshake.await.map_err(failed)?;
        let (ping, keeping) = (driver.ping_pong(), options.keepalive.clone());
        let seed = connection.id;
        let shared = Rc::new(Http2Connection {
            send: RefCell::new(send),
            connection,
            active: Cell::new(0),
            limit: options.max_concurrent_streams,
            draining: Cell::new(false),
            idle_since: Cell::new(Instant::now()),
            task: RefCell::new(None),
        });
        let (pool, me) = (self.me.clone(), Rc::downgrade(&shared));
        let task = tokio::task::spawn_local(async move {
            tokio::select! {
                ended = driver => tracing::trace!(?ended, "upstream HTTP/2 connection ended"),
                () = keepalive(ping, keeping.as_ref(), seed) => {
                    tracing::debug!("upstream HTTP/2 connection no longer answers");
                }
            }
            if let Some(shared) = me.upgrade() {
                shared.draining.set(true);
                if let Some(pool) = pool.upgrade() {
                    pool.forget(&shared);
                }
            }
        });
        *shared.task.borrow_mut() = Some(task.abort_handle());
        Ok(shared)
    }

    fn forget(&self, shared: &Rc<Http2Connection>) {
        self.shared
            .borrow_mut()
            .retain(|one| !Rc::ptr_eq(one, shared));
    }
}

fn builder(options: &Http2Options) -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(options.initial_stream_window.min(i32::MAX as u32))
        .initial_connection_window_size(options.initial_connection_window.min(i32::MAX as u32))
        .header_table_size(options.hpack_table_size)
        .max_header_list_size(60 * 1024)
        .max_send_buffer_size(256 * 1024)
        .enable_push(false);
    builder
}

/// Still open and silent. No waker is kept: whoever leases it polls again.
fn is_quiet(connection: &mut Http1Connection) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    let quiet = matches!(connection.reader.poll_closed(&mut cx), Poll::Pending);
    quiet && connection.reader.is_empty()
}

/// How often idle connections are looked at.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
