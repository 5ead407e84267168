//! Outbound listeners of a sidecar: one per address and port that its services have, and
//! `virtualOutbound` for everything else (istio.md 2.3).

use std::collections::BTreeMap;

use envoy_api::Resource;
use envoy_api::core::TrafficDirection;
use envoy_api::listener::{AdditionalAddress, FilterChain, FilterChainMatch, Listener};
use ipnet::IpNet;

use super::access_log;
use super::chain::{self, PLAIN_HTTP, RAW};
use super::http_filters::Side;
use super::message::{duration, is_single, socket};
use super::network_filters::{self, Http, Routes};
use super::peer_headers::PeerHeaders;
use super::rbac::RbacFilters;
use super::route_table::egress_cluster;
use super::tcp_route::{self, Outgoing};
use super::virtual_host::Client;
use crate::cluster_name;
use crate::model::{EndpointAddress, Interception, Port, Protocol, ProxyView, Resolution, Service};
use crate::snapshot::{EgressListener, OutboundPolicy, Snapshot};

const NAME: &str = "virtualOutbound";
/// Ports of the proxy itself: a listener of a service there would hide it.
const OWN_PORTS: [u16; 4] = [15001, 15006, 15021, 15090];

/// What shares one address and port.
#[derive(Default)]
struct Entry {
    /// Route table of the HTTP chain.
    table: Option<String>,
    http: Protocol,
    chains: Vec<FilterChain>,
    bound: bool,
    wildcard: bool,
}

struct Builder<'a> {
    outgoing: Outgoing<'a>,
    entries: BTreeMap<(String, u16), Entry>,
    peer: PeerHeaders,
}

/// All outbound listeners, the captured one last.
pub fn listeners(snapshot: &Snapshot, view: &ProxyView) -> Vec<Resource> {
    let scope = snapshot.scope(view);
    let client = Client::new(snapshot, &scope, view);
    let none = RbacFilters::default();
    let mut builder = Builder {
        outgoing: Outgoing::mesh(&client, view, &none),
        entries: BTreeMap::new(),
        peer: PeerHeaders::new(view),
    };
    let locked: Vec<u16> = scope
        .egress
        .iter()
        .filter_map(|listener| listener.port.map(|(port, _)| port))
        .collect();
    for listener in &scope.egress {
        for entry in &listener.services {
            if entry.service.resolution == Resolution::Alias {
                continue;
            }
            for port in &entry.service.ports {
                let free = match listener.port {
                    Some((own, _)) => own == port.number,
                    None => !locked.contains(&port.number),
                };
                if free && port.protocol != Protocol::Udp {
                    builder.add(snapshot, listener, &entry.service, port);
                }
            }
        }
        if let Some((port, protocol)) = listener.port
            && protocol.is_http()
        {
            builder.add_http(listener, port, protocol);
        }
    }
    let passthrough = builder.passthrough("PassthroughFilterChain");
    let mut resources: Vec<Resource> = std::mem::take(&mut builder.entries)
        .into_iter()
        .map(|((bind, port), entry)| builder.listener(&bind, port, entry, &passthrough))
        .collect();
    if view.interception != Interception::None {
        resources.push(builder.virtual_outbound(snapshot));
    }
    resources
}

/// The same port in the proxy's other address family.
pub fn additional(view: &ProxyView, port: u16) -> Vec<AdditionalAddress> {
    if !(view.supports_ipv4() && view.supports_ipv6()) {
        return Vec::new();
    }
    vec![AdditionalAddress {
        address: Some(socket("::", port)),
        ..Default::default()
    }]
}

