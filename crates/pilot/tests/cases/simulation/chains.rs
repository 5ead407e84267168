//! Listener and filter chain of a call, in Envoy's order of matching.

use std::net::IpAddr;

use envoy_api::core::{CidrRange, address, socket_address, transport_socket};
use envoy_api::hcm::HttpConnectionManager;
use envoy_api::hcm::http_connection_manager::RouteSpecifier;
use envoy_api::listener::listener_filter_chain_match_predicate::Rule;
use envoy_api::listener::{
    FilterChain, FilterChainMatch, Listener, ListenerFilterChainMatchPredicate, filter,
};
use envoy_api::tcp_proxy::{TcpProxy, tcp_proxy};
use envoy_api::tls::DownstreamTlsContext;
use serde_json::Value;

use super::{Configured, Outcome, routes};

/// A call with its defaults filled in.
struct Call {
    address: IpAddr,
    port: u16,
    path: String,
    host: String,
    sni: String,
    http: bool,
    tls: Tls,
    alpn: Option<String>,
    inbound: bool,
    secret: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Tls {
    Plain,
    Simple,
    Mutual,
}

impl Call {
    fn read(call: &Value) -> Self {
        let text = |key: &str| call[key].as_str().map(str::to_owned);
        let protocol = text("protocol").unwrap_or_default();
        let tls = match call["tls"].as_str() {
            Some("tls") => Tls::Simple,
            Some("mtls") => Tls::Mutual,
            _ => Tls::Plain,
        };
        let default = match (tls, protocol.as_str()) {
            (Tls::Mutual, "http") => Some("istio-http/1.1"),
            (Tls::Mutual, "http2") => Some("istio-h2"),
            (Tls::Mutual, _) => Some("istio"),
            (Tls::Simple, "http") => Some("http/1.1"),
            (Tls::Simple, "http2") => Some("h2"),
            _ => None,
        };
        let host = text("host").unwrap_or_default();
        let sni = text("sni").unwrap_or_else(|| {
            if tls == Tls::Plain {
                String::new()
            } else {
                host.clone()
            }
        });
        Self {
            address: text("address")
                .as_deref()
                .unwrap_or("1.3.3.7")
                .parse()
                .unwrap(),
            port: call["port"].as_u64().unwrap_or_default() as u16,
            path: text("path").unwrap_or_else(|| "/".to_owned()),
            host,
            sni,
            http: protocol.starts_with("http"),
            tls,
            alpn: text("alpn").or(default.map(str::to_owned)),
            inbound: call["mode"] == "inbound",
            secret: text("mtlsSecretName").unwrap_or_else(|| "default".to_owned()),
        }
    }
}

/// Sends one call through the generated configuration.
pub fn simulate(configured: &Configured, call: &Value) -> Outcome {
    let http2 = call["protocol"] == "http2";
    let mut call = Call::read(call);
    let mut outcome = Outcome::default();
    let Some(listener) = find_listener(configured, &call) else {
        outcome.error = Some("no listener matched");
        return outcome;
    };
    outcome.listener.clone_from(&listener.name);
    if call.tls == Tls::Plain {
        let seen = has_filter(listener, "envoy.filters.listener.http_inspector", call.port);
        let name = if http2 { "h2c" } else { "http/1.1" };
        call.alpn = (call.http && seen).then(|| name.to_owned());
    } else if !has_filter(listener, "envoy.filters.listener.tls_inspector", call.port) {
        call.alpn = None;
    }
    let chain = match find_chain(listener, &call) {
        Ok(chain) => chain,
        Err(error) => {
            outcome.error = Some(error);
            return outcome;
        }
    };
    outcome.chain.clone_from(&chain.name);
    let context = tls_context(chain);
    if context.is_some() && call.tls == Tls::Plain {
        outcome.error = Some("invalid TLS");
        return outcome;
    }
    if let Some(context) = &context
        && is_mutual(context, &call.secret) != (call.tls == Tls::Mutual)
    {
        outcome.error = Some("invalid mTLS");
        return outcome;
    }
    if let Some(manager) = unpack::<HttpConnectionManager>(chain) {
        if (context.is_none() && call.tls != Tls::Plain) || !call.http {
            outcome.error = Some("protocol error");
            return outcome;
        }
        let table = match manager.route_specifier {
            Some(RouteSpecifier::Rds(rds)) => {
                outcome.route_config.clone_from(&rds.route_config_name);
                configured.tables.get(&rds.route_config_name).cloned()
            }
            Some(RouteSpecifier::RouteConfig(table)) => Some(table),
            _ => None,
        };
        let plain = call.tls == Tls::Plain;
        routes::follow(table.as_ref(), &call.host, &call.path, plain, &mut outcome);
    } else if let Some(proxy) = unpack::<TcpProxy>(chain)
        && let Some(tcp_proxy::ClusterSpecifier::Cluster(cluster)) = proxy.cluster_specifier
    {
        outcome.cluster = cluster;
    }
    outcome
}

fn find_listener<'a>(configured: &'a Configured, call: &Call) -> Option<&'a Listener> {
    let named = |name: &str| configured.listeners.iter().find(|l| l.name == name);
    if call.inbound {
        return named("virtualInbound");
    }
    let bound = |host: &str| {
        configured.listeners.iter().find(|listener| {
            matches!(&listener.address, Some(envoy_api::core::Address {
                address: Some(address::Address::SocketAddress(socket)),
            }) if socket.address == host && socket.port_specifier
                == Some(socket_address::PortSpecifier::PortValue(call.port.into())))
        })
    };
    bound(&call.address.to_string())
        .or_else(|| bound("0.0.0.0"))
        .or_else(|| named("virtualOutbound").filter(|_| !configured.router))
}

