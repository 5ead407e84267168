//! Listener: addresses, listener filters, filter chains with their transport and filters.

use std::sync::Arc;
use std::time::Duration;

use envoy_api::core;
use envoy_api::envoy::extensions::filters::listener as listener_filters;
use envoy_api::listener::{self, listener_filter_chain_match_predicate as when};
use ipnet::IpNet;
use prost_types::Any;

use super::address::{Address, SocketOption, TcpKeepalive};
use super::compat::Message as _;
use super::network_filter::{self, NetworkFilter, Terminal};
use super::tls::DownstreamTls;
use super::{ConfigError, Context, Environment};
use crate::access_log::AccessLog;
use crate::stats::{Group, tables as stats};

#[derive(Debug, Clone)]
pub struct Listener {
    pub name: Arc<str>,
    /// The first is the listener's own; at least one.
    pub addresses: Vec<Address>,
    /// `stat_prefix`, else the address as Envoy writes it in statistics (`0.0.0.0_15006`).
    pub stat_prefix: Arc<str>,
    /// `listener.PREFIX.`
    pub stats: Arc<Group<stats::Listener>>,
    pub bind_to_port: bool,
    pub transparent: bool,
    pub freebind: bool,
    pub socket_options: Vec<SocketOption>,
    pub keepalive: Option<TcpKeepalive>,
    pub backlog: u32,
    pub direction: Direction,
    /// Hand connections to the listener that matches the restored destination.
    pub use_original_dst: bool,
    pub filters: Vec<ListenerFilter>,
    /// `None` = no limit.
    pub filters_timeout: Option<Duration>,
    pub continue_on_filters_timeout: bool,
    pub buffer_limit: usize,
    pub filter_chains: Vec<Arc<FilterChain>>,
    pub default_filter_chain: Option<Arc<FilterChain>>,
    /// Every connection is handed to the worker with the fewest.
    pub ignore_global_connection_limit: bool,
    pub access_logs: Vec<AccessLog>,
    pub metadata: Arc<core::Metadata>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Unspecified,
    Inbound,
    Outbound,
}

#[derive(Debug, Clone)]
pub struct ListenerFilter {
    pub name: Arc<str>,
    pub kind: ListenerFilterKind,
    /// The filter is passed over for connections that match.
    pub disabled: Option<When>,
}

#[derive(Debug, Clone)]
pub enum ListenerFilterKind {
    OriginalDst,
    TlsInspector {
        max_client_hello: usize,
        close_on_parse_error: bool,
    },
    HttpInspector,
    ProxyProtocol {
        allow_without: bool,
        allow_v1: bool,
        allow_v2: bool,
    },
}

/// A condition on the destination port.
#[derive(Debug, Clone)]
pub enum When {
    Any,
    Not(Box<When>),
    AllOf(Vec<When>),
    AnyOf(Vec<When>),
    /// Half open.
    DestinationPort(i32, i32),
}

impl When {
    pub fn holds(&self, port: u16) -> bool {
        match self {
            When::Any => true,
            When::Not(inner) => !inner.holds(port),
            When::AllOf(all) => all.iter().all(|one| one.holds(port)),
            When::AnyOf(any) => any.iter().any(|one| one.holds(port)),
            When::DestinationPort(start, end) => (*start..*end).contains(&i32::from(port)),
        }
    }
}

#[derive(Debug, Clone)]
pub struct FilterChain {
    pub name: Arc<str>,
    pub criteria: FilterChainMatch,
    /// `None`: plain text.
    pub tls: Option<Arc<DownstreamTls>>,
    /// How long the TLS handshake may take; `None` = no limit.
    pub transport_connect_timeout: Option<Duration>,
    pub filters: Vec<NetworkFilter>,
    pub terminal: Terminal,
    pub metadata: Arc<core::Metadata>,
}

/// Envoy's criteria; an empty list means any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilterChainMatch {
    pub destination_port: Option<u16>,
    pub destination: Vec<IpNet>,
    /// Lower case; `*.` first means suffix.
    pub server_names: Vec<String>,
    /// `tls`, `raw_buffer`, or empty for any.
    pub transport_protocol: String,
    pub application_protocols: Vec<Vec<u8>>,
    pub direct_source: Vec<IpNet>,
    pub source_type: SourceType,
    pub source: Vec<IpNet>,
    pub source_ports: Vec<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum SourceType {
    #[default]
    Any,
    SameIpOrLoopback,
    External,
}

