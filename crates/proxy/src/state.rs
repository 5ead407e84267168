//! The main thread's state: every resource in force or on its way, what it waits for, and what the
//! workers were told. One task owns it; nothing here is on the request path.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::cluster::ClusterEntry;
use crate::cluster::endpoints::{self, Resolved};
use crate::cluster::shared::{ClusterBlock, Endpoints};
use crate::listener::ListenerEntry;
use crate::parse::Environment;
use crate::parse::bootstrap::Bootstrap;
use crate::parse::cluster::{Cluster, Discovery};
use crate::parse::endpoint::LoadAssignment;
use crate::tls::Secrets;
use crate::workers::Command;

mod apply;
mod listeners;
mod needs;
mod view;
mod warming;

pub use view::View;

/// A resource as it came, for `config_dump` and to see whether it changed.
#[derive(Clone, Debug)]
pub struct Raw {
    pub body: Bytes,
    pub version: String,
    pub updated: SystemTime,
    /// From the bootstrap.
    pub is_static: bool,
}

impl Raw {
    pub fn new(body: Bytes, version: &str, is_static: bool) -> Raw {
        Raw {
            body,
            version: version.to_owned(),
            updated: SystemTime::now(),
            is_static,
        }
    }
}

/// Something on its way into force.
#[derive(Debug)]
struct Warming<T> {
    entry: Arc<T>,
    raw: Raw,
    since: Instant,
    /// After this it goes into force without what is missing.
    deadline: Option<Instant>,
}

#[derive(Debug, Default)]
struct ClusterState {
    active: Option<(Arc<ClusterEntry>, Raw)>,
    warming: Option<Warming<ClusterEntry>>,
    block: Option<Arc<ClusterBlock>>,
    endpoints: Arc<Endpoints>,
    resolved: Option<Resolved>,
    resolver: Option<AbortHandle>,
    /// When outlier detection looks at the hosts again.
    outlier_due: Option<Instant>,
}

#[derive(Debug, Default)]
struct ListenerState {
    active: Option<(Arc<ListenerEntry>, Raw)>,
    warming: Option<Warming<ListenerEntry>>,
    /// Bound addresses, by configured address.
    bound: Vec<std::net::SocketAddr>,
}

#[derive(Debug)]
struct RouteState {
    raw: Raw,
}

#[derive(Debug)]
struct AssignmentState {
    assignment: Arc<LoadAssignment>,
    raw: Raw,
}

/// Names that must be subscribed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub endpoints: BTreeSet<String>,
    pub routes: BTreeSet<String>,
    /// Secrets over ADS.
    pub secrets: BTreeSet<String>,
    /// Secrets of other sources, by the cluster that serves them.
    pub sds: BTreeMap<String, BTreeSet<String>>,
    /// Clusters are there: listeners may be asked for.
    pub listeners: bool,
}

/// What happened that others want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A listener accepts connections at this address.
    Listening {
        name: Arc<str>,
        address: std::net::SocketAddr,
    },
    /// The admin server accepts connections.
    Admin(std::net::SocketAddr),
    /// All initial configuration is in force.
    Ready,
}

pub type Observer = Arc<dyn Fn(Notice) + Send + Sync>;

/// Events for the main task from its own helpers.
#[derive(Debug)]
pub enum Internal {
    Resolved(Arc<str>, Resolved),
}

pub struct State {
    pub environment: Environment,
    pub bootstrap: Arc<Bootstrap>,
    workers: Vec<mpsc::Sender<Command>>,
    observer: Option<Observer>,
    internal: mpsc::Sender<Internal>,
    secrets: Secrets,
    raw_secrets: BTreeMap<Arc<str>, Raw>,
    clusters: BTreeMap<Arc<str>, ClusterState>,
    listeners: BTreeMap<Arc<str>, ListenerState>,
    routes: BTreeMap<Arc<str>, RouteState>,
    assignments: BTreeMap<Arc<str>, AssignmentState>,
    /// The first answers of CDS and LDS have come (or none is configured).
    clusters_known: bool,
    listeners_known: bool,
    ready: bool,
    draining: bool,
    started: Instant,
    /// Listeners that could not be bound since somebody last asked.
    bind_failures: Vec<String>,
}

