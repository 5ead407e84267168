//! Cluster: discovery, balancing, limits, protocol and transport of an upstream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use envoy_api::cluster::{self, circuit_breakers};
use envoy_api::core;

use super::address::{BindConfig, TcpKeepalive};
use super::compat::Message as _;
use super::config_source::ConfigSource;
use super::endpoint::LoadAssignment;
use super::http_options::{Http1Options, Http2Options, HttpLimits};
use super::tls::UpstreamTls;
use super::{ConfigError, Context};

mod balancing;
mod checks;
mod protocol;

pub use balancing::{HashFunction, LoadBalancing, LocalityMode, Policy, SlowStart};
pub use checks::OutlierDetection;

#[derive(Debug, Clone)]
pub struct Cluster {
    pub name: Arc<str>,
    /// `alt_stat_name`, else the name.
    pub stat_name: Arc<str>,
    pub discovery: Discovery,
    pub connect_timeout: Duration,
    pub buffer_limit: usize,
    pub load_balancing: LoadBalancing,
    pub circuit_breakers: CircuitBreakers,
    pub protocol: UpstreamProtocol,
    pub limits: HttpLimits,
    /// SNI from the request's host.
    pub auto_sni: bool,
    pub auto_san_validation: bool,
    pub override_auto_sni_header: Option<String>,
    pub transport: Transport,
    pub transport_matches: Vec<TransportMatch>,
    pub outlier_detection: Option<OutlierDetection>,
    pub dns: Dns,
    pub bind: Option<BindConfig>,
    pub keepalive: Option<TcpKeepalive>,
    pub metadata: Arc<core::Metadata>,
    /// Hosts of ORIGINAL_DST that were not used for this long are forgotten.
    pub cleanup_interval: Duration,
    /// Istio's TCP metadata exchange towards the upstream.
    pub metadata_exchange: bool,
}

#[derive(Debug, Clone)]
pub enum Discovery {
    Static(Arc<LoadAssignment>),
    StrictDns(Arc<LoadAssignment>),
    LogicalDns(Arc<LoadAssignment>),
    Eds {
        service_name: Arc<str>,
        source: ConfigSource,
    },
    OriginalDst(OriginalDst),
}

#[derive(Debug, Clone, Default)]
pub struct OriginalDst {
    /// The destination is in this request header.
    pub http_header: Option<String>,
    pub port_override: Option<u16>,
}

