//! The proxy's own discovery streams: one aggregated one, and one per cluster that serves secrets.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use envoy_api::ResourceType;
use envoy_api::core::Node;
use rustls_pki_types::ServerName;
use tokio::sync::mpsc;
use xds::grpc::client::{self, Event, Handle, Target};
use xds::{Interest, Mode, Service};

use crate::http::request::Protocol;
use crate::parse::address::Address;
use crate::parse::bootstrap::Bootstrap;
use crate::parse::cluster::{Cluster, Discovery as ClusterDiscovery, Transport};
use crate::parse::config_source::GrpcSource;
use crate::state::Needs;
use crate::stats::record::Active;
use crate::stats::tables::Cluster as Stat;
use crate::stats::{Group, Stats};
use crate::tls::{ClientContext, Secrets};

/// Updates that wait for the main task, over all streams.
const QUEUED_EVENTS: usize = 64;

/// Which stream an event came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    Ads,
    Secrets(String),
}

pub struct Discovery {
    node: Node,
    bootstrap: Arc<Bootstrap>,
    streams: BTreeMap<Origin, Handle>,
    /// Statistics of the clusters behind the streams, and the connections that are open now.
    clusters: BTreeMap<Origin, Arc<Group<Stat>>>,
    open: BTreeMap<Origin, Active>,
    stats: Arc<Stats>,
    events: mpsc::Sender<(Origin, Event)>,
    subscribed: Needs,
    clusters_asked: bool,
}

impl Discovery {
    pub fn new(
        bootstrap: Arc<Bootstrap>,
        stats: Arc<Stats>,
    ) -> (Discovery, mpsc::Receiver<(Origin, Event)>) {
        let (events, receiver) = mpsc::channel(QUEUED_EVENTS);
        let discovery = Discovery {
            node: node(&bootstrap.node),
            bootstrap,
            streams: BTreeMap::new(),
            clusters: BTreeMap::new(),
            open: BTreeMap::new(),
            stats,
            events,
            subscribed: Needs::default(),
            clusters_asked: false,
        };
        (discovery, receiver)
    }

    pub fn handle(&self, origin: &Origin) -> Option<&Handle> {
        self.streams.get(origin)
    }

    /// Counts a stream's connection on its cluster while it is open.
    pub fn count(&mut self, origin: &Origin, connected: bool) {
        self.open.remove(origin);
        if let Some(stats) = self.clusters.get(origin).filter(|_| connected) {
            let active = Active::connection(stats, Some(Protocol::Http2));
            self.open.insert(origin.clone(), active);
        }
    }

    /// Opens the aggregated stream, where the bootstrap has one.
    pub fn start(&mut self) -> Result<(), String> {
        let Some(ads) = self.bootstrap.ads.clone() else {
            return Ok(());
        };
        self.open(Origin::Ads, &ads.cluster.clone(), &ads)
    }

    /// Subscribes to what is needed now; what did not change is not said again.
    pub fn subscribe(&mut self, needs: Needs) {
        if let Some(ads) = self.streams.get(&Origin::Ads) {
            if !self.clusters_asked && self.bootstrap.cds.is_some() {
                self.clusters_asked = true;
                ads.subscribe(ResourceType::Cluster, Interest::Wildcard);
            }
            if needs.listeners && !self.subscribed.listeners && self.bootstrap.lds.is_some() {
                ads.subscribe(ResourceType::Listener, Interest::Wildcard);
            }
            let tables = [
                (
                    ResourceType::Endpoint,
                    &needs.endpoints,
                    &self.subscribed.endpoints,
                ),
                (ResourceType::Route, &needs.routes, &self.subscribed.routes),
                (
                    ResourceType::Secret,
                    &needs.secrets,
                    &self.subscribed.secrets,
                ),
            ];
            for (kind, wanted, told) in tables {
                if wanted != told {
                    ads.subscribe(kind, Interest::Names(wanted.clone()));
                }
            }
        }
        for (cluster, names) in &needs.sds {
            self.subscribe_secrets(cluster, names);
        }
        let listeners = needs.listeners || self.subscribed.listeners;
        self.subscribed = Needs { listeners, ..needs };
    }

