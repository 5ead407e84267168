//! `virtualInbound`: one listener for all captured inbound connections, with filter chains per
//! port and mutual TLS mode (the table of istio.md 2.3).

use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_api::Resource;
use envoy_api::core::{TrafficDirection, TransportSocket};
use envoy_api::listener::{FilterChain, FilterChainMatch, Listener};
use envoy_api::route::route_action::{ClusterSpecifier, MaxStreamDuration};
use envoy_api::route::{Decorator, Route, RouteAction, RouteConfiguration, VirtualHost, route};

use super::chain::{self, MESH_ANY, MESH_HTTP, MESH_TCP, PLAIN_HTTP, RAW, TLS};
use super::http_filters::Side;
use super::inbound::Served;
use super::message::{duration, seconds, socket};
use super::network_filters::{self, Http, Routes};
use super::rbac::RbacFilters;
use super::server_tls::server_tls;
use super::{access_log, route_match, tls_context};
use crate::cache::Fragment;
use crate::cluster_name;
use crate::keys::{FragmentKey, InboundChainKey};
use crate::model::{Interception, Protocol, ProxyView};
use crate::snapshot::{EffectiveMtls, MtlsMode, Snapshot};

const NAME: &str = "virtualInbound";

/// What all chains of one proxy share.
struct Inbound<'a> {
    snapshot: &'a Snapshot,
    view: &'a ProxyView,
    policies: RbacFilters,
    trust_domains: Vec<String>,
}

/// One port's part of the listener.
struct Target<'a> {
    /// `None`: every other port.
    port: Option<u16>,
    name: &'a str,
    http_name: &'a str,
    cluster: &'a str,
    service_port: u16,
    decorator: &'a str,
    stat_prefix: &'a str,
    protocol: Protocol,
    mode: MtlsMode,
    /// A Sidecar's own TLS instead of the mesh's.
    tls: Option<TransportSocket>,
}

/// The inbound listener of a sidecar.
pub fn listener(snapshot: &Snapshot, view: &ProxyView, served: &[Served]) -> Resource {
    let mesh = &snapshot.mesh;
    let entries = snapshot
        .policies
        .authorization(&view.namespace, &view.labels);
    let mut trust_domains = vec![mesh.trust_domain.clone()];
    trust_domains.extend(mesh.trust_domain_aliases.iter().cloned());
    let inbound = Inbound {
        snapshot,
        view,
        policies: RbacFilters::new(&entries, mesh),
        trust_domains,
    };
    let mtls = snapshot.policies.mtls(&view.namespace, &view.labels);
    let listen_port = u16::try_from(mesh.proxy_inbound_listen_port).unwrap_or(15006);
    let revisions: Vec<_> = entries.iter().map(|entry| entry.revision).collect();
    let mut chains = vec![Arc::new(inbound.black_hole(listen_port))];
    chains.push(Arc::new(inbound.passthrough(None, mtls.mode)));
    for (port, mode) in &mtls.ports {
        if *mode != mtls.mode && served.iter().all(|served| served.port != *port) {
            chains.push(Arc::new(inbound.passthrough(Some(*port), *mode)));
        }
    }
    for served in served.iter().filter(|served| served.port != listen_port) {
        let mode = mtls.of_port(served.port);
        let key = inbound.key(served, mode, revisions.clone());
        let fragment = snapshot
            .cache
            .fragment(FragmentKey::InboundChain(Box::new(key)), || {
                Some(inbound.served(served, mode))
            });
        chains.extend(fragment);
    }
    let header = Listener {
        name: NAME.to_owned(),
        address: Some(socket(view.wildcard(), listen_port)),
        additional_addresses: super::listener_outbound::additional(view, listen_port),
        listener_filters: listener_filters(view, served, &mtls),
        transparent: (view.interception == Interception::Tproxy).then_some(true),
        listener_filters_timeout: Some(duration(
            mesh.protocol_detection_timeout.unwrap_or_default(),
        )),
        continue_on_listener_filters_timeout: true,
        traffic_direction: TrafficDirection::Inbound as i32,
        access_log: access_log::listener_logs(mesh),
        ..Default::default()
    };
    chain::assemble(&header, &chains)
}

