//! Listeners of a gateway: one per address and port of the merged servers (istio.md 2.6).

use std::collections::BTreeSet;

use envoy_api::Resource;
use envoy_api::core::{TrafficDirection, TransportSocket};
use envoy_api::listener::{FilterChain, FilterChainMatch, Listener};
use mesh_api::kinds::tls_settings::ServerTlsMode;

use super::gateway::{MergedPort, MergedServer, merge};
use super::http_filters::Side;
use super::message::{cidr, duration, parse_net, seconds, socket};
use super::network_filters::{self, Http, Routes};
use super::peer_headers::PeerHeaders;
use super::rbac::RbacFilters;
use super::server_tls::server_tls;
use super::tcp_route::Outgoing;
use super::virtual_host::Client;
use super::{access_log, chain};
use crate::cluster_name::Outbound;
use crate::model::ProxyView;
use crate::snapshot::Snapshot;

const CONNECT_TIMEOUT_S: u64 = 15;

/// All listeners of a gateway proxy.
pub fn listeners(snapshot: &Snapshot, view: &ProxyView) -> Vec<Resource> {
    let scope = snapshot.scope(view);
    let client = Client::new(snapshot, &scope, view);
    let entries = snapshot
        .policies
        .authorization(&view.namespace, &view.labels);
    let policies = RbacFilters::new(&entries, &snapshot.mesh);
    let peer = PeerHeaders::new(view);
    let builder = Builder {
        snapshot,
        view,
        client,
        policies,
        peer,
    };
    merge(snapshot, view)
        .iter()
        .filter_map(|port| builder.listener(port))
        .collect()
}

struct Builder<'a> {
    snapshot: &'a Snapshot,
    view: &'a ProxyView,
    client: Client<'a>,
    policies: RbacFilters,
    peer: PeerHeaders,
}

