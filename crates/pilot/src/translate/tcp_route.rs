//! TCP and TLS routes towards one service port: filter chains by destination and SNI
//! (istio.md 1.3, 2.3).

use std::collections::BTreeSet;
use std::sync::Arc;

use envoy_api::listener::{Filter, FilterChain, FilterChainMatch};
use ipnet::IpNet;
use mesh_api::kinds::destination::RouteDestination;
use mesh_api::kinds::virtual_service::{L4MatchAttributes, TlsMatchAttributes};

use super::cluster_policy::Policy;
use super::http_filters::Side;
use super::message::{cidr, is_single, parse_net};
use super::network_filters::{self, Tcp};
use super::rbac::RbacFilters;
use super::route::{self, Place};
use super::virtual_host::Client;
use crate::cluster_name::Outbound;
use crate::model::{Labels, Port, ProxyView, Service, selects};
use crate::snapshot::VirtualServiceEntry;
use crate::snapshot::virtual_services::MESH;

/// The client for which chains are made.
pub struct Outgoing<'a> {
    pub client: &'a Client<'a>,
    pub view: &'a ProxyView,
    pub side: Side,
    pub policies: &'a RbacFilters,
    pub gateways: BTreeSet<&'a str>,
}

/// Conditions on the client that the control plane decides.
struct Conditions<'a> {
    port: u32,
    gateways: &'a [String],
    source_labels: &'a Labels,
    source_namespace: &'a str,
}

impl<'a> Outgoing<'a> {
    /// A sidecar's own outbound traffic.
    pub fn mesh(client: &'a Client<'a>, view: &'a ProxyView, policies: &'a RbacFilters) -> Self {
        let gateways = BTreeSet::from([MESH]);
        Self {
            client,
            view,
            side: Side::Outbound,
            policies,
            gateways,
        }
    }

    fn applies(&self, conditions: &Conditions<'_>, port: u16) -> bool {
        if conditions.port != 0 && conditions.port != u32::from(port) {
            return false;
        }
        if !conditions.gateways.is_empty() {
            return conditions
                .gateways
                .iter()
                .any(|name| self.gateways.contains(name.as_str()));
        }
        selects(conditions.source_labels, &self.view.labels)
            && (conditions.source_namespace.is_empty()
                || conditions.source_namespace == self.view.namespace)
    }

    pub fn tls_applies(&self, written: &TlsMatchAttributes, port: u16) -> bool {
        let conditions = Conditions {
            port: written.port,
            gateways: &written.gateways,
            source_labels: &written.source_labels,
            source_namespace: &written.source_namespace,
        };
        self.applies(&conditions, port)
    }

    pub fn tcp_applies(&self, written: &L4MatchAttributes, port: u16) -> bool {
        let conditions = Conditions {
            port: written.port,
            gateways: &written.gateways,
            source_labels: &written.source_labels,
            source_namespace: &written.source_namespace,
        };
        self.applies(&conditions, port)
    }

    /// Filters that forward to the destinations of one route; `name` is used when there are
    /// several.
    pub fn filters(&self, routes: &[RouteDestination], name: &str, port: u16) -> Vec<Filter> {
        let place = Place {
            port,
            mesh: &self.client.snapshot.mesh,
            destinations: self.client,
            tls: false,
        };
        let targets: Vec<(Outbound, i32)> = routes
            .iter()
            .filter_map(|route| {
                let destination = route.destination.as_ref()?;
                Some((route::cluster(destination, &place), route.weight))
            })
            .collect();
        let first = targets.first().map(|(cluster, _)| cluster.clone());
        let clusters = network_filters::weighted(targets);
        let stat_prefix = match clusters.as_slice() {
            [(only, _)] => only.clone(),
            _ => name.to_owned(),
        };
        self.tcp(clusters, stat_prefix, first.as_ref())
    }

    /// Filters that forward to one cluster.
    pub fn filters_to(&self, cluster: &Outbound) -> Vec<Filter> {
        let name = cluster.to_string();
        self.tcp(vec![(name.clone(), 1)], name, Some(cluster))
    }

    /// Filters that forward to a cluster of that name.
    pub fn tcp_named(&self, name: &str) -> Vec<Filter> {
        self.tcp(vec![(name.to_owned(), 1)], name.to_owned(), None)
    }

    fn tcp(
        &self,
        clusters: Vec<(String, u32)>,
        stat_prefix: String,
        first: Option<&Outbound>,
    ) -> Vec<Filter> {
        network_filters::tcp(Tcp {
            side: self.side,
            stat_prefix,
            clusters,
            capabilities: &self.view.capabilities,
            policies: self.policies,
            mesh: &self.client.snapshot.mesh,
            idle_timeout: first.and_then(|cluster| self.idle_timeout(cluster)),
        })
    }