    fn subscribe_secrets(&mut self, cluster: &str, names: &BTreeSet<String>) {
        if self.subscribed.sds.get(cluster) == Some(names) {
            return;
        }
        let origin = Origin::Secrets(cluster.to_owned());
        if !self.streams.contains_key(&origin) {
            let source = GrpcSource {
                delta: false,
                cluster: cluster.to_owned(),
                authority: None,
                initial_metadata: Vec::new(),
            };
            if let Err(error) = self.open(origin.clone(), cluster, &source) {
                tracing::error!(%error, "no stream for secrets");
                return;
            }
        }
        if let Some(handle) = self.streams.get(&origin) {
            handle.subscribe(ResourceType::Secret, Interest::Names(names.clone()));
        }
    }

    fn open(&mut self, origin: Origin, cluster: &str, source: &GrpcSource) -> Result<(), String> {
        let config = self
            .bootstrap
            .clusters
            .iter()
            .find(|one| *one.name == *cluster);
        let config =
            config.ok_or_else(|| format!("'{cluster}' is not a cluster of the bootstrap"))?;
        let stat_name = config.stat_name.clone();
        let mut target = target(config, &self.bootstrap)?;
        for (name, value) in &source.initial_metadata {
            target = target.with_metadata(name, value);
        }
        let mode = if source.delta {
            Mode::Delta
        } else {
            Mode::StateOfTheWorld
        };
        let service = match origin {
            Origin::Ads => Service::Aggregated,
            Origin::Secrets(_) => Service::Secrets,
        };
        let client = xds::client::Client::new(self.node.clone(), mode, service);
        let (handle, mut receiver) = client::spawn(target, client);
        let (events, from) = (self.events.clone(), origin.clone());
        tokio::spawn(async move {
            while let Some(event) = receiver.recv().await {
                if events.send((from.clone(), event)).await.is_err() {
                    return;
                }
            }
        });
        let stats = self.stats.group(&format!("cluster.{stat_name}."));
        self.clusters.insert(origin.clone(), stats);
        self.streams.insert(origin, handle);
        Ok(())
    }
}

/// The bootstrap's node, with our name where it has none.
fn node(given: &Node) -> Node {
    let mut node = given.clone();
    if node.user_agent_name.is_empty() {
        node.user_agent_name = "stolos".to_owned();
    }
    node
}

/// How to reach the cluster that serves a stream: its first endpoint.
fn target(config: &Cluster, bootstrap: &Bootstrap) -> Result<Target, String> {
    let name = &config.name;
    let assignment = match &config.discovery {
        ClusterDiscovery::Static(own)
        | ClusterDiscovery::StrictDns(own)
        | ClusterDiscovery::LogicalDns(own) => own,
        _ => {
            return Err(format!(
                "cluster '{name}' must be STATIC or DNS to serve discovery"
            ));
        }
    };
    let endpoint = assignment
        .localities
        .iter()
        .flat_map(|one| &one.endpoints)
        .next();
    let endpoint = endpoint.ok_or_else(|| format!("cluster '{name}' has no endpoints"))?;
    let address = match &endpoint.address {
        Address::Pipe { path, .. } => return Ok(Target::unix(path)),
        Address::Socket(address) => *address,
        Address::Name { host, port } => {
            use std::net::ToSocketAddrs;
            let found = (host.as_str(), *port)
                .to_socket_addrs()
                .ok()
                .and_then(|mut all| all.next());
            found.ok_or_else(|| format!("cluster '{name}': {host} does not resolve"))?
        }
    };
    let Transport::Tls(tls) = &config.transport else {
        return Ok(Target::tcp(address));
    };
    let context = ClientContext::new(tls.clone(), config.auto_san_validation);
    let mut secrets = Secrets::default();
    for secret in &bootstrap.secrets {
        secrets.insert(Arc::new(secret.clone()));
    }
    context
        .refresh(&secrets)
        .map_err(|error| format!("cluster '{name}': {error}"))?;
    let config = context
        .rustls_config()
        .ok_or_else(|| format!("cluster '{name}': TLS is not ready"))?;
    let server_name = match tls.sni.as_str() {
        "" => ServerName::IpAddress(address.ip().into()),
        sni => ServerName::try_from(sni.to_owned()).map_err(|error| error.to_string())?,
    };
    Ok(Target::tls(address, server_name, config))
}