impl Builder<'_> {
    fn view(&self) -> &ProxyView {
        self.outgoing.view
    }

    fn entry(&mut self, listener: &EgressListener, bind: String, port: u16) -> &mut Entry {
        let wildcard = bind == self.view().wildcard();
        let bound = !listener.captured || self.view().interception == Interception::None;
        let entry = self.entries.entry((bind, port)).or_default();
        entry.wildcard = wildcard;
        entry.bound = bound;
        entry
    }

    fn wildcard(&self, listener: &EgressListener) -> String {
        if listener.bind.is_empty() {
            self.view().wildcard().to_owned()
        } else {
            listener.bind.clone()
        }
    }

    fn add_http(&mut self, listener: &EgressListener, port: u16, protocol: Protocol) {
        let bind = self.wildcard(listener);
        let entry = self.entry(listener, bind, port);
        if entry.table.is_none() {
            entry.table = Some(port.to_string());
            entry.http = protocol;
        }
    }

    fn add(
        &mut self,
        snapshot: &Snapshot,
        listener: &EgressListener,
        service: &Service,
        port: &Port,
    ) {
        if OWN_PORTS.contains(&port.number) {
            return;
        }
        if port.protocol.is_http() {
            self.add_http(listener, port.number, port.protocol);
            return;
        }
        let (single, ranges) = addresses(snapshot, self.view(), service, port);
        let places: Vec<(String, Vec<IpNet>)> = if !listener.bind.is_empty() {
            vec![(listener.bind.clone(), Vec::new())]
        } else if single.is_empty() && ranges.is_empty() {
            if service.is_headless() {
                return;
            }
            vec![(self.wildcard(listener), Vec::new())]
        } else {
            let wide = (!ranges.is_empty()).then(|| (self.wildcard(listener), ranges));
            single
                .into_iter()
                .map(|bind| (bind, Vec::new()))
                .chain(wide)
                .collect()
        };
        for (bind, ranges) in places {
            let rules = &listener.virtual_services;
            let chains = tcp_route::chains(&self.outgoing, rules, service, port, &ranges);
            let own = bind != self.view().wildcard() && listener.bind.is_empty();
            let entry = self.entry(listener, bind, port.number);
            for chain in chains.into_iter().filter(chain::names_are_valid) {
                // The first service on an address wins: Envoy refuses equal matches.
                let taken = entry
                    .chains
                    .iter()
                    .any(|older| older.filter_chain_match == chain.filter_chain_match);
                if !taken {
                    entry.chains.push(chain);
                }
            }
            if port.protocol.is_auto() && entry.table.is_none() {
                entry.table = Some(if own {
                    format!("{}:{}", service.key.hostname, port.number)
                } else {
                    port.number.to_string()
                });
            }
        }
    }

    fn listener(
        &self,
        bind: &str,
        port: u16,
        mut entry: Entry,
        passthrough: &FilterChain,
    ) -> Resource {
        let view = self.view();
        let mesh = &self.outgoing.client.snapshot.mesh;
        let name = format!("{bind}_{port}");
        let mut default = (entry.wildcard && !entry.bound).then(|| passthrough.clone());
        let mut filters = Vec::new();
        let by_name = entry.chains.iter().any(|chain| {
            chain
                .filter_chain_match
                .as_ref()
                .is_some_and(|m| !m.server_names.is_empty())
        });
        if by_name || entry.table.is_some() {
            filters.push(chain::tls_inspector());
        }
        if let Some(table) = entry.table.take() {
            filters.push(chain::http_inspector());
            // Envoy does not come back from the HTTP chain's transport: what is not HTTP is
            // found only as the default chain.
            if let Some(index) = entry
                .chains
                .iter()
                .position(|chain| chain.filter_chain_match.is_none())
            {
                default = Some(entry.chains.remove(index));
            }
            let http = self.http_chain(&name, table, entry.http);
            let sniffed = std::mem::take(&mut entry.chains);
            entry.chains.push(http.clone());
            entry
                .chains
                .extend(sniffed.into_iter().flat_map(|chain| beside(chain, &http)));
        }
        chain::resource(&Listener {
            additional_addresses: if entry.wildcard {
                additional(view, port)
            } else {
                Vec::new()
            },
            address: Some(socket(bind, port)),
            name,
            filter_chains: entry.chains,
            default_filter_chain: default,
            listener_filters_timeout: (!filters.is_empty())
                .then(|| duration(mesh.protocol_detection_timeout.unwrap_or_default())),
            continue_on_listener_filters_timeout: !filters.is_empty(),
            listener_filters: filters,
            bind_to_port: (!entry.bound).then_some(false),
            traffic_direction: TrafficDirection::Outbound as i32,
            access_log: access_log::listener_logs(mesh),
            ..Default::default()
        })
    }

    fn http_chain(&self, name: &str, table: String, protocol: Protocol) -> FilterChain {
        let view = self.view();
        let manager = network_filters::http(Http {
            side: Side::Outbound,
            stat_prefix: format!("outbound_{name};"),
            routes: Routes::Table(table),
            protocol,
            capabilities: &view.capabilities,
            policies: self.outgoing.policies,
            mesh: &self.outgoing.client.snapshot.mesh,
            http10: view.http10,
            idle_timeout_ms: view.idle_timeout_ms,
            peer: Some(&self.peer),
        });
        FilterChain {
            filter_chain_match: Some(chain::protocols(RAW, PLAIN_HTTP)),
            filters: vec![manager],
            ..Default::default()
        }
    }

    /// What happens to connections that nothing else matches.
    fn passthrough(&self, name: &str) -> FilterChain {
        let view = self.view();
        let client = self.outgoing.client;
        let filters = match &client.scope.outbound {
            OutboundPolicy::Egress(destination) => self
                .outgoing
                .filters_to(&egress_cluster(client, destination)),
            policy => {
                let cluster = match policy {
                    OutboundPolicy::AllowAny => cluster_name::PASSTHROUGH,
                    _ => cluster_name::BLACK_HOLE,
                };
                let (mesh, policies) = (&client.snapshot.mesh, self.outgoing.policies);
                network_filters::tcp_to(cluster, Side::Outbound, &view.capabilities, policies, mesh)
            }
        };
        FilterChain {
            name: name.to_owned(),
            filters,
            ..Default::default()
        }
    }

    fn virtual_outbound(&self, snapshot: &Snapshot) -> Resource {
        let view = self.view();
        let mesh = &snapshot.mesh;
        let port = u16::try_from(mesh.proxy_listen_port).unwrap_or(15001);
        let black_hole = FilterChain {
            name: "virtualOutbound-blackhole".to_owned(),
            filter_chain_match: Some(FilterChainMatch {
                destination_port: Some(port.into()),
                ..Default::default()
            }),
            filters: network_filters::tcp_to(
                cluster_name::BLACK_HOLE,
                Side::Outbound,
                &view.capabilities,
                self.outgoing.policies,
                mesh,
            ),
            ..Default::default()
        };
        chain::resource(&Listener {
            name: NAME.to_owned(),
            address: Some(socket(view.wildcard(), port)),
            additional_addresses: additional(view, port),
            filter_chains: vec![black_hole, self.passthrough("virtualOutbound-catchall-tcp")],
            use_original_dst: Some(true),
            transparent: (view.interception == Interception::Tproxy).then_some(true),
            traffic_direction: TrafficDirection::Outbound as i32,
            access_log: access_log::listener_logs(mesh),
            ..Default::default()
        })
    }
}

