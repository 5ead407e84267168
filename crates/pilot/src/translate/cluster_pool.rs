//! Connection pool, circuit breakers, outlier detection and HTTP options of a cluster.

use std::time::Duration;

use envoy_api::any::pack;
use envoy_api::cluster::{
    CircuitBreakers, Cluster, OutlierDetection, UpstreamConnectionOptions, circuit_breakers,
    cluster::CommonLbConfig,
};
use envoy_api::core::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as Common, KeepaliveSettings,
    TcpKeepalive, UpstreamHttpProtocolOptions,
};
use envoy_api::http_protocol_options::HttpProtocolOptions;
use envoy_api::http_protocol_options::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
    explicit_http_config::ProtocolConfig,
};
use envoy_api::types::Percent;
use mesh_api::kinds::connection_pool::{
    ConnectionPoolSettings, H2UpgradePolicy, HttpSettings, TcpKeepalive as WrittenKeepalive,
};
use mesh_api::kinds::outlier_detection::OutlierDetection as WrittenOutlier;
use mesh_api::kinds::traffic_policy::RetryBudget;
use mesh_api::mesh_config::{MeshConfig, MeshH2UpgradePolicy};

use super::message::duration;
use crate::model::Protocol;

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// A limit, where 0 means "not set".
fn limit(value: i32) -> u32 {
    u32::try_from(value)
        .ok()
        .filter(|value| *value > 0)
        .unwrap_or(u32::MAX)
}

fn positive(value: i32) -> Option<u32> {
    u32::try_from(value).ok().filter(|value| *value > 0)
}

/// Nothing is limited unless a rule says so: Envoy's own default of 1024 would surprise.
pub fn circuit_breakers(
    pool: Option<&ConnectionPoolSettings>,
    budget: Option<&RetryBudget>,
) -> CircuitBreakers {
    let tcp = pool.and_then(|pool| pool.tcp.as_ref());
    let http = pool.and_then(|pool| pool.http.as_ref());
    let retry_budget = budget.map(|budget| circuit_breakers::thresholds::RetryBudget {
        budget_percent: budget.percent.map(|value| Percent { value }),
        min_retry_concurrency: (budget.min_retry_concurrency > 0)
            .then_some(budget.min_retry_concurrency),
        budget_interval: budget.budget_interval.map(duration),
    });
    let thresholds = circuit_breakers::Thresholds {
        max_connections: Some(tcp.map_or(u32::MAX, |tcp| limit(tcp.max_connections))),
        max_pending_requests: Some(
            http.map_or(u32::MAX, |http| limit(http.http1_max_pending_requests)),
        ),
        max_requests: Some(http.map_or(u32::MAX, |http| limit(http.http2_max_requests))),
        max_retries: Some(http.map_or(u32::MAX, |http| limit(http.max_retries))),
        retry_budget,
        ..Default::default()
    };
    CircuitBreakers {
        thresholds: vec![thresholds],
        ..Default::default()
    }
}

/// Timeouts, keepalive and limits of the pool.
pub fn apply_pool(cluster: &mut Cluster, pool: Option<&ConnectionPoolSettings>, mesh: &MeshConfig) {
    let tcp = pool.and_then(|pool| pool.tcp.as_ref());
    let connect = tcp.and_then(|tcp| tcp.connect_timeout);
    let default = mesh.connect_timeout.unwrap_or(Duration::from_secs(10));
    cluster.connect_timeout = Some(duration(connect.unwrap_or(default)));
    let keepalive = tcp.and_then(|tcp| tcp.tcp_keepalive.as_ref());
    if let Some(keepalive) = keepalive.or(mesh.tcp_keepalive.as_ref()) {
        cluster.upstream_connection_options = Some(UpstreamConnectionOptions {
            tcp_keepalive: Some(tcp_keepalive(keepalive)),
            ..Default::default()
        });
    }
}

fn tcp_keepalive(written: &WrittenKeepalive) -> TcpKeepalive {
    let seconds = |value: Option<Duration>| {
        value
            .and_then(|value| u32::try_from(value.as_secs()).ok())
            .filter(|value| *value > 0)
    };
    TcpKeepalive {
        keepalive_probes: (written.probes > 0).then_some(written.probes),
        keepalive_time: seconds(written.time),
        keepalive_interval: seconds(written.interval),
    }
}

/// The protocol spoken upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upstream {
    Http1,
    Http2,
    /// Whatever the client spoke.
    Downstream,
}

