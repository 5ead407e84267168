//! What workers share about clusters: hosts, endpoint sets (immutable) and blocks of relaxed
//! atomics (active requests, breakers, ejection) that survive endpoint and cluster updates.
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Where an endpoint listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    Socket(SocketAddr),
    Pipe(PathBuf),
}

impl Address {
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Address::Socket(address) => Some(*address),
            Address::Pipe(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Socket(address) => write!(out, "{address}"),
            Address::Pipe(path) => write!(out, "{}", path.display()),
        }
    }
}

/// Health as the control plane sent it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HostHealth {
    #[default]
    Unknown,
    Healthy,
    Unhealthy,
    Draining,
    Timeout,
    Degraded,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    pub region: String,
    pub zone: String,
    pub sub_zone: String,
}

/// One endpoint in one endpoint set: immutable but for its block.
#[derive(Debug)]
pub struct Host {
    pub address: Address,
    /// Name for DNS clusters and `hostname` of the endpoint.
    pub hostname: Arc<str>,
    pub weight: u32,
    pub priority: u32,
    pub health: HostHealth,
    pub locality: Arc<Locality>,
    pub metadata: Option<Arc<envoy_api::core::Metadata>>,
    pub block: Arc<HostBlock>,
}

impl Host {
    /// Eligible for load balancing outside panic.
    pub fn is_healthy(&self) -> bool {
        let by_config = matches!(self.health, HostHealth::Unknown | HostHealth::Healthy);
        by_config
            && !self.block.ejected.load(Ordering::Relaxed)
            && !self.block.failed_active_check.load(Ordering::Relaxed)
    }

    pub fn is_degraded(&self) -> bool {
        self.health == HostHealth::Degraded && !self.block.ejected.load(Ordering::Relaxed)
    }
}

/// When a host came to its cluster.
#[derive(Clone, Copy, Debug)]
pub struct Since(pub std::time::Instant);

impl Default for Since {
    fn default() -> Since {
        Since(std::time::Instant::now())
    }
}

/// A host's counters; the same block as long as the address stays in the cluster.
#[derive(Debug, Default)]
pub struct HostBlock {
    pub active_requests: AtomicU32,
    pub active_connections: AtomicU32,
    pub requests_total: AtomicU64,
    pub requests_success: AtomicU64,
    pub requests_error: AtomicU64,
    pub requests_timeout: AtomicU64,
    pub connections_total: AtomicU64,
    pub connect_failures: AtomicU64,
    /// Set and cleared by outlier detection.
    pub ejected: AtomicBool,
    /// Set and cleared by active health checks.
    pub failed_active_check: AtomicBool,
    pub consecutive_5xx: AtomicU32,
    pub consecutive_gateway_failure: AtomicU32,
    pub consecutive_local_origin_failure: AtomicU32,
    pub success_rate_requests: AtomicU32,
    pub success_rate_success: AtomicU32,
    pub ejections: AtomicU32,
    /// Nanoseconds of the monotonic clock (since the cluster's block was made).
    pub ejected_at: AtomicU64,
    pub unejected_at: AtomicU64,
    pub since: Since,
}

/// The hosts of one locality at one priority.
#[derive(Clone, Debug)]
pub struct LocalityHosts {
    pub locality: Arc<Locality>,
    /// `load_balancing_weight`; 0 where it was not given.
    pub weight: u32,
    pub hosts: Vec<Arc<Host>>,
}

/// The hosts of one priority; `hosts` is the flat list of all localities in order.
#[derive(Clone, Debug, Default)]
pub struct PriorityHosts {
    pub hosts: Vec<Arc<Host>>,
    pub localities: Vec<LocalityHosts>,
}

/// A cluster's endpoints at one moment.
#[derive(Clone, Debug)]
pub struct Endpoints {
    pub priorities: Vec<PriorityHosts>,
    pub overprovisioning_factor: u32,
}

impl Default for Endpoints {
    fn default() -> Endpoints {
        Endpoints {
            priorities: Vec::new(),
            overprovisioning_factor: 140,
        }
    }
}

impl Endpoints {
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.priorities
            .iter()
            .flat_map(|priority| priority.hosts.iter())
    }

    pub fn is_empty(&self) -> bool {
        self.hosts().next().is_none()
    }
}

/// Envoy's two routing priorities; breakers are kept for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RoutingPriority {
    #[default]
    Default = 0,
    High = 1,
}

/// What circuit breakers count, process-wide, for one routing priority.
#[derive(Debug, Default)]
pub struct PriorityBlock {
    pub connections: AtomicU32,
    pub pending_requests: AtomicU32,
    pub requests: AtomicU32,
    pub retries: AtomicU32,
    pub connection_pools: AtomicU32,
}

/// A cluster's counters; survives updates with equal content of the cluster.
#[derive(Debug)]
pub struct ClusterBlock {
    pub name: Arc<str>,
    pub priorities: [PriorityBlock; 2],
    pub ejected_hosts: AtomicU32,
    /// Counts up whenever a host's health changes without new endpoints; balancers look at it.
    pub health_generation: AtomicU64,
    /// Process-wide position for balancers that want one.
    pub created: std::time::Instant,
}

impl ClusterBlock {
    pub fn new(name: &str) -> ClusterBlock {
        ClusterBlock {
            name: Arc::from(name),
            priorities: Default::default(),
            ejected_hosts: AtomicU32::new(0),
            health_generation: AtomicU64::new(0),
            created: std::time::Instant::now(),
        }
    }

    pub fn priority(&self, priority: RoutingPriority) -> &PriorityBlock {
        &self.priorities[priority as usize]
    }
}