/// TLS is looked for wherever it may come, HTTP only where plain text is not declared.
fn listener_filters(
    view: &ProxyView,
    served: &[Served],
    mtls: &EffectiveMtls,
) -> Vec<envoy_api::listener::ListenerFilter> {
    let mut tls: BTreeMap<u16, bool> = BTreeMap::new();
    let mut http: BTreeMap<u16, bool> = BTreeMap::new();
    for (port, mode) in &mtls.ports {
        tls.insert(*port, *mode != MtlsMode::Disable);
        http.insert(*port, *mode != MtlsMode::Strict);
    }
    for served in served {
        let mode = mtls.of_port(served.port);
        tls.insert(
            served.port,
            mode != MtlsMode::Disable || served.tls.is_some(),
        );
        http.insert(
            served.port,
            served.protocol.is_auto() && mode != MtlsMode::Strict,
        );
    }
    let mut filters = vec![chain::original_dst()];
    if view.interception == Interception::Tproxy {
        filters.push(chain::original_src());
    }
    let tls_default = mtls.mode != MtlsMode::Disable;
    filters.extend(chain::limited(chain::tls_inspector(), tls_default, tls));
    let http_default = mtls.mode != MtlsMode::Strict;
    filters.extend(chain::limited(chain::http_inspector(), http_default, http));
    filters
}

/// Protocol of a chain and whether the mesh's TLS ends in it.
struct Shape {
    matched: FilterChainMatch,
    http: bool,
    tls: bool,
}

fn shape(transport: &str, alpn: &[&str], http: bool, tls: bool) -> Shape {
    Shape {
        matched: chain::protocols(transport, alpn),
        http,
        tls,
    }
}

/// The table of istio.md 2.3.
fn shapes(protocol: Protocol, mode: MtlsMode) -> Vec<Shape> {
    let auto = protocol.is_auto();
    let http = protocol.is_http();
    match mode {
        MtlsMode::Strict if auto => {
            vec![
                shape(TLS, MESH_HTTP, true, true),
                shape(TLS, &[], false, true),
            ]
        }
        MtlsMode::Strict => vec![shape(TLS, &[], http, true)],
        MtlsMode::Permissive if auto => vec![
            shape(TLS, MESH_HTTP, true, true),
            shape(RAW, PLAIN_HTTP, true, false),
            shape(TLS, MESH_TCP, false, true),
            shape(RAW, &[], false, false),
            shape(TLS, &[], false, false),
        ],
        MtlsMode::Permissive if http => {
            vec![
                shape(TLS, MESH_ANY, true, true),
                shape(RAW, &[], true, false),
            ]
        }
        MtlsMode::Permissive => vec![
            shape(TLS, MESH_ANY, false, true),
            shape(TLS, &[], false, false),
            shape(RAW, &[], false, false),
        ],
        MtlsMode::Disable if auto => {
            vec![
                shape("", PLAIN_HTTP, true, false),
                shape("", &[], false, false),
            ]
        }
        MtlsMode::Disable => vec![shape("", &[], http, false)],
    }
}

