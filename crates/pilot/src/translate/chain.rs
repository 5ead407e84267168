//! Filter chains and listeners as bytes: chains are encoded once and put behind the listener's
//! header fields (`filter_chains` is a repeated field).

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use envoy_api::any::pack;
use envoy_api::listener::listener_filter::ConfigType;
use envoy_api::listener::listener_filter_chain_match_predicate::{MatchSet, Rule};
use envoy_api::listener::{
    FilterChain, FilterChainMatch, Listener, ListenerFilter, ListenerFilterChainMatchPredicate,
};
use envoy_api::types::Int32Range;
use envoy_api::{Resource, ResourceType};
use prost::Message;
use prost_types::Any;
use xxhash_rust::xxh3::xxh3_64;

use crate::cache::Fragment;

/// ALPN that the HTTP inspector finds in plain text.
pub const PLAIN_HTTP: &[&str] = &["http/1.1", "h2c"];
/// ALPN of HTTP in the mesh's mutual TLS.
pub const MESH_HTTP: &[&str] = &["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// ALPN of TCP in the mesh's mutual TLS.
pub const MESH_TCP: &[&str] = &["istio-peer-exchange", "istio"];
/// ALPN of anything in the mesh's mutual TLS.
pub const MESH_ANY: &[&str] = &[
    "istio",
    "istio-peer-exchange",
    "istio-http/1.0",
    "istio-http/1.1",
    "istio-h2",
];

pub const TLS: &str = "tls";
pub const RAW: &str = "raw_buffer";

/// A chain match on transport and application protocols.
pub fn protocols(transport: &str, alpn: &[&str]) -> FilterChainMatch {
    FilterChainMatch {
        transport_protocol: transport.to_owned(),
        application_protocols: alpn.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

/// Envoy takes whole-label wildcards in SNI only, and refuses the listener of any other.
pub fn names_are_valid(chain: &FilterChain) -> bool {
    let valid = |name: &String| !name.strip_prefix("*.").unwrap_or(name).contains('*');
    chain
        .filter_chain_match
        .as_ref()
        .is_none_or(|m| m.server_names.iter().all(valid))
}

/// The chains as one fragment: a listener that has nothing else.
pub fn encode(name: String, chains: Vec<FilterChain>) -> Fragment {
    Fragment::new(
        name,
        &Listener {
            filter_chains: chains,
            ..Default::default()
        },
    )
}

/// The listener's own fields, then its chains.
pub fn assemble(header: &Listener, chains: &[Arc<Fragment>]) -> Resource {
    let mut body = BytesMut::new();
    body.put_slice(&header.encode_to_vec());
    for chain in chains {
        body.put_slice(&chain.body);
    }
    Resource {
        kind: ResourceType::Listener,
        name: header.name.clone(),
        version: format!("{:016x}", xxh3_64(&body)),
        body: body.freeze(),
    }
}

/// A whole listener as a resource.
pub fn resource(listener: &Listener) -> Resource {
    Fragment::new(listener.name.clone(), listener).resource(ResourceType::Listener)
}

fn listener_filter(name: &str, config: Any) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

pub fn original_dst() -> ListenerFilter {
    let config = envoy_api::original_dst::OriginalDst::default();
    listener_filter("envoy.filters.listener.original_dst", pack(&config))
}

/// Keeps the client's address on the way to the application; the mark exempts it from capture.
pub fn original_src() -> ListenerFilter {
    use envoy_api::envoy::extensions::filters::listener::original_src::v3::OriginalSrc;
    let config = OriginalSrc {
        mark: 1337,
        ..Default::default()
    };
    listener_filter("envoy.filters.listener.original_src", pack(&config))
}

pub fn tls_inspector() -> ListenerFilter {
    let config = envoy_api::tls_inspector::TlsInspector::default();
    listener_filter("envoy.filters.listener.tls_inspector", pack(&config))
}

pub fn http_inspector() -> ListenerFilter {
    let config = envoy_api::http_inspector::HttpInspector::default();
    listener_filter("envoy.filters.listener.http_inspector", pack(&config))
}

/// A filter that runs on some destination ports only: `ports` deviate from `default`.
pub fn limited(
    mut filter: ListenerFilter,
    default: bool,
    ports: impl IntoIterator<Item = (u16, bool)>,
) -> Option<ListenerFilter> {
    let mut deviating: Vec<u16> = ports
        .into_iter()
        .filter(|(_, needs)| *needs != default)
        .map(|(port, _)| port)
        .collect();
    deviating.sort_unstable();
    deviating.dedup();
    if deviating.is_empty() {
        return default.then_some(filter);
    }
    let mut rules: Vec<ListenerFilterChainMatchPredicate> =
        deviating.into_iter().map(port_rule).collect();
    let any = if rules.len() == 1 {
        rules.remove(0)
    } else {
        predicate(Rule::OrMatch(MatchSet { rules }))
    };
    let disabled = if default {
        any
    } else {
        predicate(Rule::NotMatch(Box::new(any)))
    };
    filter.filter_disabled = Some(disabled);
    Some(filter)
}

fn predicate(rule: Rule) -> ListenerFilterChainMatchPredicate {
    ListenerFilterChainMatchPredicate { rule: Some(rule) }
}

fn port_rule(port: u16) -> ListenerFilterChainMatchPredicate {
    let start = i32::from(port);
    predicate(Rule::DestinationPortRange(Int32Range {
        start,
        end: start + 1,
    }))
}