#[derive(Debug, Clone)]
pub struct Dns {
    pub refresh_rate: Duration,
    pub failure_refresh_base: Duration,
    pub failure_refresh_max: Duration,
    pub family: DnsFamily,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsFamily {
    /// IPv6 where there is one, else IPv4.
    Auto,
    V4Only,
    V6Only,
    V4Preferred,
    All,
}

#[derive(Debug, Clone, Default)]
pub struct CircuitBreakers {
    pub default: Thresholds,
    pub high: Thresholds,
}

impl CircuitBreakers {
    pub fn of(&self, priority: crate::cluster::shared::RoutingPriority) -> &Thresholds {
        match priority {
            crate::cluster::shared::RoutingPriority::Default => &self.default,
            crate::cluster::shared::RoutingPriority::High => &self.high,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds {
    pub max_connections: u32,
    pub max_pending_requests: u32,
    pub max_requests: u32,
    pub max_retries: u32,
    pub retry_budget: Option<RetryBudget>,
    pub track_remaining: bool,
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
            retry_budget: None,
            track_remaining: false,
        }
    }
}

/// Retries as a share of the active requests.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryBudget {
    pub percent: f64,
    pub min_retry_concurrency: u32,
}

#[derive(Debug, Clone)]
pub enum UpstreamProtocol {
    Http1(Http1Options),
    Http2(Http2Options),
    /// The protocol of the downstream connection.
    Downstream {
        http1: Http1Options,
        http2: Http2Options,
    },
    /// By ALPN.
    Auto {
        http1: Http1Options,
        http2: Http2Options,
    },
}

#[derive(Debug, Clone)]
pub enum Transport {
    Raw,
    Tls(Arc<UpstreamTls>),
}

/// Chosen for a host whose `envoy.transport_socket_match` metadata holds all criteria.
#[derive(Debug, Clone)]
pub struct TransportMatch {
    pub name: Arc<str>,
    pub criteria: BTreeMap<String, prost_types::Value>,
    pub transport: Transport,
}

impl Cluster {
    /// The transport for a host with these `envoy.transport_socket_match` values.
    pub fn transport_for(&self, metadata: Option<&core::Metadata>) -> &Transport {
        if self.transport_matches.is_empty() {
            return &self.transport;
        }
        let fields = metadata
            .and_then(|metadata| metadata.filter_metadata.get("envoy.transport_socket_match"));
        let holds = |criteria: &BTreeMap<String, prost_types::Value>| {
            criteria
                .iter()
                .all(|(key, value)| fields.and_then(|fields| fields.fields.get(key)) == Some(value))
        };
        let found = self
            .transport_matches
            .iter()
            .find(|one| holds(&one.criteria));
        found.map_or(&self.transport, |one| &one.transport)
    }
}

fields! {
    cluster::Cluster {
        read: name, alt_stat_name, transport_socket_matches, eds_cluster_config, connect_timeout,
            per_connection_buffer_limit_bytes, lb_policy, load_assignment,
            max_requests_per_connection, circuit_breakers, upstream_http_protocol_options,
            common_http_protocol_options, http_protocol_options, http2_protocol_options,
            typed_extension_protocol_options, dns_refresh_rate,
            dns_failure_refresh_rate, dns_lookup_family, outlier_detection,
            cleanup_interval, upstream_bind_config, common_lb_config, transport_socket, metadata,
            protocol_selection, upstream_connection_options, filters, load_balancing_policy,
            wait_for_warm_on_init, cluster_discovery_type, lb_config;
        reject: health_checks, connection_pool_per_downstream_connection,
            transport_socket_matcher, dns_resolvers, lb_subset_config, lrs_server,
            upstream_config, preconnect_policy, queuing_policies, stats_matcher;
        ignore: dns_jitter = "moves the moment of a look-up only",
            respect_dns_ttl = "the system's resolver tells no time to live",
            close_connections_on_host_health_failure = "health_checks are refused",
            ignore_health_on_host_removal = "health_checks are refused",
            track_timeout_budgets = "additional statistics only",
            use_tcp_for_dns_lookups = "the system's resolver chooses",
            dns_resolution_config = "the system's resolver is used",
            typed_dns_resolver_config = "the system's resolver is used",
            lrs_report_endpoint_metrics = "without effect when lrs_server is refused",
            track_cluster_stats = "additional statistics only",
            per_connection_buffer_high_watermark_timeout = "buffers are bounded by back pressure";
    }
    cluster::CircuitBreakers { read: thresholds; reject: per_host_thresholds; }
    circuit_breakers::Thresholds {
        read: priority, max_connections, max_pending_requests, max_requests, max_retries,
            retry_budget, track_remaining;
        reject: max_connection_pools;
    }
    circuit_breakers::thresholds::RetryBudget {
        read: budget_percent, min_retry_concurrency;
        reject: budget_interval;
    }
    cluster::cluster::EdsClusterConfig { read: eds_config, service_name; }
    cluster::cluster::TransportSocketMatch { read: name, r#match, transport_socket; }
    cluster::cluster::OriginalDstLbConfig {
        read: use_http_header, http_header_name, upstream_port_override;
        reject: metadata_key;
    }
    cluster::cluster::RefreshRate { read: base_interval, max_interval; }
    cluster::UpstreamConnectionOptions {
        read: tcp_keepalive;
        reject: set_local_interface_name_on_upstream_connections;
        ignore: happy_eyeballs_config = "one address per endpoint";
    }
    cluster::Filter { read: name, typed_config; reject: config_discovery; }
}

/// A cluster resource.
pub fn cluster(message: &cluster::Cluster) -> Result<Cluster, ConfigError> {
    let mut context = Context::new();
    let parsed = parse(&mut context, message);
    context.finish(format!("cluster '{}'", message.name), parsed)
}

// tidy: long function: one field after another.
pub fn parse(context: &mut Context, message: &cluster::Cluster) -> Option<Cluster> {
    message.check(context);
    context.non_empty("name", &message.name);
    let discovery = discovery(context, message);
    let connect_timeout = context
        .duration("connect_timeout", message.connect_timeout.as_ref())
        .unwrap_or(Duration::from_secs(5));
    if connect_timeout.is_zero() {
        context.error_at("connect_timeout", "must be greater than 0");
    }
    let load_balancing = balancing::parse(context, message);
    if matches!(discovery, Some(Discovery::OriginalDst(_)))
        != matches!(load_balancing.policy, Policy::ClusterProvided)
    {
        context.error_at(
            "lb_policy",
            "CLUSTER_PROVIDED goes with ORIGINAL_DST and only with it",
        );
    }
    if message.wait_for_warm_on_init == Some(false) {
        context.error_at("wait_for_warm_on_init", "false is not supported");
    }
    let http = protocol::parse(context, message);
    let transport = transport(context, message.transport_socket.as_ref()).unwrap_or(Transport::Raw);
    let transport_matches = context.each(
        "transport_socket_matches",
        &message.transport_socket_matches,
        transport_match,
    );
    let metadata_exchange = upstream_filters(context, &message.filters);
    let keepalive = context.optional(
        "upstream_connection_options",
        message.upstream_connection_options.as_ref(),
        |context, options| {
            options.check(context);
            let keepalive = options.tcp_keepalive.as_ref();
            context.optional("tcp_keepalive", keepalive, super::address::keepalive)
        },
    );
    Some(Cluster {
        name: message.name.as_str().into(),
        stat_name: stat_name(message).into(),
        discovery: discovery?,
        connect_timeout,
        buffer_limit: message.per_connection_buffer_limit_bytes.unwrap_or(1 << 20) as usize,
        load_balancing,
        circuit_breakers: circuit_breakers(context, message.circuit_breakers.as_ref()),
        protocol: http.protocol,
        limits: http.limits,
        auto_sni: http.auto_sni,
        auto_san_validation: http.auto_san_validation,
        override_auto_sni_header: http.override_auto_sni_header,
        transport,
        transport_matches,
        outlier_detection: context.optional(
            "outlier_detection",
            message.outlier_detection.as_ref(),
            checks::outlier_detection,
        ),
        dns: dns(context, message),
        bind: context.optional(
            "upstream_bind_config",
            message.upstream_bind_config.as_ref(),
            super::address::bind_config,
        ),
        keepalive,
        metadata: super::metadata::parse(message.metadata.as_ref()),
        cleanup_interval: context
            .duration("cleanup_interval", message.cleanup_interval.as_ref())
            .unwrap_or(Duration::from_secs(5)),
        metadata_exchange,
    })
}

/// Envoy's cluster name in statistics: colons end a tag in its text formats.
fn stat_name(message: &cluster::Cluster) -> String {
    let name = if message.alt_stat_name.is_empty() {
        &message.name
    } else {
        &message.alt_stat_name
    };
    name.replace(':', "_")
}

// tidy: long function: one arm for each kind of discovery.
fn discovery(context: &mut Context, message: &cluster::Cluster) -> Option<Discovery> {
    use cluster::cluster::{ClusterDiscoveryType, DiscoveryType, LbConfig};
    let kind = match &message.cluster_discovery_type {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(kind)) => context.enumeration("type", *kind)?,
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            context.error_at(
                "cluster_type",
                format!("'{}' is not supported", custom.name),
            );
            return None;
        }
    };
    if kind != DiscoveryType::Eds {
        context.unsupported("eds_cluster_config", &message.eds_cluster_config);
    }
    match kind {
        DiscoveryType::Static => {
            let assignment = assignment(context, message, true)?;
            Some(Discovery::Static(assignment))
        }
        DiscoveryType::StrictDns => {
            let assignment = assignment(context, message, false)?;
            Some(Discovery::StrictDns(assignment))
        }
        DiscoveryType::LogicalDns => {
            let assignment = assignment(context, message, false)?;
            let endpoints: usize = assignment
                .localities
                .iter()
                .map(|one| one.endpoints.len())
                .sum();
            if endpoints != 1 {
                context.error_at(
                    "load_assignment",
                    "LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single \
                     lb_endpoint",
                );
            }
            Some(Discovery::LogicalDns(assignment))
        }
        DiscoveryType::Eds => {
            context.unsupported("load_assignment", &message.load_assignment);
            let config = message.eds_cluster_config.as_ref();
            context.required("eds_cluster_config", config, |context, config| {
                config.check(context);
                let source = context.required(
                    "eds_config",
                    config.eds_config.as_ref(),
                    super::config_source::parse,
                )?;
                let name = &config.service_name;
                let name = if name.is_empty() { &message.name } else { name };
                Some(Discovery::Eds {
                    service_name: name.as_str().into(),
                    source,
                })
            })
        }
        DiscoveryType::OriginalDst => {
            context.unsupported("load_assignment", &message.load_assignment);
            let default = cluster::cluster::OriginalDstLbConfig::default();
            let config = match &message.lb_config {
                Some(LbConfig::OriginalDstLbConfig(config)) => config,
                _ => &default,
            };
            context.field("original_dst_lb_config", |context| {
                original_dst(context, config)
            })
        }
    }
}