impl Inbound<'_> {
    fn key(
        &self,
        served: &Served,
        mtls: MtlsMode,
        policies: Vec<crate::state::Revision>,
    ) -> InboundChainKey {
        InboundChainKey {
            port: served.port,
            name: served.chain_name.clone(),
            cluster: cluster_name::inbound(served.port),
            stat_name: self.stat_prefix(served.port),
            service_port: served.service_port,
            decorator: decorator(served),
            protocol: served.protocol,
            mtls,
            policies,
            sidecar: served.revision,
            mesh: self.snapshot.mesh_revision,
            capabilities: self.view.capabilities.clone(),
            bind: served.bind,
            http10: self.view.http10,
            idle_timeout_ms: self.view.idle_timeout_ms,
        }
    }

    fn stat_prefix(&self, port: u16) -> String {
        format!("inbound_{}_{port};", self.view.wildcard())
    }

    /// Traffic that was sent to the capture port itself would loop.
    fn black_hole(&self, listen_port: u16) -> Fragment {
        let none = RbacFilters::default();
        let chain = FilterChain {
            name: "virtualInbound-blackhole".to_owned(),
            filter_chain_match: Some(FilterChainMatch {
                destination_port: Some(listen_port.into()),
                ..Default::default()
            }),
            filters: network_filters::tcp_to(
                cluster_name::BLACK_HOLE,
                Side::Inbound,
                &self.view.capabilities,
                &none,
                &self.snapshot.mesh,
            ),
            ..Default::default()
        };
        chain::encode(chain.name.clone(), vec![chain])
    }

    fn passthrough(&self, port: Option<u16>, mode: MtlsMode) -> Fragment {
        let target = Target {
            port,
            name: NAME,
            http_name: "virtualInbound-catchall-http",
            cluster: cluster_name::INBOUND_PASSTHROUGH,
            service_port: 0,
            decorator: ":0/*",
            stat_prefix: &self.stat_prefix(port.unwrap_or_default()),
            protocol: Protocol::Auto,
            mode,
            tls: None,
        };
        chain::encode(NAME.to_owned(), self.chains(&target))
    }

    fn served(&self, served: &Served, mode: MtlsMode) -> Fragment {
        let own_tls = served.tls.as_ref().filter(|_| mode == MtlsMode::Disable);
        let target = Target {
            port: Some(served.port),
            name: &served.chain_name,
            http_name: &served.chain_name,
            cluster: &cluster_name::inbound(served.port),
            service_port: served.service_port,
            decorator: &decorator(served),
            stat_prefix: &self.stat_prefix(served.port),
            protocol: served.protocol,
            mode,
            tls: own_tls.map(|tls| server_tls(tls, served.protocol, &self.trust_domains)),
        };
        chain::encode(served.chain_name.clone(), self.chains(&target))
    }

    fn chains(&self, target: &Target<'_>) -> Vec<FilterChain> {
        let shapes = match target.tls {
            // The Sidecar ends TLS itself: HTTPS becomes HTTP behind it.
            Some(_) => vec![shape(TLS, &[], target.protocol == Protocol::Https, true)],
            None => shapes(target.protocol, target.mode),
        };
        shapes
            .into_iter()
            .map(|shape| self.chain(target, shape))
            .collect()
    }

    fn chain(&self, target: &Target<'_>, shape: Shape) -> FilterChain {
        let Shape {
            mut matched,
            http,
            tls,
        } = shape;
        matched.destination_port = target.port.map(u32::from);
        let capabilities = &self.view.capabilities;
        let filters = if http {
            vec![network_filters::http(Http {
                side: Side::Inbound,
                stat_prefix: target.stat_prefix.to_owned(),
                routes: Routes::Inline(Box::new(inline_routes(target))),
                protocol: target.protocol,
                capabilities,
                policies: &self.policies,
                mesh: &self.snapshot.mesh,
                http10: self.view.http10,
                idle_timeout_ms: self.view.idle_timeout_ms,
                peer: None,
            })]
        } else {
            network_filters::tcp_to(
                target.cluster,
                Side::Inbound,
                capabilities,
                &self.policies,
                &self.snapshot.mesh,
            )
        };
        let socket = tls.then(|| {
            target.tls.clone().unwrap_or_else(|| {
                let names = if http {
                    tls_context::ALPN_HTTP
                } else if capabilities.metadata_exchange {
                    tls_context::ALPN_TCP_SERVER
                } else {
                    // Without the filter nobody would read the preamble this name promises.
                    tls_context::ALPN_HTTP
                };
                tls_context::mesh_server(names, &self.trust_domains)
            })
        });
        FilterChain {
            name: if http { target.http_name } else { target.name }.to_owned(),
            filter_chain_match: Some(matched),
            filters,
            transport_socket: socket,
            ..Default::default()
        }
    }
}

/// What traces call requests to the port: its first service.
fn decorator(served: &Served) -> String {
    let host = served
        .services
        .first()
        .map(|service| service.key.hostname.as_str());
    format!("{}:{}/*", host.unwrap_or_default(), served.service_port)
}

/// The one route to the application.
fn inline_routes(target: &Target<'_>) -> RouteConfiguration {
    let mut action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(target.cluster.to_owned())),
        timeout: Some(seconds(0)),
        max_stream_duration: Some(MaxStreamDuration {
            max_stream_duration: Some(seconds(0)),
            grpc_timeout_header_max: Some(seconds(0)),
            ..Default::default()
        }),
        ..Default::default()
    };
    if !target.protocol.is_grpc() {
        // The application may close an idle connection just as a request is sent.
        action.retry_policy = Some(envoy_api::route::RetryPolicy {
            retry_on: "reset-before-request".to_owned(),
            num_retries: Some(2),
            ..Default::default()
        });
    }
    let route = Route {
        name: "default".to_owned(),
        r#match: Some(route_match::all()),
        decorator: Some(Decorator {
            operation: target.decorator.to_owned(),
            propagate: None,
        }),
        action: Some(route::Action::Route(action)),
        ..Default::default()
    };
    RouteConfiguration {
        name: target.cluster.to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: format!("inbound|http|{}", target.service_port),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..Default::default()
        }],
        validate_clusters: Some(false),
        ..Default::default()
    }
}
