//! The bootstrap: node, static resources, where dynamic ones come from, admin, statistics.

use std::path::PathBuf;
use std::sync::Arc;

use envoy_api::bootstrap::{self, bootstrap as inner, runtime_layer};
use envoy_api::core;

use super::address::{Address, BindConfig};
use super::cluster::Cluster;
use super::compat::Message as _;
use super::config_source::{ConfigSource, GrpcSource};
use super::listener::Listener;
use super::tls::Secret;
use super::{ConfigError, Context, Environment};
use crate::stats::StatsConfig;

#[derive(Debug, Clone)]
pub struct Bootstrap {
    pub node: Arc<core::Node>,
    pub listeners: Vec<Arc<Listener>>,
    pub clusters: Vec<Arc<Cluster>>,
    pub secrets: Vec<Secret>,
    pub ads: Option<GrpcSource>,
    pub lds: Option<ConfigSource>,
    pub cds: Option<ConfigSource>,
    pub admin: Option<Admin>,
    pub stats: StatsConfig,
    /// Source of connections of clusters that have none of their own.
    pub upstream_bind: Option<BindConfig>,
    /// `overload.global_downstream_max_connections` or the overload manager's monitor.
    pub max_downstream_connections: Option<u64>,
    /// Static runtime values, flat: `a.b` to text.
    pub runtime: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
pub struct Admin {
    pub address: Address,
    pub access_log_path: Option<PathBuf>,
}

fields! {
    bootstrap::Bootstrap {
        read: node, static_resources, dynamic_resources, cluster_manager, stats_config,
            layered_runtime, admin, overload_manager;
        reject: default_config_source, hds_config, header_prefix,
            stats_server_version_override, fatal_actions,
            config_sources, default_socket_interface, certificate_provider_instances,
            default_regex_engine, xds_delegate_extension, xds_config_tracker_extension,
            perf_tracing_file_path, node_context_params, stats_sinks;
        ignore: stats_flush_interval = "statistics are read when somebody asks",
            stats_flush = "statistics are read when somebody asks",
            flags_path = "there are no flag files",
            deferred_stat_options = "statistics are made when first used",
            watchdog = "the watchdog of this process is its own",
            watchdogs = "the watchdog of this process is its own",
            tracing = "spans are not reported",
            enable_dispatcher_stats = "statistics of Envoy's event loop",
            use_tcp_for_dns_lookups = "the system's resolver chooses",
            dns_resolution_config = "the system's resolver is used",
            typed_dns_resolver_config = "the system's resolver is used",
            bootstrap_extensions = "only the internal listener is known, and it is refused later",
            inline_headers = "a speed-up inside Envoy",
            listener_manager = "there is one",
            application_log_config = "the log's format is a flag of this process",
            grpc_async_client_manager_config = "a cache inside Envoy",
            memory_allocator_manager = "the allocator is another",
            enable_worker_cpu_affinity = "a tuning",
            stats_eviction = "series live as long as the process";
    }
    inner::StaticResources { read: listeners, clusters, secrets; }
    inner::DynamicResources {
        read: lds_config, cds_config, ads_config;
        reject: lds_resources_locator, cds_resources_locator;
    }
    bootstrap::Admin {
        read: access_log, access_log_path, address;
        reject: socket_options, allow_paths;
        ignore: profile_path = "no profiler is built in",
            ignore_global_conn_limit = "the admin address is never limited";
    }
    bootstrap::ClusterManager {
        read: upstream_bind_config;
        reject: load_stats_config;
        ignore: local_cluster_name = "zone aware routing, which asks for it, is refused",
            outlier_detection = "events are in the log",
            enable_deferred_cluster_creation = "clusters cost nothing until used";
    }
    bootstrap::LayeredRuntime { read: layers; }
    bootstrap::RuntimeLayer { read: name, layer_specifier; }
}

/// A whole bootstrap; static listeners and clusters are parsed like dynamic ones.
pub fn bootstrap(
    message: &bootstrap::Bootstrap,
    environment: &Environment,
) -> Result<Bootstrap, ConfigError> {
    let mut context = Context::within(environment);
    let parsed = parse(&mut context, message);
    context.finish("bootstrap".to_owned(), parsed)
}

fn parse(context: &mut Context, message: &bootstrap::Bootstrap) -> Option<Bootstrap> {
    message.check(context);
    let resources = message.static_resources.clone().unwrap_or_default();
    let dynamic = message.dynamic_resources.clone().unwrap_or_default();
    let (listeners, clusters, secrets) = context.field("static_resources", |context| {
        resources.check(context);
        let clusters = context.each("clusters", &resources.clusters, |context, one| {
            super::cluster::parse(context, one).map(Arc::new)
        });
        let secrets = context.each("secrets", &resources.secrets, super::tls::secret_in);
        let listeners = context.each("listeners", &resources.listeners, |context, one| {
            super::listener::parse(context, one).map(Arc::new)
        });
        (listeners, clusters, secrets)
    });
    known_clusters(context, &listeners, &clusters);
    unique(context, clusters.iter().map(|one| &*one.name));
    let source = super::config_source::parse;
    let (ads, lds, cds) = context.field("dynamic_resources", |context| {
        dynamic.check(context);
        (
            context.optional(
                "ads_config",
                dynamic.ads_config.as_ref(),
                super::config_source::grpc,
            ),
            context.optional("lds_config", dynamic.lds_config.as_ref(), source),
            context.optional("cds_config", dynamic.cds_config.as_ref(), source),
        )
    });
    let manager = message.cluster_manager.clone().unwrap_or_default();
    let upstream_bind = context.field("cluster_manager", |context| {
        manager.check(context);
        context.optional(
            "upstream_bind_config",
            manager.upstream_bind_config.as_ref(),
            super::address::bind_config,
        )
    });
    let runtime = runtime(context, message.layered_runtime.as_ref());
    Some(Bootstrap {
        node: Arc::new(message.node.clone().unwrap_or_default()),
        listeners,
        clusters,
        secrets,
        ads,
        lds,
        cds,
        admin: context
            .optional("admin", message.admin.as_ref(), admin)
            .flatten(),
        stats: StatsConfig::parse(context, message.stats_config.as_ref()),
        upstream_bind,
        max_downstream_connections: max_connections(context, message, &runtime),
        runtime,
    })
}

/// Inline routes of static listeners name clusters that exist, as in Envoy.
fn known_clusters(context: &mut Context, listeners: &[Arc<Listener>], clusters: &[Arc<Cluster>]) {
    use super::http_connection_manager::RouteSource;
    use super::network_filter::Terminal;
    if context.has_problems() {
        return;
    }
    let chains = listeners.iter().flat_map(|listener| {
        listener
            .filter_chains
            .iter()
            .chain(&listener.default_filter_chain)
    });
    for chain in chains {
        let Terminal::Http(http) = &chain.terminal else {
            continue;
        };
        let RouteSource::Inline(table) = &http.routes else {
            continue;
        };
        if table.validate_clusters == Some(false) {
            continue;
        }
        for name in table.cluster_names() {
            if !clusters.iter().any(|cluster| *cluster.name == *name) {
                context.error(format!(
                    "route_config '{}': route: unknown cluster '{name}'",
                    table.name
                ));
            }
        }
    }
}

fn unique<'a>(context: &mut Context, names: impl Iterator<Item = &'a str>) {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            context.error(format!("cluster manager: duplicate cluster '{name}'"));
        }
    }
}