fields! {
    listener::Listener {
        read: name, address, additional_addresses, stat_prefix, filter_chains, use_original_dst,
            default_filter_chain, per_connection_buffer_limit_bytes, metadata, deprecated_v1,
            listener_filters, listener_filters_timeout, continue_on_listener_filters_timeout,
            transparent, freebind, socket_options, traffic_direction,
            access_log, tcp_backlog_size, bind_to_port, ignore_global_conn_limit, tcp_keepalive,
            enable_reuse_port, reuse_port;
        reject: connection_balance_config, fcds_config, filter_chain_matcher, udp_listener_config,
            api_listener, enable_mptcp, listener_specifier, stats_matcher;
        ignore: drain_type = "connections of a replaced chain are drained in any case",
            tcp_fast_open_queue_length = "a speed-up of the handshake",
            max_connections_to_accept_per_socket_event = "a tuning of Envoy's event loop",
            bypass_overload_manager = "no overload action concerns single listeners",
            per_connection_buffer_high_watermark_timeout = "buffers are bounded by back pressure";
    }
    listener::AdditionalAddress {
        read: address;
        reject: socket_options, tcp_keepalive;
    }
    listener::FilterChain {
        read: filter_chain_match, filters, transport_socket, transport_socket_connect_timeout,
            name, metadata;
        reject: use_proxy_proto;
    }
    listener::FilterChainMatch {
        read: destination_port, prefix_ranges, direct_source_prefix_ranges, source_type,
            source_prefix_ranges, source_ports, server_names, transport_protocol,
            application_protocols;
        reject: address_suffix, suffix_len;
    }
    listener::Filter { read: name, config_type; }
    listener::ListenerFilter { read: name, filter_disabled, config_type; }
    listener::ListenerFilterChainMatchPredicate { read: rule; }
    listener_filters::tls_inspector::v3::TlsInspector {
        read: close_connection_on_client_hello_parsing_errors, max_client_hello_size;
        reject: enable_ja3_fingerprinting, enable_ja4_fingerprinting;
        ignore: initial_read_buffer_size = "a tuning of memory";
    }
    listener_filters::http_inspector::v3::HttpInspector {}
    listener_filters::original_dst::v3::OriginalDst {}
    listener_filters::proxy_protocol::v3::ProxyProtocol {
        read: allow_requests_without_proxy_protocol, disallowed_versions;
        reject: rules, pass_through_tlvs, stat_prefix, tlv_location;
    }
    core::TransportSocket { read: name, config_type; }
    envoy_api::raw_buffer::RawBuffer {}
}

/// A listener resource.
pub fn listener(
    message: &listener::Listener,
    environment: &Environment,
) -> Result<Listener, ConfigError> {
    let mut context = Context::within(environment);
    let parsed = parse(&mut context, message);
    context.finish(format!("listener '{}'", message.name), parsed)
}

// tidy: long function: one field after another.
pub fn parse(context: &mut Context, message: &listener::Listener) -> Option<Listener> {
    message.check(context);
    let mut addresses: Vec<Address> = context
        .required(
            "address",
            message.address.as_ref(),
            super::address::parse_resolved,
        )
        .into_iter()
        .collect();
    addresses.extend(context.each(
        "additional_addresses",
        &message.additional_addresses,
        |context, one| {
            one.check(context);
            context.required(
                "address",
                one.address.as_ref(),
                super::address::parse_resolved,
            )
        },
    ));
    let filters = context.each(
        "listener_filters",
        &message.listener_filters,
        listener_filter,
    );
    let filter_chains = chains(context, message);
    let default_filter_chain = context.optional(
        "default_filter_chain",
        message.default_filter_chain.as_ref(),
        |context, chain| filter_chain(context, chain).map(Arc::new),
    );
    if filter_chains.is_empty() && default_filter_chain.is_none() && !context.has_problems() {
        context.error(format!(
            "error adding listener '{}': no filter chains specified",
            addresses
                .first()
                .map(Address::to_string)
                .unwrap_or_default()
        ));
    }
    let direction = match context.enumeration("traffic_direction", message.traffic_direction)? {
        core::TrafficDirection::Unspecified => Direction::Unspecified,
        core::TrafficDirection::Inbound => Direction::Inbound,
        core::TrafficDirection::Outbound => Direction::Outbound,
    };
    let bind_to_port = message.bind_to_port.unwrap_or_else(|| {
        message
            .deprecated_v1
            .as_ref()
            .and_then(|one| one.bind_to_port)
            .unwrap_or(true)
    });
    let stat_prefix = if message.stat_prefix.is_empty() {
        addresses
            .first()
            .map(Address::to_string)
            .unwrap_or_default()
    } else {
        message.stat_prefix.clone()
    };
    Some(Listener {
        name: message.name.as_str().into(),
        stats: context
            .environment()
            .stats
            .group(&format!("listener.{}.", stat_prefix.replace(':', "_"))),
        stat_prefix: stat_prefix.replace(':', "_").into(),
        addresses,
        bind_to_port,
        transparent: message.transparent.unwrap_or(false),
        freebind: message.freebind.unwrap_or(false),
        socket_options: context.each(
            "socket_options",
            &message.socket_options,
            super::address::socket_option,
        ),
        keepalive: context.optional(
            "tcp_keepalive",
            message.tcp_keepalive.as_ref(),
            super::address::keepalive,
        ),
        backlog: message.tcp_backlog_size.unwrap_or(4096),
        direction,
        use_original_dst: message.use_original_dst.unwrap_or(false),
        filters,
        filters_timeout: context.timeout(
            "listener_filters_timeout",
            message.listener_filters_timeout.as_ref(),
            Some(Duration::from_secs(15)),
        ),
        continue_on_filters_timeout: message.continue_on_listener_filters_timeout,
        buffer_limit: message.per_connection_buffer_limit_bytes.unwrap_or(1 << 20) as usize,
        filter_chains,
        default_filter_chain,
        ignore_global_connection_limit: message.ignore_global_conn_limit,
        access_logs: crate::access_log::parse_list(context, "access_log", &message.access_log),
        metadata: super::metadata::parse(message.metadata.as_ref()),
    })
}