fn original_dst(
    context: &mut Context,
    config: &cluster::cluster::OriginalDstLbConfig,
) -> Option<Discovery> {
    config.check(context);
    let header = &config.http_header_name;
    let header = if header.is_empty() {
        "x-envoy-original-dst-host"
    } else {
        header
    };
    let port_override = match config.upstream_port_override.map(u16::try_from) {
        None => None,
        Some(Ok(port)) => Some(port),
        Some(Err(_)) => {
            context.error_at("upstream_port_override", "must be at most 65535");
            None
        }
    };
    let http_header = config.use_http_header.then(|| header.to_ascii_lowercase());
    Some(Discovery::OriginalDst(OriginalDst {
        http_header,
        port_override,
    }))
}

fn assignment(
    context: &mut Context,
    message: &cluster::Cluster,
    resolved: bool,
) -> Option<Arc<LoadAssignment>> {
    use super::address::Address;
    let default = envoy_api::endpoint::ClusterLoadAssignment::default();
    let given = message.load_assignment.as_ref().unwrap_or(&default);
    context.field("load_assignment", |context| {
        let parsed = super::endpoint::parse(context, given)?;
        let endpoints = parsed.localities.iter().flat_map(|one| &one.endpoints);
        for endpoint in endpoints {
            match &endpoint.address {
                Address::Name { host, .. } if resolved => context.error(format!(
                    "malformed IP address: {host}. Consider setting resolver_name or setting \
                     cluster type to 'STRICT_DNS' or 'LOGICAL_DNS'"
                )),
                Address::Pipe { .. } if !resolved => {
                    context.error("DNS clusters must not use addresses of type pipe");
                }
                _ => {}
            }
        }
        Some(Arc::new(parsed))
    })
}