impl Upstream {
    pub fn choose(
        protocol: Protocol,
        http: Option<&HttpSettings>,
        router: bool,
        mesh: &MeshConfig,
    ) -> Self {
        if protocol.is_http2() {
            return Self::Http2;
        }
        if http.is_some_and(|http| http.use_client_protocol) {
            return Self::Downstream;
        }
        let written = http.map(|http| http.h2_upgrade_policy).unwrap_or_default();
        let upgrade = match written {
            H2UpgradePolicy::Upgrade => true,
            H2UpgradePolicy::DoNotUpgrade => false,
            H2UpgradePolicy::Default => mesh.h2_upgrade_policy == MeshH2UpgradePolicy::Upgrade,
        };
        match protocol {
            Protocol::Http if upgrade => Self::Http2,
            Protocol::Auto if !router => Self::Downstream,
            _ => Self::Http1,
        }
    }
}

/// Writes the HTTP options that `upstream` and the pool ask for.
pub fn apply_http(
    cluster: &mut Cluster,
    upstream: Upstream,
    pool: Option<&ConnectionPoolSettings>,
    sni: Option<UpstreamHttpProtocolOptions>,
) {
    let http = pool.and_then(|pool| pool.http.as_ref());
    let tcp = pool.and_then(|pool| pool.tcp.as_ref());
    let common = Common {
        idle_timeout: http.and_then(|http| http.idle_timeout).map(duration),
        max_requests_per_connection: http
            .and_then(|http| positive(http.max_requests_per_connection)),
        max_connection_duration: tcp
            .and_then(|tcp| tcp.max_connection_duration)
            .map(duration),
        ..Default::default()
    };
    let common = Some(common).filter(|common| *common != Common::default());
    if upstream == Upstream::Http1 && common.is_none() && sni.is_none() {
        return;
    }
    let http2 = Http2ProtocolOptions {
        max_concurrent_streams: http.and_then(|http| positive(http.max_concurrent_streams)),
        connection_keepalive: http
            .and_then(|http| http.http2_keep_alive.as_ref())
            .map(|alive| KeepaliveSettings {
                interval: alive.interval.map(duration),
                timeout: alive.timeout.map(duration),
                ..Default::default()
            }),
        ..Default::default()
    };
    let http1 = Http1ProtocolOptions::default();
    let explicit = |config| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(config),
        })
    };
    let protocol = match upstream {
        Upstream::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(http1)),
        Upstream::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2)),
        Upstream::Downstream => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(http1),
                http2_protocol_options: Some(http2),
                ..Default::default()
            })
        }
    };
    let options = HttpProtocolOptions {
        common_http_protocol_options: common,
        upstream_http_protocol_options: sni,
        upstream_protocol_options: Some(protocol),
        ..Default::default()
    };
    cluster
        .typed_extension_protocol_options
        .insert(HTTP_OPTIONS.to_owned(), pack(&options));
}

/// Ejection of failing endpoints, and the panic threshold that goes with it.
pub fn apply_outlier(cluster: &mut Cluster, written: Option<&WrittenOutlier>) {
    let Some(written) = written else { return };
    let percent = f64::from(written.min_health_percent.max(0));
    let mut outlier = OutlierDetection {
        interval: written.interval.map(duration),
        base_ejection_time: written.base_ejection_time.map(duration),
        max_ejection_percent: positive(written.max_ejection_percent),
        enforcing_success_rate: Some(0),
        split_external_local_origin_errors: written.split_external_local_origin_errors,
        ..Default::default()
    };
    let deprecated = positive(written.consecutive_errors);
    if let Some(count) = written.consecutive_5xx_errors.or(deprecated) {
        outlier.consecutive_5xx = (count > 0).then_some(count);
        outlier.enforcing_consecutive_5xx = Some(if count > 0 { 100 } else { 0 });
    }
    if let Some(count) = written.consecutive_gateway_errors {
        outlier.consecutive_gateway_failure = (count > 0).then_some(count);
        outlier.enforcing_consecutive_gateway_failure = Some(if count > 0 { 100 } else { 0 });
    }
    if written.split_external_local_origin_errors {
        let count = written
            .consecutive_local_origin_failures
            .unwrap_or_default();
        outlier.consecutive_local_origin_failure = (count > 0).then_some(count);
        outlier.enforcing_consecutive_local_origin_failure = Some(if count > 0 { 100 } else { 0 });
        outlier.enforcing_local_origin_success_rate = Some(0);
    }
    cluster.outlier_detection = Some(outlier);
    let common = cluster
        .common_lb_config
        .get_or_insert_with(CommonLbConfig::default);
    common.healthy_panic_threshold = Some(Percent { value: percent });
}