impl State {
    pub fn new(
        environment: Environment,
        bootstrap: Arc<Bootstrap>,
        workers: Vec<mpsc::Sender<Command>>,
        observer: Option<Observer>,
        internal: mpsc::Sender<Internal>,
    ) -> State {
        let (clusters_known, listeners_known) = (bootstrap.cds.is_none(), bootstrap.lds.is_none());
        State {
            environment,
            bootstrap,
            workers,
            observer,
            internal,
            secrets: Secrets::default(),
            raw_secrets: BTreeMap::new(),
            clusters: BTreeMap::new(),
            listeners: BTreeMap::new(),
            routes: BTreeMap::new(),
            assignments: BTreeMap::new(),
            clusters_known,
            listeners_known,
            ready: false,
            draining: false,
            started: Instant::now(),
            bind_failures: Vec::new(),
        }
    }

    /// What could not be bound, for the answer to whoever sent it.
    pub fn take_bind_failures(&mut self) -> Vec<String> {
        std::mem::take(&mut self.bind_failures)
    }

    pub fn is_ready(&self) -> bool {
        self.ready
    }

    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Tells all workers; a worker that is gone is past caring.
    async fn tell(&self, make: impl Fn() -> Command) {
        for worker in &self.workers {
            let _ = worker.send(make()).await;
        }
    }

    /// Waits until every worker has done all it was told.
    pub async fn confirmed(&self) {
        for worker in &self.workers {
            let (done, wait) = tokio::sync::oneshot::channel();
            if worker.send(Command::Confirm(done)).await.is_ok() {
                let _ = wait.await;
            }
        }
    }

    /// Streams and TCP connections in flight on all workers.
    pub async fn busy(&self) -> u64 {
        let mut total = 0;
        for worker in &self.workers {
            let (answer, wait) = tokio::sync::oneshot::channel();
            if worker.send(Command::Busy(answer)).await.is_ok() {
                total += wait.await.unwrap_or(0);
            }
        }
        total
    }

    pub async fn drain(&mut self, stop_listening: bool, inbound_only: bool) {
        self.draining = true;
        self.tell(|| Command::Drain {
            stop_listening,
            inbound_only,
        })
        .await;
    }

    pub async fn stop(&self) {
        self.tell(|| Command::Stop).await;
    }

    fn notice(&self, notice: Notice) {
        if let Some(observer) = &self.observer {
            observer(notice);
        }
    }

    /// DNS has answered for a cluster.
    pub async fn resolved(&mut self, name: &Arc<str>, resolved: Resolved) {
        let Some(cluster) = self.clusters.get_mut(name) else {
            return;
        };
        cluster.resolved = Some(resolved);
        self.refresh_endpoints(name).await;
        self.progress().await;
    }

    /// Rebuilds a cluster's endpoints from what is known and tells the workers.
    async fn refresh_endpoints(&mut self, name: &Arc<str>) {
        let Some(cluster) = self.clusters.get_mut(name) else {
            return;
        };
        let newest = cluster.warming.as_ref().map(|one| &one.entry);
        let Some(entry) = cluster.active.as_ref().map(|(entry, _)| entry).or(newest) else {
            return;
        };
        let empty = Resolved::new();
        let resolved = cluster.resolved.as_ref().unwrap_or(&empty);
        let assignment = assignment_of(&self.assignments, &entry.config);
        let Some(assignment) = assignment else { return };
        let built = endpoints::build(&assignment, resolved, &cluster.endpoints);
        cluster.endpoints = Arc::new(built);
        if cluster.active.is_some() {
            let endpoints = cluster.endpoints.clone();
            self.tell(|| Command::Endpoints(name.clone(), endpoints.clone()))
                .await;
        }
    }
}

/// The load assignment of a cluster: its own, or the one that EDS has sent.
fn assignment_of(
    assignments: &BTreeMap<Arc<str>, AssignmentState>,
    config: &Cluster,
) -> Option<Arc<LoadAssignment>> {
    match &config.discovery {
        Discovery::Static(own) | Discovery::StrictDns(own) | Discovery::LogicalDns(own) => {
            Some(own.clone())
        }
        Discovery::Eds { service_name, .. } => assignments
            .get(service_name)
            .map(|one| one.assignment.clone()),
        Discovery::OriginalDst(_) => None,
    }
}