fn circuit_breakers(
    context: &mut Context,
    message: Option<&cluster::CircuitBreakers>,
) -> CircuitBreakers {
    let mut breakers = CircuitBreakers::default();
    context.optional("circuit_breakers", message, |context, message| {
        message.check(context);
        let parsed = context.each("thresholds", &message.thresholds, thresholds);
        // The first entry of a priority counts, as in Envoy.
        for (priority, thresholds) in parsed.into_iter().rev() {
            match priority {
                core::RoutingPriority::Default => breakers.default = thresholds,
                core::RoutingPriority::High => breakers.high = thresholds,
            }
        }
        Some(())
    });
    breakers
}

fn thresholds(
    context: &mut Context,
    message: &circuit_breakers::Thresholds,
) -> Option<(core::RoutingPriority, Thresholds)> {
    message.check(context);
    let priority = context.enumeration("priority", message.priority)?;
    let default = Thresholds::default();
    let retry_budget = context.optional(
        "retry_budget",
        message.retry_budget.as_ref(),
        |context, budget| {
            budget.check(context);
            Some(RetryBudget {
                percent: budget
                    .budget_percent
                    .as_ref()
                    .map_or(20.0, |percent| percent.value),
                min_retry_concurrency: budget.min_retry_concurrency.unwrap_or(3),
            })
        },
    );
    let read = |value: Option<u32>, default: u32| value.unwrap_or(default);
    Some((
        priority,
        Thresholds {
            max_connections: read(message.max_connections, default.max_connections),
            max_pending_requests: read(message.max_pending_requests, default.max_pending_requests),
            max_requests: read(message.max_requests, default.max_requests),
            max_retries: read(message.max_retries, default.max_retries),
            retry_budget,
            track_remaining: message.track_remaining,
        },
    ))
}