/// A chain for a range of addresses, beside HTTP in the same range: Envoy decides by address
/// first and never comes back, so that HTTP and each transport need a chain of their own there.
fn beside(chain: FilterChain, http: &FilterChain) -> Vec<FilterChain> {
    let Some(matched) = chain
        .filter_chain_match
        .clone()
        .filter(|m| !m.prefix_ranges.is_empty() && m.server_names.is_empty())
    else {
        return vec![chain];
    };
    let in_range = |from: &FilterChain, transport: &str, alpn: &[&str]| FilterChain {
        filter_chain_match: Some(FilterChainMatch {
            prefix_ranges: matched.prefix_ranges.clone(),
            ..chain::protocols(transport, alpn)
        }),
        ..from.clone()
    };
    vec![
        in_range(http, RAW, PLAIN_HTTP),
        in_range(&chain, RAW, &[]),
        in_range(&chain, chain::TLS, &[]),
    ]
}

/// Single addresses to bind, and ranges to match, on which clients dial a service.
fn addresses(
    snapshot: &Snapshot,
    view: &ProxyView,
    service: &Service,
    port: &Port,
) -> (Vec<String>, Vec<IpNet>) {
    if service.is_headless() {
        let set = snapshot.endpoints.read(&service.key);
        let mut list: Vec<String> = set
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.service_port == port.name)
            .filter_map(|endpoint| match endpoint.address {
                // A listener on the own address would send the pod's calls to itself in circles.
                EndpointAddress::Ip(address) if !view.addresses.contains(&address) => {
                    Some(address.to_string())
                }
                _ => None,
            })
            .collect();
        list.sort();
        list.dedup();
        return (list, Vec::new());
    }
    let usable = |net: &IpNet| match net {
        IpNet::V4(_) => view.supports_ipv4(),
        IpNet::V6(_) => view.supports_ipv6(),
    };
    let nets: Vec<IpNet> = service
        .virtual_addresses()
        .into_iter()
        .filter(|net| usable(net) && !net.addr().is_unspecified())
        .collect();
    let single = nets
        .iter()
        .filter(|net| is_single(net))
        .map(|net| net.addr().to_string());
    let ranges = nets
        .iter()
        .filter(|net| !is_single(net))
        .map(IpNet::trunc)
        .collect();
    (single.collect(), ranges)
}
