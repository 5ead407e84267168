//! Clusters: hosts, load balancing, breakers, outlier detection, pools and connecting.
//! `Cluster` is one worker's view; what workers share is in `shared`.
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::http::request::RequestHead;
use crate::parse::cluster::{self as config, Discovery, Transport, UpstreamProtocol};
use crate::parse::http_options::Http2Options;
use crate::retry::{ResetReason, RetryPolicy};
use crate::stats::record::{self, ResponseCodes};
use crate::stats::tables::Cluster as Stat;
use crate::stats::{Group, Stats};
use crate::stream_info::Connection;
use crate::tls::ClientContext;
use connect::ConnectOptions;
use load_balancer::{Choice, LoadBalancer};
use outlier::{LocalResult, Outlier};
use pool::{Pool, PoolProtocol};
use shared::{Address, ClusterBlock, Endpoints, Host, HostBlock, HostHealth, Locality};

pub mod connect;
pub mod dns;
pub mod endpoints;
pub mod load_balancer;
pub mod outlier;
pub mod pool;
pub mod shared;

/// What choosing a host may depend on.
pub struct HostChoice<'a> {
    pub hash: Option<u64>,
    pub random: u64,
    /// Hosts of earlier attempts of this request.
    pub tried: &'a [Arc<Host>],
    pub retry: Option<&'a RetryPolicy>,
    pub request: Option<&'a RequestHead>,
    pub downstream: &'a Connection,
}

/// What the main thread builds of a cluster; every worker makes its `Cluster` from it.
#[derive(Debug)]
pub struct ClusterEntry {
    pub config: Arc<config::Cluster>,
    pub block: Arc<ClusterBlock>,
    /// One context for each TLS transport of the configuration.
    pub tls: Vec<Arc<ClientContext>>,
    pub outlier: Option<Arc<Outlier>>,
    pub stats: Arc<Group<Stat>>,
    pub codes: ResponseCodes,
}

impl ClusterEntry {
    pub fn new(
        config: Arc<config::Cluster>,
        block: Arc<ClusterBlock>,
        stats: &Arc<Stats>,
    ) -> ClusterEntry {
        let matches = config.transport_matches.iter().map(|one| &one.transport);
        let mut tls: Vec<Arc<ClientContext>> = Vec::new();
        for transport in std::iter::once(&config.transport).chain(matches) {
            if let Transport::Tls(parsed) = transport {
                let context = ClientContext::new(parsed.clone(), config.auto_san_validation);
                tls.push(Arc::new(context));
            }
        }
        let prefix = format!("cluster.{}.", config.stat_name);
        let outlier = config.outlier_detection.as_ref().map(|settings| {
            let group = stats.group(&format!("{prefix}outlier_detection."));
            Arc::new(Outlier::new(settings.clone(), block.clone(), group))
        });
        let codes = ResponseCodes::new(stats, &prefix);
        ClusterEntry {
            config,
            block,
            tls,
            outlier,
            stats: stats.group(&prefix),
            codes,
        }
    }
}

/// Numbers for connections, unique in the process without sharing.
#[derive(Debug)]
pub struct ConnectionIds {
    next: Cell<u64>,
    step: u64,
}

impl ConnectionIds {
    pub fn new(worker: usize, workers: usize) -> ConnectionIds {
        ConnectionIds {
            next: Cell::new(worker as u64),
            step: workers.max(1) as u64,
        }
    }

