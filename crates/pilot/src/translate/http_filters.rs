//! The HTTP filters of a connection manager. The position in `build` IS the order
//! (istio.md 2.3); a filter that the node did not announce is not emitted.

use envoy_api::any::pack;
use envoy_api::hcm::{HttpFilter, http_filter};
use envoy_api::istio::{alpn, peer_metadata, stats};
use prost_types::Any;

use super::peer_headers::{self, PeerHeaders};
use super::rbac::RbacFilters;
use super::route_filters::{CORS, FAULT};
use crate::model::{Capabilities, Protocol};

/// Which side of the mesh a connection manager serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Inbound,
    Outbound,
    Gateway,
}

pub fn build(
    side: Side,
    capabilities: &Capabilities,
    policies: &RbacFilters,
    protocol: Protocol,
    peer: Option<&PeerHeaders>,
) -> Vec<HttpFilter> {
    let mut filters = Vec::new();
    if capabilities.metadata_exchange {
        filters.push(filter(
            "istio.metadata_exchange",
            pack(&peer_metadata(side)),
        ));
    } else if capabilities.has(peer_headers::FILTER) {
        // A stock Envoy has no such filter: it announces itself by plain headers.
        let mutation = peer_headers::mutation(peer.filter(|_| side != Side::Inbound));
        filters.push(filter(peer_headers::FILTER, pack(&mutation)));
    }
    filters.extend(policies.http());
    if protocol == Protocol::GrpcWeb && capabilities.has("envoy.filters.http.grpc_web") {
        use envoy_api::envoy::extensions::filters::http::grpc_web::v3::GrpcWeb;
        filters.push(filter("envoy.filters.http.grpc_web", pack(&GrpcWeb {})));
    }
    if capabilities.has("envoy.filters.http.grpc_stats") {
        filters.push(filter("envoy.filters.http.grpc_stats", pack(&grpc_stats())));
    }
    if side != Side::Inbound && capabilities.alpn {
        filters.push(filter("istio.alpn", pack(&alpn_override())));
    }
    filters.push(filter(FAULT, pack(&envoy_api::fault::HttpFault::default())));
    filters.push(filter(CORS, pack(&envoy_api::cors::Cors {})));
    if capabilities.stats {
        let config = stats::PluginConfig {
            disable_host_header_fallback: side != Side::Outbound,
            ..Default::default()
        };
        filters.push(filter("istio.stats", pack(&config)));
    }
    filters.push(filter(
        "envoy.filters.http.router",
        pack(&envoy_api::router::Router::default()),
    ));
    filters
}

fn filter(name: &str, config: Any) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

fn grpc_stats() -> envoy_api::grpc_stats::FilterConfig {
    use envoy_api::grpc_stats::{FilterConfig, filter_config::PerMethodStatSpecifier};
    FilterConfig {
        emit_filter_state: true,
        per_method_stat_specifier: Some(PerMethodStatSpecifier::StatsForAllMethods(false)),
        ..Default::default()
    }
}

/// Peers tell who they are by headers: the server reads and answers, the client asks.
fn peer_metadata(side: Side) -> peer_metadata::Config {
    use peer_metadata::config::{
        DiscoveryMethod, IstioHeaders, PropagationMethod,
        discovery_method::MethodSpecifier as Find, propagation_method::MethodSpecifier as Tell,
    };
    let find = vec![DiscoveryMethod {
        method_specifier: Some(Find::IstioHeaders(IstioHeaders::default())),
    }];
    let tell = vec![PropagationMethod {
        method_specifier: Some(Tell::IstioHeaders(IstioHeaders::default())),
    }];
    match side {
        Side::Inbound => peer_metadata::Config {
            downstream_discovery: find,
            downstream_propagation: tell,
            ..Default::default()
        },
        Side::Outbound | Side::Gateway => peer_metadata::Config {
            upstream_discovery: find,
            upstream_propagation: tell,
            ..Default::default()
        },
    }
}

fn alpn_override() -> alpn::FilterConfig {
    use alpn::filter_config::{AlpnOverride, Protocol};
    let entry = |protocol: Protocol, names: [&str; 3]| AlpnOverride {
        upstream_protocol: protocol as i32,
        alpn_override: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    alpn::FilterConfig {
        alpn_override: vec![
            entry(Protocol::Http10, ["istio-http/1.0", "istio", "http/1.0"]),
            entry(Protocol::Http11, ["istio-http/1.1", "istio", "http/1.1"]),
            entry(Protocol::Http2, ["istio-h2", "istio", "h2"]),
        ],
    }
}
