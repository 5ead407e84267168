//! Route tables of sidecars: which virtual hosts stand in the table of a port, and who owns each
//! domain. A table is its encoded header followed by the encoded virtual hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use envoy_api::route::RouteConfiguration;
use envoy_api::{Resource, ResourceType};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use xxhash_rust::xxh3::xxh3_64;

use super::domains::{self, ClientNames};
use super::route;
use super::virtual_host::{self, Client, Plan};
use crate::cache::Fragment;
use crate::cluster_name::{self, Outbound};
use crate::hostname;
use crate::model::{ProxyView, Resolution};
use crate::snapshot::virtual_services::MESH;
use crate::snapshot::{
    EgressListener, OutboundPolicy, Scope, ServiceEntryRef, Snapshot, VirtualServiceEntry,
};

const VIRTUAL_HOSTS_FIELD: u32 = 2;
const MAX_DIRECT_RESPONSE: u32 = 1 << 20;

/// Header fields and virtual hosts in a row are one message: a repeated field is a sequence.
pub fn assemble(name: &str, hosts: &[Arc<Fragment>]) -> Resource {
    let header = RouteConfiguration {
        name: name.to_owned(),
        validate_clusters: Some(false),
        max_direct_response_body_size_bytes: Some(MAX_DIRECT_RESPONSE),
        ignore_port_in_host_matching: true,
        ..Default::default()
    };
    let size: usize = hosts.iter().map(|host| host.body.len() + 8).sum();
    let mut body = BytesMut::with_capacity(size + 64);
    body.put_slice(&header.encode_to_vec());
    let mut hashes = body.to_vec();
    for host in hosts {
        encode_key(VIRTUAL_HOSTS_FIELD, WireType::LengthDelimited, &mut body);
        encode_varint(host.body.len() as u64, &mut body);
        body.put_slice(&host.body);
        hashes.extend_from_slice(&host.hash.to_le_bytes());
    }
    Resource {
        kind: ResourceType::Route,
        name: name.to_owned(),
        version: format!("{:016x}", xxh3_64(&hashes)),
        body: body.freeze(),
    }
}

/// The name of a sidecar's route table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableName {
    /// Everything on a port.
    Port(u16),
    /// One service on a port that carries other protocols too.
    Service(String, u16),
}

impl TableName {
    pub fn parse(name: &str) -> Option<Self> {
        match name.rsplit_once(':') {
            Some((host, port)) => Some(Self::Service(host.to_owned(), port.parse().ok()?)),
            None => name.parse().ok().map(Self::Port),
        }
    }
}

/// One table, if the proxy's services have that port.
pub fn sidecar(snapshot: &Snapshot, view: &ProxyView, name: &str) -> Option<Resource> {
    let scope = snapshot.scope(view);
    let table = TableName::parse(name)?;
    let (port, only) = match &table {
        TableName::Port(port) => (*port, None),
        TableName::Service(host, port) => (*port, Some(host.as_str())),
    };
    let listener = listener_of(&scope, port)?;
    let client = Client::new(snapshot, &scope, view);
    let mut plans = plans(&client, view, listener, port);
    if let Some(host) = only {
        let own = format!("{host}:{port}");
        plans.retain(|plan| plan.name == own);
        let mut plan = plans.into_iter().next()?;
        plan.domains = vec!["*".to_owned()];
        let fragment = virtual_host::fragment(&client, &plan)?;
        return Some(assemble(name, &[fragment]));
    }
    let mut hosts: Vec<Arc<Fragment>> = plans
        .iter()
        .filter_map(|plan| virtual_host::fragment(&client, plan))
        .collect();
    hosts.push(Arc::new(catch_all(&client)));
    Some(assemble(name, &hosts))
}

/// The egress listener that serves a port: its own, else the one for all other ports.
pub fn listener_of(scope: &Scope, port: u16) -> Option<&EgressListener> {
    let own = scope
        .egress
        .iter()
        .find(|l| l.port.is_some_and(|(number, _)| number == port));
    own.or_else(|| scope.egress.iter().find(|listener| listener.port.is_none()))
}

fn catch_all(client: &Client<'_>) -> Fragment {
    match &client.scope.outbound {
        OutboundPolicy::AllowAny => virtual_host::catch_all(Some(cluster_name::PASSTHROUGH)),
        OutboundPolicy::RegistryOnly => virtual_host::catch_all(None),
        OutboundPolicy::Egress(destination) => {
            virtual_host::catch_all(Some(&egress_cluster(client, destination).to_string()))
        }
    }
}

/// The cluster of a Sidecar's egress proxy.
pub fn egress_cluster(
    client: &Client<'_>,
    destination: &mesh_api::kinds::destination::Destination,
) -> Outbound {
    let place = route::Place {
        port: 0,
        mesh: &client.snapshot.mesh,
        destinations: client,
        tls: false,
    };
    route::cluster(destination, &place)
}

/// Whether a port of a service takes part in HTTP route tables.
fn routed(entry: &ServiceEntryRef, port: u16) -> bool {
    entry.service.resolution != Resolution::Alias
        && entry
            .service
            .port(port)
            .is_some_and(|port| port.protocol.is_http() || port.protocol.is_auto())
}