    pub fn next(&self) -> u64 {
        let id = self.next.get();
        self.next.set(id + self.step);
        id
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PoolKey {
    address: Address,
    protocol: PoolProtocol,
    options: ConnectOptions,
    /// Hosts at one address that differ in their transport have pools of their own.
    tls: usize,
}

/// A cluster on one worker.
pub struct Cluster {
    pub config: Arc<config::Cluster>,
    pub block: Arc<ClusterBlock>,
    pub worker_ids: Rc<ConnectionIds>,
    pub stats: Arc<Group<Stat>>,
    entry: Arc<ClusterEntry>,
    endpoints: RefCell<Arc<Endpoints>>,
    balancer: RefCell<LoadBalancer>,
    pools: RefCell<HashMap<PoolKey, Rc<Pool>>>,
    /// Hosts of ORIGINAL_DST, by destination, with the time of their last use.
    original: RefCell<HashMap<SocketAddr, (Arc<Host>, Instant)>>,
    retired: Cell<bool>,
    /// When outlier detection last looked at the hosts.
    judged: Cell<Instant>,
}

impl Cluster {
    pub fn new(entry: Arc<ClusterEntry>, worker_ids: Rc<ConnectionIds>) -> Rc<Cluster> {
        let config = entry.config.clone();
        Rc::new(Cluster {
            balancer: RefCell::new(LoadBalancer::new(
                config.load_balancing.clone(),
                entry.block.clone(),
            )),
            config,
            block: entry.block.clone(),
            worker_ids,
            stats: entry.stats.clone(),
            entry,
            endpoints: RefCell::new(Arc::default()),
            pools: RefCell::new(HashMap::new()),
            original: RefCell::new(HashMap::new()),
            retired: Cell::new(false),
            judged: Cell::new(Instant::now()),
        })
    }

    pub fn endpoints(&self) -> Arc<Endpoints> {
        self.endpoints.borrow().clone()
    }

    /// New endpoints; pools of hosts that are gone serve their streams and close.
    pub fn set_endpoints(&self, endpoints: Arc<Endpoints>, seed: u64) {
        self.balancer.borrow_mut().update(&endpoints, seed);
        let gone = |pool: &Rc<Pool>| {
            let block = &pool.host().block;
            !endpoints
                .hosts()
                .any(|host| Arc::ptr_eq(&host.block, block))
        };
        if !matches!(self.config.discovery, Discovery::OriginalDst(_)) {
            self.pools.borrow_mut().retain(|_, pool| {
                let gone = gone(pool);
                if gone {
                    pool.drain();
                }
                !gone
            });
        }
        let healthy = endpoints.hosts().filter(|host| host.is_healthy()).count();
        self.stats
            .set(Stat::MembershipTotal, endpoints.hosts().count() as u64);
        self.stats.set(Stat::MembershipHealthy, healthy as u64);
        *self.endpoints.borrow_mut() = endpoints;
    }

    /// The TLS context for a host, by its metadata; `None`: plain text.
    pub fn tls_for(&self, host: &Host) -> Option<&Arc<ClientContext>> {
        self.tls_index(host).map(|index| &self.entry.tls[index])
    }

    fn tls_index(&self, host: &Host) -> Option<usize> {
        match self.config.transport_for(host.metadata.as_deref()) {
            Transport::Raw => None,
            Transport::Tls(parsed) => self
                .entry
                .tls
                .iter()
                .position(|one| Arc::ptr_eq(one.parsed(), parsed)),
        }
    }

    pub fn http2_options(&self) -> &Http2Options {
        match &self.config.protocol {
            UpstreamProtocol::Http2(http2)
            | UpstreamProtocol::Downstream { http2, .. }
            | UpstreamProtocol::Auto { http2, .. } => http2,
            UpstreamProtocol::Http1(_) => DEFAULT_HTTP2.get_or_init(Http2Options::default),
        }
    }

    /// Trailers go to HTTP/1 upstreams only where the cluster says so.
    pub fn http1_trailers(&self) -> bool {
        match &self.config.protocol {
            UpstreamProtocol::Http1(http1)
            | UpstreamProtocol::Downstream { http1, .. }
            | UpstreamProtocol::Auto { http1, .. } => http1.enable_trailers,
            UpstreamProtocol::Http2(_) => false,
        }
    }

    /// The pool of a host for a request that came with this protocol.
    pub fn pool(
        self: &Rc<Cluster>,
        host: &Arc<Host>,
        downstream_is_http2: bool,
        options: ConnectOptions,
    ) -> Rc<Pool> {
        let protocol = match &self.config.protocol {
            UpstreamProtocol::Http1(_) => PoolProtocol::Http1,
            UpstreamProtocol::Http2(_) => PoolProtocol::Http2,
            UpstreamProtocol::Auto { .. } => PoolProtocol::Auto,
            UpstreamProtocol::Downstream { .. } if downstream_is_http2 => PoolProtocol::Http2,
            UpstreamProtocol::Downstream { .. } => PoolProtocol::Http1,
        };
        let tls = self.tls_index(host).map_or(usize::MAX, |index| index);
        let key = PoolKey {
            address: host.address.clone(),
            protocol,
            options,
            tls,
        };
        if let Some(pool) = self.pools.borrow().get(&key) {
            return pool.clone();
        }
        let pool = Pool::new(self.clone(), host.clone(), protocol, key.options.clone());
        if !self.is_retired() {
            self.pools.borrow_mut().insert(key, pool.clone());
        }
        pool
    }

    /// The host for an HTTP request.
    pub fn choose_host(&self, choice: &HostChoice<'_>) -> Option<Arc<Host>> {
        match &self.config.discovery {
            Discovery::OriginalDst(config) => {
                let by_header = config.http_header.as_deref().and_then(|name| {
                    let value = choice.request?.header(name)?;
                    std::str::from_utf8(&value).ok()?.parse().ok()
                });
                let restored = choice
                    .downstream
                    .local_restored
                    .then_some(choice.downstream.local);
                Some(self.original_host(by_header.or(restored)?))
            }
            _ => self.balancer.borrow_mut().choose(&Choice {
                hash: choice.hash,
                random: choice.random,
                tried: choice.tried,
                retry: choice.retry,
            }),
        }
    }

    /// The host for a TCP connection.
    pub fn choose_for_tcp(
        &self,
        downstream: &Connection,
        hash: Option<u64>,
        random: u64,
    ) -> Option<Arc<Host>> {
        self.choose_host(&HostChoice {
            hash,
            random,
            tried: &[],
            retry: None,
            request: None,
            downstream,
        })
    }

    /// The host of an ORIGINAL_DST cluster.
    pub fn original_host(&self, mut destination: SocketAddr) -> Arc<Host> {
        if let Discovery::OriginalDst(config) = &self.config.discovery
            && let Some(port) = config.port_override
        {
            destination.set_port(port);
        }
        let mut hosts = self.original.borrow_mut();
        let (host, used) = hosts.entry(destination).or_insert_with(|| {
            let host = Host {
                address: Address::Socket(destination),
                hostname: Arc::from(""),
                weight: 1,
                priority: 0,
                health: HostHealth::Unknown,
                locality: Arc::new(Locality::default()),
                metadata: None,
                block: Arc::new(HostBlock::default()),
            };
            (Arc::new(host), Instant::now())
        });
        *used = Instant::now();
        host.clone()
    }

    /// Closes idle connections and forgets what was not used for long.
    pub fn sweep(&self, now: Instant) {
        self.pools.borrow_mut().retain(|_, pool| !pool.sweep(now));
        let keep = self.config.cleanup_interval;
        self.original.borrow_mut().retain(|_, (host, used)| {
            Arc::strong_count(host) > 1 || now.duration_since(*used) < keep
        });
    }

    /// Lets ejected hosts come back; one worker of the process does this.
    pub fn judge(&self, now: Instant, random: u64) {
        let Some(outlier) = &self.entry.outlier else {
            return;
        };
        if now.duration_since(self.judged.get()) >= outlier.interval() {
            self.judged.set(now);
            outlier.tick(&self.endpoints(), random);
        }
    }

    /// The cluster was replaced or removed: streams finish, nothing is kept.
    pub fn retire(&self) {
        self.retired.set(true);
        for (_, pool) in self.pools.borrow_mut().drain() {
            pool.drain();
        }
    }

    pub fn is_retired(&self) -> bool {
        self.retired.get()
    }
}

/// What came of using a host, for outlier detection.
impl Cluster {
    fn tell_outlier(&self, tell: impl FnOnce(&Outlier, usize)) {
        if let Some(outlier) = &self.entry.outlier {
            tell(outlier, self.endpoints.borrow().hosts().count());
        }
    }

    pub fn on_connected(&self, host: &Host, random: u64) {
        self.tell_outlier(|one, total| one.on_local(host, LocalResult::Connected, total, random));
    }

    pub fn on_connect_failure(&self, host: &Host, timeout: bool, random: u64) {
        let result = if timeout {
            LocalResult::ConnectTimeout
        } else {
            LocalResult::ConnectFailed
        };
        self.stats.inc(if timeout {
            Stat::CxConnectTimeout
        } else {
            Stat::CxConnectFail
        });
        host.block.requests_error.fetch_add(1, Ordering::Relaxed);
        self.tell_outlier(|one, total| one.on_local(host, result, total, random));
    }

    pub fn on_response(&self, host: &Host, status: u16, random: u64) {
        let counter = match status {
            500.. => &host.block.requests_error,
            _ => &host.block.requests_success,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        record::upstream_response(&self.stats, &self.entry.codes, status);
        self.tell_outlier(|one, total| one.on_response(host, status, total, random));
    }

    pub fn on_reset(&self, host: &Host, reason: ResetReason, random: u64) {
        let result = match reason {
            ResetReason::PerTryTimeout => LocalResult::RequestTimeout,
            _ => LocalResult::Reset,
        };
        self.stats.inc(match reason {
            ResetReason::PerTryTimeout => Stat::RqPerTryTimeout,
            ResetReason::Overflow => Stat::RqPendingOverflow,
            ResetReason::LocalReset => Stat::RqTxReset,
            _ => Stat::RqRxReset,
        });
        host.block.requests_error.fetch_add(1, Ordering::Relaxed);
        self.tell_outlier(|one, total| one.on_local(host, result, total, random));
    }

    /// The route's timeout ended a request.
    pub fn on_timeout(&self, host: &Host, random: u64) {
        host.block.requests_timeout.fetch_add(1, Ordering::Relaxed);
        self.stats.inc(Stat::RqTimeout);
        self.tell_outlier(|one, total| {
            one.on_local(host, LocalResult::RequestTimeout, total, random);
        });
    }
}

static DEFAULT_HTTP2: std::sync::OnceLock<Http2Options> = std::sync::OnceLock::new();

impl std::fmt::Debug for Cluster {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Cluster")
            .field("name", &self.config.name)
            .finish_non_exhaustive()
    }
}
