//! Network filters: the connection manager, the TCP proxy, and what stands before them.

use envoy_api::any::pack;
use envoy_api::core::{Http1ProtocolOptions, HttpProtocolOptions};
use envoy_api::hcm::http_connection_manager::{
    CodecType, ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier,
    ServerHeaderTransformation, SetCurrentClientCertDetails, UpgradeConfig,
};
use envoy_api::hcm::{HttpConnectionManager, Rds};
use envoy_api::listener::{Filter, filter};
use envoy_api::route::RouteConfiguration;
use envoy_api::tcp_proxy::{TcpProxy, tcp_proxy};
use mesh_api::mesh_config::{MeshConfig, NormalizationType};
use prost_types::Any;

use super::access_log;
use super::http_filters::{self, Side};
use super::message::{ads, duration, seconds};
use super::peer_headers::PeerHeaders;
use super::rbac::RbacFilters;
use crate::cluster_name::Outbound;
use crate::model::{Capabilities, Protocol};

/// Where a connection manager finds its routes.
pub enum Routes {
    Table(String),
    Inline(Box<RouteConfiguration>),
}

/// What shapes one connection manager.
pub struct Http<'a> {
    pub side: Side,
    pub stat_prefix: String,
    pub routes: Routes,
    pub protocol: Protocol,
    pub capabilities: &'a Capabilities,
    pub policies: &'a RbacFilters,
    pub mesh: &'a MeshConfig,
    pub http10: bool,
    pub idle_timeout_ms: Option<u64>,
    /// How the proxy introduces itself where it has no filter for that.
    pub peer: Option<&'a PeerHeaders>,
}

fn named(name: &str, config: Any) -> Filter {
    Filter {
        name: name.to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(config)),
    }
}

/// The HTTP connection manager.
pub fn http(options: Http<'_>) -> Filter {
    let Http { side, mesh, .. } = options;
    let gateway = side == Side::Gateway;
    let normalization = mesh.path_normalization.normalization;
    let merges = matches!(
        normalization,
        NormalizationType::MergeSlashes | NormalizationType::DecodeAndMergeSlashes
    );
    let escaped = if normalization == NormalizationType::DecodeAndMergeSlashes {
        PathWithEscapedSlashesAction::UnescapeAndForward
    } else {
        PathWithEscapedSlashesAction::KeepUnchanged
    };
    let idle = options
        .idle_timeout_ms
        .map(std::time::Duration::from_millis);
    let (forward, details) = client_certificate(side);
    let http1 = options.http10.then(|| Http1ProtocolOptions {
        accept_http_10: true,
        ..Default::default()
    });
    let manager = HttpConnectionManager {
        codec_type: CodecType::Auto as i32,
        stat_prefix: options.stat_prefix,
        http_filters: http_filters::build(
            side,
            options.capabilities,
            options.policies,
            options.protocol,
            options.peer,
        ),
        common_http_protocol_options: idle.map(|idle| HttpProtocolOptions {
            idle_timeout: Some(duration(idle)),
            ..Default::default()
        }),
        http_protocol_options: http1,
        server_name: if side == Side::Outbound {
            ""
        } else {
            "istio-envoy"
        }
        .to_owned(),
        server_header_transformation: ServerHeaderTransformation::Overwrite as i32,
        stream_idle_timeout: Some(seconds(0)),
        access_log: access_log::logs(mesh),
        use_remote_address: Some(gateway),
        generate_request_id: Some(true),
        forward_client_cert_details: forward as i32,
        set_current_client_cert_details: details,
        proxy_100_continue: true,
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..Default::default()
        }],
        normalize_path: Some(normalization != NormalizationType::None),
        merge_slashes: merges,
        path_with_escaped_slashes_action: escaped as i32,
        route_specifier: Some(route_specifier(options.routes)),
        ..Default::default()
    };
    named(
        "envoy.filters.network.http_connection_manager",
        pack(&manager),
    )
}