fn dns(context: &mut Context, message: &cluster::Cluster) -> Dns {
    use cluster::cluster::DnsLookupFamily;
    let refresh_rate = context
        .duration("dns_refresh_rate", message.dns_refresh_rate.as_ref())
        .unwrap_or(Duration::from_secs(5));
    if refresh_rate < Duration::from_millis(1) {
        context.error_at("dns_refresh_rate", "must be greater than 1ms");
    }
    let mut failure = (refresh_rate, refresh_rate);
    context.optional(
        "dns_failure_refresh_rate",
        message.dns_failure_refresh_rate.as_ref(),
        |context, rate| {
            rate.check(context);
            let base = context.duration("base_interval", rate.base_interval.as_ref());
            let Some(base) = base.filter(|base| *base >= Duration::from_millis(1)) else {
                context.error_at("base_interval", "must be at least 1ms");
                return None;
            };
            let max = context.duration("max_interval", rate.max_interval.as_ref());
            failure = (base, max.unwrap_or(base.saturating_mul(10)));
            if failure.1 < failure.0 {
                context.error("max_interval must be at least base_interval");
            }
            Some(())
        },
    );
    let family = match context.enumeration("dns_lookup_family", message.dns_lookup_family) {
        Some(DnsLookupFamily::V4Only) => DnsFamily::V4Only,
        Some(DnsLookupFamily::V6Only) => DnsFamily::V6Only,
        Some(DnsLookupFamily::V4Preferred) => DnsFamily::V4Preferred,
        Some(DnsLookupFamily::All) => DnsFamily::All,
        Some(DnsLookupFamily::Auto) | None => DnsFamily::Auto,
    };
    Dns {
        refresh_rate,
        failure_refresh_base: failure.0,
        failure_refresh_max: failure.1,
        family,
    }
}

fn transport_match(
    context: &mut Context,
    message: &cluster::cluster::TransportSocketMatch,
) -> Option<TransportMatch> {
    message.check(context);
    context.non_empty("name", &message.name);
    let transport = transport(context, message.transport_socket.as_ref()).unwrap_or(Transport::Raw);
    let criteria = message
        .r#match
        .clone()
        .map(|one| one.fields)
        .unwrap_or_default();
    Some(TransportMatch {
        name: message.name.as_str().into(),
        criteria,
        transport,
    })
}

fn transport(context: &mut Context, message: Option<&core::TransportSocket>) -> Option<Transport> {
    context.optional("transport_socket", message, |context, message| {
        super::listener::transport_socket(
            context,
            message,
            |context, any| {
                let message = context.open::<envoy_api::tls::UpstreamTlsContext>(any)?;
                super::tls::upstream(context, &message).map(|tls| Transport::Tls(Arc::new(tls)))
            },
            || Transport::Raw,
        )
    })
}

/// Upstream network filters; only Istio's metadata exchange exists.
fn upstream_filters(context: &mut Context, filters: &[cluster::Filter]) -> bool {
    let mut metadata_exchange = false;
    context.each("filters", filters, |context, filter| {
        filter.check(context);
        let any = context.required("typed_config", filter.typed_config.as_ref(), |_, any| {
            Some(any.clone())
        })?;
        let name = super::network_filter::config_name(&any);
        if name == super::network_filter::METADATA_EXCHANGE {
            metadata_exchange = true;
        } else {
            context.error(format!(
                "filter '{}' ({name}) is not supported",
                filter.name
            ));
        }
        Some(())
    });
    metadata_exchange
}

pub(crate) fn all_compat_rows() -> Vec<super::compat::MessageSupport> {
    [
        compat_rows(),
        balancing::compat_rows(),
        checks::compat_rows(),
        protocol::compat_rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