/// `Some(None)`: an admin section without an address, which Envoy accepts.
fn admin(context: &mut Context, message: &bootstrap::Admin) -> Option<Option<Admin>> {
    message.check(context);
    let address = message.address.as_ref();
    let address = context.optional("address", address, super::address::parse_resolved);
    let path = &message.access_log_path;
    let access_log_path = (!path.is_empty() && path != "/dev/null").then(|| PathBuf::from(path));
    Some(address.map(|address| Admin {
        address,
        access_log_path,
    }))
}

/// The static layers flattened, later ones over earlier ones.
fn runtime(
    context: &mut Context,
    message: Option<&bootstrap::LayeredRuntime>,
) -> Vec<(String, String)> {
    use runtime_layer::LayerSpecifier;
    let mut values = std::collections::BTreeMap::new();
    context.optional("layered_runtime", message, |context, message| {
        message.check(context);
        context.each("layers", &message.layers, |context, layer| {
            layer.check(context);
            match &layer.layer_specifier {
                Some(LayerSpecifier::StaticLayer(fields)) => flatten("", fields, &mut values),
                Some(LayerSpecifier::AdminLayer(_)) => {}
                Some(LayerSpecifier::DiskLayer(_)) => {
                    context.error_at("disk_layer", "is not supported");
                }
                Some(LayerSpecifier::RtdsLayer(_)) => {
                    context.error_at("rtds_layer", "is not supported");
                }
                None => context.error_at("layer_specifier", "is required"),
            }
            Some(())
        });
        Some(())
    });
    values.into_iter().collect()
}

fn flatten(
    prefix: &str,
    fields: &prost_types::Struct,
    values: &mut std::collections::BTreeMap<String, String>,
) {
    // Nesting is bounded by protobuf's own limit of message depth.
    for (key, value) in &fields.fields {
        let key = if prefix.is_empty() {
            key.clone()
        } else {
            format!("{prefix}.{key}")
        };
        match super::metadata::as_struct(value) {
            Some(inner) => flatten(&key, inner, values),
            None => {
                let json = super::metadata::to_json(value);
                let text = json
                    .as_str()
                    .map_or_else(|| json.to_string(), str::to_owned);
                values.insert(key, text);
            }
        }
    }
}

const CONNECTIONS_MONITOR: &str = "envoy.resource_monitors.global_downstream_max_connections";

/// The global limit of downstream connections; other resource monitors are refused.
fn max_connections(
    context: &mut Context,
    message: &bootstrap::Bootstrap,
    runtime: &[(String, String)],
) -> Option<u64> {
    let mut limit = runtime
        .iter()
        .find(|(key, _)| key == "overload.global_downstream_max_connections")
        .and_then(|(_, value)| value.parse::<f64>().ok())
        .map(|value| value as u64);
    let overload = message.overload_manager.as_ref()?;
    for (index, monitor) in overload.resource_monitors.iter().enumerate() {
        let place = format!("overload_manager.resource_monitors[{index}]");
        if monitor.name != CONNECTIONS_MONITOR {
            context.error_at(
                &place,
                format!("monitor '{}' is not supported", monitor.name),
            );
            continue;
        }
        limit = connections_of(monitor).or(limit);
    }
    if !overload.actions.is_empty() {
        context.error_at("overload_manager.actions", "is not supported");
    }
    limit
}

/// The monitor's message is one integer field, `max_active_downstream_connections` = 1.
fn connections_of(
    monitor: &envoy_api::envoy::config::overload::v3::ResourceMonitor,
) -> Option<u64> {
    use envoy_api::envoy::config::overload::v3::resource_monitor::ConfigType;
    #[derive(Clone, PartialEq, prost::Message)]
    struct Limit {
        #[prost(int64, tag = "1")]
        max_active_downstream_connections: i64,
    }
    let ConfigType::TypedConfig(any) = monitor.config_type.as_ref()?;
    let limit = <Limit as prost::Message>::decode(any.value.as_slice()).ok()?;
    u64::try_from(limit.max_active_downstream_connections).ok()
}