/// The chains; two with the same criteria are an error, as in Envoy.
fn chains(context: &mut Context, message: &listener::Listener) -> Vec<Arc<FilterChain>> {
    let parsed = context.each("filter_chains", &message.filter_chains, |context, chain| {
        filter_chain(context, chain).map(Arc::new)
    });
    let mut seen: std::collections::HashMap<String, &str> = std::collections::HashMap::new();
    for chain in &parsed {
        let key = format!("{:?}", chain.criteria);
        if let Some(other) = seen.insert(key, &chain.name) {
            context.error_at(
                "filter_chains",
                format!(
                    "error adding listener '{}': filter chain '{}' has the same matching rules \
                 defined as '{other}'",
                    message.name, chain.name
                ),
            );
        }
    }
    parsed
}

fn filter_chain(context: &mut Context, message: &listener::FilterChain) -> Option<FilterChain> {
    if message.use_proxy_proto != Some(false) {
        message.check(context);
    }
    let default = listener::FilterChainMatch::default();
    let given = message.filter_chain_match.as_ref().unwrap_or(&default);
    let criteria = context.field("filter_chain_match", |context| chain_match(context, given));
    let tls = context.optional(
        "transport_socket",
        message.transport_socket.as_ref(),
        |context, one| {
            transport_socket(
                context,
                one,
                |context, any| {
                    let message = context.open::<envoy_api::tls::DownstreamTlsContext>(any)?;
                    super::tls::downstream(context, &message).map(|tls| Some(Arc::new(tls)))
                },
                || None,
            )
        },
    );
    let (filters, terminal) = network_filter::parse_chain(context, &message.filters);
    Some(FilterChain {
        name: message.name.as_str().into(),
        criteria,
        tls: tls.flatten(),
        transport_connect_timeout: context.timeout(
            "transport_socket_connect_timeout",
            message.transport_socket_connect_timeout.as_ref(),
            None,
        ),
        filters,
        terminal: terminal?,
        metadata: super::metadata::parse(message.metadata.as_ref()),
    })
}

fn chain_match(context: &mut Context, message: &listener::FilterChainMatch) -> FilterChainMatch {
    use listener::filter_chain_match::ConnectionSourceType;
    message.check(context);
    let port = |context: &mut Context, name: &str, value: u32| match u16::try_from(value) {
        Ok(port) if port > 0 => Some(port),
        _ => {
            context.error_at(name, "must be between 1 and 65535");
            None
        }
    };
    let source_type = match context.enumeration("source_type", message.source_type) {
        Some(ConnectionSourceType::SameIpOrLoopback) => SourceType::SameIpOrLoopback,
        Some(ConnectionSourceType::External) => SourceType::External,
        Some(ConnectionSourceType::Any) | None => SourceType::Any,
    };
    let mut server_names = Vec::with_capacity(message.server_names.len());
    for name in &message.server_names {
        let partial = name
            .strip_prefix("*.")
            .is_none_or(|rest| rest.contains('*'));
        if name.contains('*') && partial {
            context.error_at(
                "server_names",
                format!("partial wildcards are not supported in \"server_names\": {name}"),
            );
        }
        server_names.push(name.to_ascii_lowercase());
    }
    let cidr = super::address::cidr;
    FilterChainMatch {
        destination_port: message
            .destination_port
            .and_then(|value| port(context, "destination_port", value)),
        destination: context.each("prefix_ranges", &message.prefix_ranges, cidr),
        server_names,
        transport_protocol: message.transport_protocol.clone(),
        application_protocols: message
            .application_protocols
            .iter()
            .map(|name| name.clone().into_bytes())
            .collect(),
        direct_source: context.each(
            "direct_source_prefix_ranges",
            &message.direct_source_prefix_ranges,
            cidr,
        ),
        source_type,
        source: context.each("source_prefix_ranges", &message.source_prefix_ranges, cidr),
        source_ports: context.each("source_ports", &message.source_ports, |context, value| {
            port(context, "source_ports", *value)
        }),
    }
}