fn has_filter(listener: &Listener, name: &str, port: u16) -> bool {
    listener.listener_filters.iter().any(|filter| {
        filter.name == name
            && !filter
                .filter_disabled
                .as_ref()
                .is_some_and(|p| holds(p, port))
    })
}

fn holds(predicate: &ListenerFilterChainMatchPredicate, port: u16) -> bool {
    match &predicate.rule {
        Some(Rule::OrMatch(set)) => set.rules.iter().any(|rule| holds(rule, port)),
        Some(Rule::AndMatch(set)) => set.rules.iter().all(|rule| holds(rule, port)),
        Some(Rule::NotMatch(rule)) => !holds(rule, port),
        Some(Rule::AnyMatch(any)) => *any,
        Some(Rule::DestinationPortRange(range)) => {
            (range.start..range.end).contains(&i32::from(port))
        }
        None => false,
    }
}

/// Step by step, as Envoy does: what a step leaves over is never looked at again.
fn find_chain<'a>(listener: &'a Listener, call: &Call) -> Result<&'a FilterChain, &'static str> {
    let none = FilterChainMatch::default();
    let of = |chain: &'a FilterChain| (chain, chain.filter_chain_match.clone().unwrap_or_default());
    let mut chains: Vec<_> = listener.filter_chains.iter().map(of).collect();
    let _ = none;
    narrow(
        &mut chains,
        |m| m.destination_port.is_none(),
        |m| m.destination_port == Some(call.port.into()),
    );
    let longest = chains
        .iter()
        .flat_map(|(_, m)| &m.prefix_ranges)
        .filter(|range| contains(range, call.address))
        .map(prefix)
        .max();
    narrow(
        &mut chains,
        |m| m.prefix_ranges.is_empty(),
        |m| {
            m.prefix_ranges
                .iter()
                .any(|r| contains(r, call.address) && Some(prefix(r)) == longest)
        },
    );
    let mut wanted = vec![call.sni.clone()];
    let mut rest = call.sni.as_str();
    while let Some((_, parent)) = rest.split_once('.') {
        wanted.push(format!("*.{parent}"));
        rest = parent;
    }
    let name = wanted
        .into_iter()
        .find(|name| !name.is_empty() && chains.iter().any(|(_, m)| m.server_names.contains(name)));
    narrow(
        &mut chains,
        |m| m.server_names.is_empty(),
        |m| {
            name.as_ref()
                .is_some_and(|name| m.server_names.contains(name))
        },
    );
    let transport = if call.tls == Tls::Plain {
        "raw_buffer"
    } else {
        "tls"
    };
    narrow(
        &mut chains,
        |m| m.transport_protocol.is_empty(),
        |m| m.transport_protocol == transport,
    );
    narrow(
        &mut chains,
        |m| m.application_protocols.is_empty(),
        |m| {
            call.alpn
                .as_ref()
                .is_some_and(|alpn| m.application_protocols.contains(alpn))
        },
    );
    match chains.as_slice() {
        [(only, _)] => Ok(only),
        [] => listener
            .default_filter_chain
            .as_ref()
            .ok_or("no filter chains matched"),
        _ => Err("multiple filter chains matched"),
    }
}

/// Those that ask for exactly this, else those that ask for nothing.
fn narrow(
    chains: &mut Vec<(&FilterChain, FilterChainMatch)>,
    any: impl Fn(&FilterChainMatch) -> bool,
    exact: impl Fn(&FilterChainMatch) -> bool,
) {
    let found = chains.iter().any(|(_, m)| exact(m));
    chains.retain(|(_, m)| if found { exact(m) } else { any(m) });
}

fn contains(range: &CidrRange, address: IpAddr) -> bool {
    let net: ipnet::IpNet = format!("{}/{}", range.address_prefix, prefix(range))
        .parse()
        .unwrap();
    net.contains(&address)
}

fn prefix(range: &CidrRange) -> u32 {
    range.prefix_len.unwrap_or_default()
}

fn tls_context(chain: &FilterChain) -> Option<DownstreamTlsContext> {
    match chain.transport_socket.as_ref()?.config_type.as_ref()? {
        transport_socket::ConfigType::TypedConfig(any) => envoy_api::any::unpack(any).ok(),
    }
}

fn is_mutual(context: &DownstreamTlsContext, secret: &str) -> bool {
    let common = context.common_tls_context.clone().unwrap_or_default();
    context.require_client_certificate.unwrap_or(false)
        && common
            .tls_certificate_sds_secret_configs
            .iter()
            .any(|config| config.name == secret)
}

fn unpack<M: prost::Message + prost::Name + Default>(chain: &FilterChain) -> Option<M> {
    chain
        .filters
        .iter()
        .find_map(|filter| match &filter.config_type {
            Some(filter::ConfigType::TypedConfig(any)) => envoy_api::any::unpack(any).ok(),
            _ => None,
        })
}