impl Builder<'_> {
    fn listener(&self, port: &MergedPort) -> Option<Resource> {
        let mesh = &self.snapshot.mesh;
        let bind = port
            .bind
            .clone()
            .unwrap_or_else(|| self.view.wildcard().to_owned());
        let name = format!("{bind}_{}", port.port);
        let chains: Vec<FilterChain> = if port.http {
            let first = port.servers.first()?;
            vec![FilterChain {
                filters: vec![self.http(first, &format!("outbound_{name};"))?],
                ..Default::default()
            }]
        } else {
            let mut seen = BTreeSet::new();
            let chains = port
                .servers
                .iter()
                .flat_map(|server| self.server_chains(port, server));
            // Envoy refuses a listener with two equal matches: the older chain stays.
            chains
                .filter(chain::names_are_valid)
                .filter(|chain| seen.insert(format!("{:?}", chain.filter_chain_match)))
                .collect()
        };
        if chains.is_empty() {
            return None;
        }
        let mut filters = Vec::new();
        if port.tls {
            filters.push(chain::tls_inspector());
        }
        let wildcard = port.bind.is_none();
        let listener = Listener {
            address: Some(socket(&bind, port.port)),
            additional_addresses: if wildcard {
                super::listener_outbound::additional(self.view, port.port)
            } else {
                Vec::new()
            },
            name,
            filter_chains: chains,
            listener_filters_timeout: port
                .tls
                .then(|| duration(mesh.protocol_detection_timeout.unwrap_or_default())),
            continue_on_listener_filters_timeout: port.tls,
            listener_filters: filters,
            traffic_direction: TrafficDirection::Outbound as i32,
            access_log: access_log::listener_logs(mesh),
            ..Default::default()
        };
        Some(chain::resource(&listener))
    }

    fn http(
        &self,
        server: &MergedServer,
        stat_prefix: &str,
    ) -> Option<envoy_api::listener::Filter> {
        let table = server.table.clone()?;
        Some(network_filters::http(Http {
            side: Side::Gateway,
            stat_prefix: stat_prefix.to_owned(),
            routes: Routes::Table(table),
            protocol: server.protocol,
            capabilities: &self.view.capabilities,
            policies: &self.policies,
            mesh: &self.snapshot.mesh,
            http10: self.view.http10,
            idle_timeout_ms: self.view.idle_timeout_ms,
            peer: Some(&self.peer),
        }))
    }

    fn server_chains(&self, port: &MergedPort, server: &MergedServer) -> Vec<FilterChain> {
        let names = server_names(server);
        let trust_domains: Vec<String> = std::iter::once(self.snapshot.mesh.trust_domain.clone())
            .chain(self.snapshot.mesh.trust_domain_aliases.iter().cloned())
            .collect();
        if server.is_http() {
            let prefix = match server.server.name.as_str() {
                "" => format!("outbound_{}_{};", self.view.wildcard(), port.port),
                name => name.to_owned(),
            };
            let tls = server.server.tls.clone().unwrap_or_default();
            let socket = server_tls(&tls, server.protocol, &trust_domains);
            let filter = self.http(server, &prefix);
            return filter
                .map(|filter| tls_chain(&names, vec![filter], Some(socket)))
                .into_iter()
                .collect();
        }
        match server.mode() {
            ServerTlsMode::AutoPassthrough if port.tls => self.sni_dnat_chains(),
            ServerTlsMode::Passthrough if port.tls => self.tcp_chains(server, None),
            _ if port.tls => {
                let tls = server.server.tls.clone().unwrap_or_default();
                let socket = server_tls(&tls, server.protocol, &trust_domains);
                self.tcp_chains(server, Some(socket))
            }
            _ => self.tcp_chains(server, None),
        }
    }

    /// Chains for the TLS or TCP routes of all virtual services on the gateway.
    fn tcp_chains(
        &self,
        server: &MergedServer,
        socket: Option<TransportSocket>,
    ) -> Vec<FilterChain> {
        let gateway = server.gateway.name.as_str();
        let outgoing = Outgoing {
            client: &self.client,
            view: self.view,
            side: Side::Gateway,
            policies: &self.policies,
            gateways: BTreeSet::from([gateway]),
        };
        let mut chains = Vec::new();
        let rules = self.snapshot.virtual_services.for_gateway(gateway);
        for rule in rules.filter(|rule| rule.visibility.allows(&self.view.namespace)) {
            let hosts = server.matching_hosts(rule);
            if hosts.is_empty() {
                continue;
            }
            let name = format!("{}.{}", rule.key.name, rule.key.namespace);
            for route in &rule.spec.tls {
                for part in &route.r#match {
                    if !outgoing.tls_applies(part, server.number) || !server.protocol.is_tls() {
                        continue;
                    }
                    let names = narrowed(&part.sni_hosts, server);
                    if names.is_empty() {
                        continue;
                    }
                    let filters = outgoing.filters(&route.route, &name, server.number);
                    let mut chain = tls_chain(&names, filters, socket.clone());
                    restrict(&mut chain, &part.destination_subnets);
                    chains.push(chain);
                }
            }
            for route in &rule.spec.tcp {
                let all = route.r#match.is_empty();
                let applies = route
                    .r#match
                    .iter()
                    .any(|part| outgoing.tcp_applies(part, server.number));
                if !all && !applies {
                    continue;
                }
                let filters = outgoing.filters(&route.route, &name, server.number);
                let names = if socket.is_some() {
                    server_names(server)
                } else {
                    Vec::new()
                };
                let chain = if names.is_empty() {
                    FilterChain {
                        filters,
                        transport_socket: socket.clone(),
                        ..Default::default()
                    }
                } else {
                    tls_chain(&names, filters, socket.clone())
                };
                chains.push(chain);
            }
        }
        chains
    }

    /// Mutual TLS passes through by the SNI that sidecars send, one chain per cluster.
    fn sni_dnat_chains(&self) -> Vec<FilterChain> {
        let outgoing = Outgoing {
            client: &self.client,
            view: self.view,
            side: Side::Gateway,
            policies: &self.policies,
            gateways: BTreeSet::new(),
        };
        let mut chains = Vec::new();
        for target in super::sni_dnat_targets(self.snapshot, self.view, &self.client.scope.services)
        {
            let name: Outbound = target.name();
            let mut chain = tls_chain(&[name.sni()], outgoing.tcp_named(&name.sni()), None);
            if let Some(matched) = &mut chain.filter_chain_match {
                matched.application_protocols = chain::MESH_ANY
                    .iter()
                    .map(|alpn| (*alpn).to_owned())
                    .collect();
            }
            chains.push(chain);
        }
        chains
    }
}

/// SNI names of a server; none when it takes any.
fn server_names(server: &MergedServer) -> Vec<String> {
    let mut names: Vec<String> = server.hosts.iter().map(|host| host.host.clone()).collect();
    if names.iter().any(|name| name == "*") {
        return Vec::new();
    }
    names.sort();
    names.dedup();
    names
}

/// The SNI names of a route as far as the server takes them.
fn narrowed(written: &[String], server: &MergedServer) -> Vec<String> {
    let fits = |name: &&String| {
        server
            .hosts
            .iter()
            .any(|host| crate::hostname::overlap(&host.host, name))
    };
    let mut names: Vec<String> = written.iter().filter(fits).cloned().collect();
    names.sort();
    names.dedup();
    names
}

fn tls_chain(
    names: &[String],
    filters: Vec<envoy_api::listener::Filter>,
    socket: Option<TransportSocket>,
) -> FilterChain {
    let any = names.iter().any(|name| name == "*");
    let matched = FilterChainMatch {
        server_names: if any { Vec::new() } else { names.to_vec() },
        ..Default::default()
    };
    FilterChain {
        filter_chain_match: (matched != FilterChainMatch::default()).then_some(matched),
        filters,
        transport_socket_connect_timeout: socket.is_some().then(|| seconds(CONNECT_TIMEOUT_S)),
        transport_socket: socket,
        ..Default::default()
    }
}

fn restrict(chain: &mut FilterChain, subnets: &[String]) {
    if subnets.is_empty() {
        return;
    }
    let matched = chain.filter_chain_match.get_or_insert_default();
    matched.prefix_ranges = subnets
        .iter()
        .filter_map(|text| parse_net(text))
        .map(|net| cidr(&net))
        .collect();
}
