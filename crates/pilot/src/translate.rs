//! From the snapshot to Envoy resources, one type for one proxy at a time. Pure: the same
//! snapshot and view give the same bytes.

pub mod access_log;
pub mod chain;
pub mod cluster;
pub mod cluster_balancer;
pub mod cluster_inbound;
pub mod cluster_policy;
pub mod cluster_pool;
pub mod cluster_tls;
pub mod domains;
pub mod endpoint;
pub mod gateway;
pub mod gateway_routes;
pub mod http_filters;
pub mod inbound;
pub mod listener_gateway;
pub mod listener_inbound;
pub mod listener_outbound;
pub mod locality;
pub mod message;
pub mod name_table;
pub mod network_filters;
pub mod peer_headers;
pub mod rbac;
pub mod rbac_rule;
pub mod rbac_value;
pub mod route;
pub mod route_filters;
pub mod route_headers;
pub mod route_match;
pub mod route_reply;
pub mod route_retry;
pub mod route_table;
pub mod secret;
pub mod server_tls;
pub mod tcp_route;
pub mod tls_context;
pub mod virtual_host;

use std::collections::BTreeSet;
use std::sync::Arc;

use envoy_api::{Resource, ResourceType};
use mesh_api::kinds::tls_settings::ServerTlsMode;

use crate::model::{Interception, Protocol, ProxyView, Role};
use crate::snapshot::{OutboundPolicy, ServiceEntryRef, Snapshot};

/// The resources of one type for one proxy; `names` limits types that are asked for by name.
/// Without names, all that the proxy's other resources refer to.
pub fn generate(
    snapshot: &Snapshot,
    view: &ProxyView,
    kind: ResourceType,
    names: Option<&BTreeSet<String>>,
) -> Vec<Resource> {
    let mut resources = match kind {
        ResourceType::Cluster => clusters(snapshot, view),
        ResourceType::Endpoint => endpoints(snapshot, view, names),
        ResourceType::Listener => listeners(snapshot, view),
        ResourceType::Route => routes(snapshot, view, names),
        ResourceType::NameTable => vec![name_table::generate(snapshot, view)],
        ResourceType::Secret => names
            .into_iter()
            .flatten()
            .filter_map(|name| secret::generate(snapshot, view, name))
            .collect(),
        // Virtual hosts on their own and extension configurations are not announced to anyone.
        ResourceType::VirtualHost | ResourceType::ExtensionConfig => Vec::new(),
    };
    // The name table is one resource whatever name it is asked by.
    if let Some(names) = names.filter(|_| kind != ResourceType::NameTable) {
        resources.retain(|resource| names.contains("*") || names.contains(&resource.name));
    }
    resources
}

/// Every cluster target of a proxy's services.
fn targets<'a>(
    snapshot: &'a Snapshot,
    view: &ProxyView,
    services: &'a [Arc<ServiceEntryRef>],
) -> Vec<cluster::Target<'a>> {
    let of_service = |entry: &'a Arc<ServiceEntryRef>| {
        let service = &entry.service.key;
        let rule = snapshot
            .destination_rules
            .find(&view.namespace, &view.labels, service);
        cluster::targets(entry, rule)
    };
    services.iter().flat_map(of_service).collect()
}

/// Targets under their SNI names, for gateways that pass mutual TLS through.
fn sni_dnat_targets<'a>(
    snapshot: &'a Snapshot,
    view: &ProxyView,
    services: &'a [Arc<ServiceEntryRef>],
) -> Vec<cluster::Target<'a>> {
    let mut targets = targets(snapshot, view, services);
    targets.retain(|target| !target.entry.service.external);
    for target in &mut targets {
        target.sni_dnat = true;
    }
    targets
}

fn passes_mutual_tls(snapshot: &Snapshot, view: &ProxyView) -> bool {
    view.role == Role::Router
        && gateway::merge(snapshot, view)
            .iter()
            .flat_map(|port| &port.servers)
            .any(|server| server.mode() == ServerTlsMode::AutoPassthrough)
}