/// All virtual hosts of a port, sorted by name, each domain owned by one of them.
fn plans(client: &Client<'_>, view: &ProxyView, listener: &EgressListener, port: u16) -> Vec<Plan> {
    let services: Vec<&Arc<ServiceEntryRef>> = listener
        .services
        .iter()
        .filter(|entry| routed(entry, port))
        .collect();
    let by_host: BTreeMap<&str, &Arc<ServiceEntryRef>> = services
        .iter()
        .map(|entry| (entry.service.key.hostname.as_str(), *entry))
        .collect();
    let gateways = BTreeSet::from([MESH]);
    let mut plans: Vec<Plan> = Vec::new();
    let mut owned: BTreeSet<&str> = BTreeSet::new();
    for (rule, host) in owners(&listener.virtual_services, &by_host) {
        let selection = route::select(rule, view, &gateways, port);
        let known = by_host.contains_key(host);
        // A host that is no service has no port of its own: it is served on 80 only.
        if selection.is_empty() || (!known && port != 80) {
            continue;
        }
        owned.insert(host);
        plans.push(Plan {
            name: format!("{host}:{port}"),
            domains: Vec::new(),
            port,
            rules: vec![(rule.clone(), selection)],
            service: known.then(|| host.to_owned()),
            ..Plan::default()
        });
    }
    for host in by_host.keys().filter(|host| !owned.contains(*host)) {
        plans.push(Plan {
            name: format!("{host}:{port}"),
            port,
            service: Some((*host).to_owned()),
            ..Plan::default()
        });
    }
    own_domains(client, view, &by_host, &mut plans);
    plans.retain(|plan| !plan.domains.is_empty());
    plans.sort_by(|one, other| one.name.cmp(&other.name));
    plans
}

/// Which virtual service owns which host: for a service the oldest exact one, else the most
/// specific wildcard; for hosts without a service the oldest.
fn owners<'a>(
    rules: &'a [Arc<VirtualServiceEntry>],
    services: &BTreeMap<&'a str, &Arc<ServiceEntryRef>>,
) -> Vec<(&'a Arc<VirtualServiceEntry>, &'a str)> {
    let mut owners: Vec<(&Arc<VirtualServiceEntry>, &str)> = Vec::new();
    let mut taken: BTreeSet<&str> = BTreeSet::new();
    let exact = rules.iter().flat_map(|rule| {
        rule.spec
            .hosts
            .iter()
            .filter(|h| !h.starts_with('*'))
            .map(move |h| (rule, h.as_str()))
    });
    for (rule, host) in exact {
        if taken.insert(host) {
            owners.push((rule, host));
        }
    }
    let mut wildcards: Vec<(&Arc<VirtualServiceEntry>, &str)> = rules
        .iter()
        .flat_map(|rule| {
            let hosts = rule.spec.hosts.iter().filter(|host| host.starts_with('*'));
            hosts.map(move |host| (rule, host.as_str()))
        })
        .collect();
    wildcards.sort_by_key(|(_, host)| std::cmp::Reverse(host.len()));
    for (rule, pattern) in wildcards {
        let mut found = false;
        for host in services
            .keys()
            .filter(|host| hostname::covers(pattern, host))
        {
            found = true;
            if taken.insert(host) {
                owners.push((rule, host));
            }
        }
        if !found && taken.insert(pattern) {
            owners.push((rule, pattern));
        }
    }
    owners
}

/// Gives each plan its domains. Complete names come first: a short form never takes the name of
/// a real host, and the first plan to claim a domain keeps it.
fn own_domains(
    client: &Client<'_>,
    view: &ProxyView,
    services: &BTreeMap<&str, &Arc<ServiceEntryRef>>,
    plans: &mut [Plan],
) {
    let names = ClientNames {
        dns_domain: &view.dns_domain,
        ipv4: view.supports_ipv4(),
        ipv6: view.supports_ipv6(),
    };
    let aliases = aliases(client);
    let complete: BTreeSet<String> = plans
        .iter()
        .filter_map(|plan| plan.name.rsplit_once(':').map(|(host, _)| host.to_owned()))
        .collect();
    let mut claimed: BTreeSet<String> = BTreeSet::new();
    for plan in plans {
        let host = plan
            .name
            .rsplit_once(':')
            .map(|(host, _)| host)
            .unwrap_or_default();
        let mut domains = match services.get(host) {
            Some(entry) => domains::of_service(&entry.service, &names),
            // Not a service: exactly what the rule says.
            None => vec![host.to_owned()],
        };
        for alias in aliases.get(host).into_iter().flatten() {
            domains.extend(domains::of_host(alias, &view.dns_domain));
        }
        let own = host.to_owned();
        plan.domains = domains
            .into_iter()
            .map(|domain| domain.to_ascii_lowercase())
            .filter(|domain| *domain == own || !complete.contains(domain))
            .filter(|domain| claimed.insert(domain.clone()))
            .collect();
    }
}

/// Other names of services: target host to the hosts that stand for it.
fn aliases(client: &Client<'_>) -> BTreeMap<String, Vec<String>> {
    let mut aliases: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in &client.scope.services {
        if let Some(target) = &entry.service.external_name {
            aliases
                .entry(target.clone())
                .or_default()
                .push(entry.service.key.hostname.clone());
        }
    }
    aliases
}