fn route_specifier(routes: Routes) -> RouteSpecifier {
    match routes {
        Routes::Table(name) => RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: name,
        }),
        Routes::Inline(table) => RouteSpecifier::RouteConfig(*table),
    }
}

fn client_certificate(
    side: Side,
) -> (
    ForwardClientCertDetails,
    Option<SetCurrentClientCertDetails>,
) {
    let details = |cert| SetCurrentClientCertDetails {
        subject: Some(true),
        cert,
        dns: true,
        uri: true,
        ..Default::default()
    };
    match side {
        Side::Inbound => (
            ForwardClientCertDetails::AppendForward,
            Some(details(false)),
        ),
        Side::Gateway => (ForwardClientCertDetails::SanitizeSet, Some(details(true))),
        Side::Outbound => (ForwardClientCertDetails::Sanitize, None),
    }
}

/// What shapes one TCP proxy.
pub struct Tcp<'a> {
    pub side: Side,
    pub stat_prefix: String,
    /// Weighted when there is more than one.
    pub clusters: Vec<(String, u32)>,
    pub capabilities: &'a Capabilities,
    pub policies: &'a RbacFilters,
    pub mesh: &'a MeshConfig,
    pub idle_timeout: Option<std::time::Duration>,
}

/// All filters of a TCP chain.
pub fn tcp(options: Tcp<'_>) -> Vec<Filter> {
    let mut filters = Vec::new();
    if options.capabilities.metadata_exchange && options.side == Side::Inbound {
        let config = envoy_api::istio::MetadataExchange {
            protocol: "istio-peer-exchange".to_owned(),
            ..Default::default()
        };
        filters.push(named("istio.metadata_exchange", pack(&config)));
    }
    filters.extend(options.policies.network());
    if options.capabilities.stats {
        let config = envoy_api::istio::stats::PluginConfig {
            disable_host_header_fallback: options.side != Side::Outbound,
            ..Default::default()
        };
        filters.push(named("istio.stats", pack(&config)));
    }
    let specifier = match options.clusters.as_slice() {
        [(only, _)] => tcp_proxy::ClusterSpecifier::Cluster(only.clone()),
        many => tcp_proxy::ClusterSpecifier::WeightedClusters(tcp_proxy::WeightedCluster {
            clusters: many
                .iter()
                .map(
                    |(name, weight)| tcp_proxy::weighted_cluster::ClusterWeight {
                        name: name.clone(),
                        weight: *weight,
                        metadata_match: None,
                    },
                )
                .collect(),
        }),
    };
    let proxy = TcpProxy {
        stat_prefix: options.stat_prefix,
        access_log: access_log::logs(options.mesh),
        idle_timeout: options.idle_timeout.map(duration),
        cluster_specifier: Some(specifier),
        ..Default::default()
    };
    filters.push(named("envoy.filters.network.tcp_proxy", pack(&proxy)));
    filters
}

/// A TCP chain to one cluster under its own name.
pub fn tcp_to(
    cluster: &str,
    side: Side,
    capabilities: &Capabilities,
    policies: &RbacFilters,
    mesh: &MeshConfig,
) -> Vec<Filter> {
    tcp(Tcp {
        side,
        stat_prefix: cluster.to_owned(),
        clusters: vec![(cluster.to_owned(), 1)],
        capabilities,
        policies,
        mesh,
        idle_timeout: None,
    })
}

/// The weighted clusters of a TCP or TLS route, without those of weight 0.
pub fn weighted(targets: Vec<(Outbound, i32)>) -> Vec<(String, u32)> {
    let alone = targets.len() == 1;
    targets
        .into_iter()
        .filter(|(_, weight)| alone || *weight > 0)
        .map(|(cluster, weight)| {
            (
                cluster.to_string(),
                u32::try_from(weight.max(1)).unwrap_or(1),
            )
        })
        .collect()
}