fn clusters(snapshot: &Snapshot, view: &ProxyView) -> Vec<Resource> {
    let scope = snapshot.scope(view);
    let mut all = targets(snapshot, view, &scope.services);
    if passes_mutual_tls(snapshot, view) {
        all.extend(sni_dnat_targets(snapshot, view, &scope.services));
    }
    let mut resources: Vec<Resource> = all
        .iter()
        .filter_map(|target| cluster::fragment(snapshot, view, target))
        .map(|fragment| fragment.resource(ResourceType::Cluster))
        .collect();
    let mut own = vec![cluster_inbound::black_hole(snapshot)];
    if view.role == Role::Sidecar {
        if scope.outbound != OutboundPolicy::RegistryOnly || view.interception != Interception::None
        {
            own.push(cluster_inbound::passthrough(snapshot));
        }
        own.push(cluster_inbound::inbound_passthrough(snapshot, view));
        for served in inbound::served(snapshot, view) {
            own.push(cluster_inbound::served(snapshot, view, &served));
        }
    }
    resources.extend(
        own.iter()
            .map(|fragment| fragment.resource(ResourceType::Cluster)),
    );
    resources
}

fn endpoints(
    snapshot: &Snapshot,
    view: &ProxyView,
    names: Option<&BTreeSet<String>>,
) -> Vec<Resource> {
    let scope = snapshot.scope(view);
    let mut all = targets(snapshot, view, &scope.services);
    if passes_mutual_tls(snapshot, view) {
        all.extend(sni_dnat_targets(snapshot, view, &scope.services));
    }
    let asked = |target: &&cluster::Target<'_>| {
        let name = if target.sni_dnat {
            target.name().sni()
        } else {
            target.name().to_string()
        };
        names.is_none_or(|names| names.contains("*") || names.contains(&name))
    };
    all.iter()
        .filter(asked)
        .filter(|target| cluster::is_eds(snapshot, target, view.is_router()))
        .filter_map(|target| endpoint::fragment(snapshot, view, target))
        .map(|fragment| fragment.resource(ResourceType::Endpoint))
        .collect()
}

fn listeners(snapshot: &Snapshot, view: &ProxyView) -> Vec<Resource> {
    if view.role == Role::Router {
        return listener_gateway::listeners(snapshot, view);
    }
    let mut resources = listener_outbound::listeners(snapshot, view);
    if view.interception != Interception::None {
        let served = inbound::served(snapshot, view);
        resources.push(listener_inbound::listener(snapshot, view, &served));
    }
    resources
}

fn routes(
    snapshot: &Snapshot,
    view: &ProxyView,
    names: Option<&BTreeSet<String>>,
) -> Vec<Resource> {
    if view.role == Role::Router {
        return gateway_routes::tables(snapshot, view);
    }
    let known;
    let names = match names.filter(|names| !names.contains("*")) {
        Some(names) => names,
        None => {
            known = table_names(snapshot, view);
            &known
        }
    };
    names
        .iter()
        .filter_map(|name| route_table::sidecar(snapshot, view, name))
        .collect()
}

/// The names of all route tables that a sidecar's listeners may refer to.
fn table_names(snapshot: &Snapshot, view: &ProxyView) -> BTreeSet<String> {
    let scope = snapshot.scope(view);
    let mut names = BTreeSet::new();
    for listener in &scope.egress {
        if let Some((port, protocol)) = listener.port
            && protocol.is_http()
        {
            names.insert(port.to_string());
        }
        for entry in &listener.services {
            for port in &entry.service.ports {
                if port.protocol.is_http() || port.protocol == Protocol::Auto {
                    names.insert(port.number.to_string());
                }
                if port.protocol == Protocol::Auto {
                    names.insert(format!("{}:{}", entry.service.key.hostname, port.number));
                }
            }
        }
    }
    names
}