    fn idle_timeout(&self, cluster: &Outbound) -> Option<std::time::Duration> {
        let entry = self.client.entry(&cluster.hostname)?;
        let rule = self.client.rule(&entry.service)?;
        let mesh = &self.client.snapshot.mesh;
        let policy = Policy::resolve(Some(&rule.spec), None, cluster.port, mesh);
        policy.connection_pool?.tcp?.idle_timeout
    }
}

/// The chains for one port of a service; `addresses` are those the chains may be matched on.
pub fn chains(
    outgoing: &Outgoing<'_>,
    rules: &[Arc<VirtualServiceEntry>],
    service: &Service,
    port: &Port,
    addresses: &[IpNet],
) -> Vec<FilterChain> {
    let host = &service.key.hostname;
    let rules: Vec<&Arc<VirtualServiceEntry>> = rules
        .iter()
        .filter(|rule| {
            rule.spec
                .hosts
                .iter()
                .any(|h| crate::hostname::covers(h, host))
        })
        .collect();
    if port.protocol.is_tls() {
        tls_chains(outgoing, &rules, service, port, addresses)
    } else {
        tcp_chains(outgoing, &rules, service, port, addresses)
    }
}

fn rule_name(rule: &VirtualServiceEntry) -> String {
    format!("{}.{}", rule.key.name, rule.key.namespace)
}

/// Matches only what the listener's own address does not decide.
fn on(addresses: &[IpNet], server_names: &[String]) -> Option<FilterChainMatch> {
    let ranges: Vec<_> = addresses.iter().map(cidr).collect();
    let mut names: Vec<String> = server_names.to_vec();
    if names.iter().any(|name| name == "*") {
        names.clear();
    }
    names.sort();
    if ranges.is_empty() && names.is_empty() {
        return None;
    }
    Some(FilterChainMatch {
        prefix_ranges: ranges,
        server_names: names,
        ..Default::default()
    })
}

fn tls_chains(
    outgoing: &Outgoing<'_>,
    rules: &[&Arc<VirtualServiceEntry>],
    service: &Service,
    port: &Port,
    addresses: &[IpNet],
) -> Vec<FilterChain> {
    let mut chains = Vec::new();
    for rule in rules {
        for route in &rule.spec.tls {
            for part in &route.r#match {
                if !outgoing.tls_applies(part, port.number) {
                    continue;
                }
                let subnets: Vec<IpNet> = part
                    .destination_subnets
                    .iter()
                    .filter_map(|s| parse_net(s))
                    .collect();
                let nets = if subnets.is_empty() {
                    addresses
                } else {
                    &subnets
                };
                chains.push(FilterChain {
                    filter_chain_match: on(nets, &part.sni_hosts),
                    filters: outgoing.filters(&route.route, &rule_name(rule), port.number),
                    ..Default::default()
                });
            }
        }
    }
    if chains.is_empty() {
        let virtual_addresses = service.virtual_addresses();
        let unique = service.is_headless()
            || !virtual_addresses.is_empty() && virtual_addresses.iter().all(is_single);
        // Without an address of its own only the SNI tells the service.
        let names = if unique {
            Vec::new()
        } else {
            vec![service.key.hostname.clone()]
        };
        chains.push(default_chain(
            outgoing,
            service,
            port,
            on(addresses, &names),
        ));
    }
    chains
}

fn tcp_chains(
    outgoing: &Outgoing<'_>,
    rules: &[&Arc<VirtualServiceEntry>],
    service: &Service,
    port: &Port,
    addresses: &[IpNet],
) -> Vec<FilterChain> {
    let mut chains = Vec::new();
    for rule in rules {
        for route in &rule.spec.tcp {
            let everything = L4MatchAttributes::default();
            let parts = if route.r#match.is_empty() {
                std::slice::from_ref(&everything)
            } else {
                &route.r#match
            };
            for part in parts {
                if !outgoing.tcp_applies(part, port.number) {
                    continue;
                }
                let subnets: Vec<IpNet> = part
                    .destination_subnets
                    .iter()
                    .filter_map(|s| parse_net(s))
                    .collect();
                let nets = if subnets.is_empty() {
                    addresses
                } else {
                    &subnets
                };
                chains.push(FilterChain {
                    filter_chain_match: on(nets, &[]),
                    filters: outgoing.filters(&route.route, &rule_name(rule), port.number),
                    ..Default::default()
                });
                if subnets.is_empty() {
                    // Nothing after a route for all connections can be reached.
                    return chains;
                }
            }
        }
    }
    chains.push(default_chain(outgoing, service, port, on(addresses, &[])));
    chains
}

fn default_chain(
    outgoing: &Outgoing<'_>,
    service: &Service,
    port: &Port,
    matched: Option<FilterChainMatch>,
) -> FilterChain {
    let cluster = Outbound::new(port.number, "", &service.key.hostname);
    FilterChain {
        filter_chain_match: matched,
        filters: outgoing.filters_to(&cluster),
        ..Default::default()
    }
}
