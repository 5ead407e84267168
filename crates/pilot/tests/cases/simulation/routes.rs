//! Virtual host and route of a call, by Envoy's rules.

use std::collections::{BTreeMap, BTreeSet};

use envoy_api::cluster::Cluster;
use envoy_api::core::{address, socket_address};
use envoy_api::endpoint::lb_endpoint::HostIdentifier;
use envoy_api::route::route_action::ClusterSpecifier;
use envoy_api::route::route_match::PathSpecifier;
use envoy_api::route::virtual_host::TlsRequirementType;
use envoy_api::route::{Route, RouteConfiguration, VirtualHost, route};
use prost_types::value::Kind;

use super::Outcome;

/// Fills in where the request ends.
pub fn follow(
    table: Option<&RouteConfiguration>,
    host: &str,
    path: &str,
    plain: bool,
    outcome: &mut Outcome,
) {
    let host = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let Some(found) = table.and_then(|table| virtual_host(table, host)) else {
        outcome.error = Some("no virtual host matched");
        return;
    };
    outcome.virtual_host.clone_from(&found.name);
    if found.require_tls == TlsRequirementType::All as i32 && plain {
        outcome.error = Some("tls required, sending 301");
        return;
    }
    let Some(route) = found.routes.iter().find(|route| matches(route, path)) else {
        outcome.error = Some("no route matched");
        return;
    };
    if let Some(route::Action::Route(action)) = &route.action
        && let Some(ClusterSpecifier::Cluster(cluster)) = &action.cluster_specifier
    {
        outcome.cluster.clone_from(cluster);
    }
}

fn virtual_host<'a>(table: &'a RouteConfiguration, host: &str) -> Option<&'a VirtualHost> {
    let by = |want: &dyn Fn(&str) -> bool| {
        table
            .virtual_hosts
            .iter()
            .find(|vh| vh.domains.iter().any(|domain| want(domain)))
    };
    let exact = by(&|domain| domain == host);
    let suffixes = table
        .virtual_hosts
        .iter()
        .flat_map(|vh| vh.domains.iter().map(move |domain| (domain, vh)))
        .filter(|(domain, _)| {
            domain.len() > 1 && domain.starts_with('*') && host.ends_with(&domain[1..])
        })
        .max_by_key(|(domain, _)| domain.len())
        .map(|(_, vh)| vh);
    exact.or(suffixes).or_else(|| by(&|domain| domain == "*"))
}

fn matches(route: &Route, path: &str) -> bool {
    let specifier = route
        .r#match
        .as_ref()
        .and_then(|m| m.path_specifier.as_ref());
    match specifier {
        Some(PathSpecifier::Prefix(prefix)) => path.starts_with(prefix.as_str()),
        Some(PathSpecifier::Path(exact)) => path == exact,
        _ => false,
    }
}

/// Clusters that each domain's routes lead to.
pub fn clusters_by_domain(
    table: Option<&RouteConfiguration>,
) -> BTreeMap<String, BTreeSet<String>> {
    let mut map: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for host in table.into_iter().flat_map(|table| &table.virtual_hosts) {
        let mut clusters = BTreeSet::new();
        for route in &host.routes {
            let Some(route::Action::Route(action)) = &route.action else {
                continue;
            };
            match &action.cluster_specifier {
                Some(ClusterSpecifier::Cluster(name)) => {
                    clusters.insert(name.clone());
                }
                Some(ClusterSpecifier::WeightedClusters(weighted)) => {
                    clusters.extend(weighted.clusters.iter().map(|cluster| cluster.name.clone()));
                }
                _ => {}
            }
        }
        for domain in &host.domains {
            map.insert(domain.clone(), clusters.clone());
        }
    }
    map
}

/// `host:port` of the endpoints that stand in a cluster.
pub fn static_addresses(cluster: &Cluster) -> Vec<String> {
    let groups = cluster
        .load_assignment
        .iter()
        .flat_map(|assignment| &assignment.endpoints);
    let endpoints = groups.flat_map(|group| &group.lb_endpoints);
    let one = |endpoint: &envoy_api::endpoint::LbEndpoint| {
        let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else {
            return None;
        };
        let address::Address::SocketAddress(socket) = endpoint.address.clone()?.address? else {
            return None;
        };
        let Some(socket_address::PortSpecifier::PortValue(port)) = socket.port_specifier else {
            return None;
        };
        Some(format!("{}:{port}", socket.address))
    };
    endpoints.filter_map(one).collect()
}

/// Hosts in `metadata.istio.services`.
pub fn service_hosts(cluster: &Cluster) -> Vec<String> {
    let metadata = cluster.metadata.clone().unwrap_or_default();
    let services = metadata
        .filter_metadata
        .get("istio")
        .and_then(|m| m.fields.get("services"));
    let Some(Kind::ListValue(list)) = services.and_then(|value| value.kind.clone()) else {
        return Vec::new();
    };
    let host = |value: prost_types::Value| match value.kind {
        Some(Kind::StructValue(fields)) => match fields.fields.get("host")?.kind.clone()? {
            Kind::StringValue(host) => Some(host),
            _ => None,
        },
        _ => None,
    };
    list.values.into_iter().filter_map(host).collect()
}