/// A transport socket: TLS as `tls` reads it, or plain text.
pub(super) fn transport_socket<T>(
    context: &mut Context,
    message: &core::TransportSocket,
    tls: impl FnOnce(&mut Context, &Any) -> Option<T>,
    raw: impl FnOnce() -> T,
) -> Option<T> {
    message.check(context);
    context.non_empty("name", &message.name);
    let Some(core::transport_socket::ConfigType::TypedConfig(any)) = &message.config_type else {
        if message.name == "envoy.transport_sockets.raw_buffer" {
            return Some(raw());
        }
        context.error_at("typed_config", "is required");
        return None;
    };
    context.field(
        "typed_config",
        |context| match network_filter::config_name(any) {
            "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
            | "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" => tls(context, any),
            "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" => Some(raw()),
            other => {
                context.error(format!("transport socket '{other}' is not supported"));
                None
            }
        },
    )
}

fn listener_filter(
    context: &mut Context,
    message: &listener::ListenerFilter,
) -> Option<ListenerFilter> {
    use listener_filters as l;
    message.check(context);
    context.non_empty("name", &message.name);
    let any = match &message.config_type {
        Some(listener::listener_filter::ConfigType::TypedConfig(any)) => any,
        Some(listener::listener_filter::ConfigType::ConfigDiscovery(_)) => {
            context.error_at("config_discovery", "is not supported");
            return None;
        }
        None => {
            context.error_at("typed_config", "is required");
            return None;
        }
    };
    let kind = context.field(
        "typed_config",
        |context| match network_filter::config_name(any) {
            "envoy.extensions.filters.listener.original_dst.v3.OriginalDst" => {
                context.open::<l::original_dst::v3::OriginalDst>(any)?;
                Some(ListenerFilterKind::OriginalDst)
            }
            "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" => {
                let one = context.open::<l::tls_inspector::v3::TlsInspector>(any)?;
                one.check(context);
                Some(ListenerFilterKind::TlsInspector {
                    max_client_hello: one.max_client_hello_size.unwrap_or(16 << 10) as usize,
                    close_on_parse_error: one.close_connection_on_client_hello_parsing_errors,
                })
            }
            "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector" => {
                context.open::<l::http_inspector::v3::HttpInspector>(any)?;
                Some(ListenerFilterKind::HttpInspector)
            }
            "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol" => {
                let one = context.open::<l::proxy_protocol::v3::ProxyProtocol>(any)?;
                one.check(context);
                Some(ListenerFilterKind::ProxyProtocol {
                    allow_without: one.allow_requests_without_proxy_protocol,
                    allow_v1: !one.disallowed_versions.contains(&0),
                    allow_v2: !one.disallowed_versions.contains(&1),
                })
            }
            other => {
                context.error(format!("listener filter '{other}' is not supported"));
                None
            }
        },
    )?;
    let disabled = context.optional("filter_disabled", message.filter_disabled.as_ref(), when);
    Some(ListenerFilter {
        name: message.name.as_str().into(),
        kind,
        disabled,
    })
}

fn when(
    context: &mut Context,
    message: &listener::ListenerFilterChainMatchPredicate,
) -> Option<When> {
    if context.too_deep() {
        return None;
    }
    match &message.rule {
        Some(when::Rule::AnyMatch(_)) => Some(When::Any),
        Some(when::Rule::NotMatch(inner)) => {
            let inner = context.field("not_match", |context| self::when(context, inner))?;
            Some(When::Not(Box::new(inner)))
        }
        Some(when::Rule::AndMatch(set)) => Some(When::AllOf(context.each(
            "and_match.rules",
            &set.rules,
            self::when,
        ))),
        Some(when::Rule::OrMatch(set)) => Some(When::AnyOf(context.each(
            "or_match.rules",
            &set.rules,
            self::when,
        ))),
        Some(when::Rule::DestinationPortRange(range)) => {
            Some(When::DestinationPort(range.start, range.end))
        }
        None => {
            context.error_at("rule", "is required");
            None
        }
    }
}
