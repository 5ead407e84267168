//! The Envoy bootstrap of a sidecar or gateway: one file for our proxy and for a real Envoy.
//! It holds no secret: certificates come over SDS, configuration over ADS, both by unix sockets.

mod node;
mod stats;

use envoy_api::bootstrap::Bootstrap;
use serde_json::{Value, json};

use crate::AgentError;
use crate::options::{Engine, Options};

/// The bootstrap as JSON, as it is written for Envoy.
pub fn json(options: &Options) -> Value {
    let mut bootstrap = json!({
        "node": node::node(options),
        "admin": {
            "profile_path": "/dev/null",
            "address": address("127.0.0.1", options.ports.admin),
        },
        "dynamic_resources": {
            "lds_config": ads(),
            "cds_config": ads(),
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            },
        },
        "static_resources": {
            "clusters": [
                loopback_cluster("prometheus_stats", options.ports.admin),
                loopback_cluster("agent", options.ports.status),
                socket_cluster("xds-grpc", &options.paths.xds_socket().display().to_string()),
                socket_cluster("sds-grpc", &options.paths.sds_socket.display().to_string()),
            ],
            "listeners": [
                http_listener("prometheus", options.ports.prometheus, Route {
                    matches: json!({"prefix": "/stats/prometheus"}),
                    cluster: "prometheus_stats",
                }),
                http_listener("readiness", options.ports.readiness, Route {
                    matches: json!({"prefix": "/healthz/ready"}),
                    cluster: "agent",
                }),
            ],
        },
        "stats_config": stats::config(options),
        "layered_runtime": {"layers": [
            {"name": "global config", "static_layer": {
                "envoy.reloadable_features.http_reject_path_with_fragment": false,
                "re2.max_program_size.error_level": "32768",
            }},
            {"name": "admin", "admin_layer": {}},
        ]},
    });
    if let Some(mark) = options.socket_mark {
        // SO_MARK at SOL_SOCKET: how capture tells the proxy's connections from the application's.
        bootstrap["cluster_manager"] = json!({"upstream_bind_config": {
            "source_address": {"address": "0.0.0.0", "port_value": 0},
            "socket_options": [
                {"level": 1, "name": 36, "int_value": mark, "state": "STATE_PREBIND"},
            ],
        }});
    }
    if let Engine::Envoy { .. } = options.engine {
        add_envoy_settings(&mut bootstrap);
    }
    bootstrap
}

/// Settings of Envoy's own machinery, which ours does not have.
fn add_envoy_settings(bootstrap: &mut Value) {
    bootstrap["default_regex_engine"] = json!({
        "name": "envoy.regex_engines.google_re2",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.regex_engines.v3.GoogleRE2",
        },
    });
    // Istio's limit: none, said so that Envoy does not warn.
    bootstrap["overload_manager"] = json!({"resource_monitors": [{
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.resource_monitors\
                      .downstream_connections.v3.DownstreamConnectionsConfig",
            "max_active_downstream_connections": "2147483647",
        },
    }]});
}

/// The same as a message, for our proxy.
pub fn message(options: &Options) -> Result<Bootstrap, AgentError> {
    envoy_api::json::from_json(json(options))
        .map_err(|error| AgentError::Proxy(format!("BUG: the bootstrap: {error}")))
}

struct Route {
    matches: Value,
    cluster: &'static str,
}

fn ads() -> Value {
    json!({"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"})
}

fn address(ip: &str, port: u16) -> Value {
    json!({"socket_address": {"address": ip, "port_value": port}})
}

fn loopback_cluster(name: &str, port: u16) -> Value {
    cluster(name, address("127.0.0.1", port))
}

fn cluster(name: &str, address: Value) -> Value {
    json!({
        "name": name,
        // The semicolon ends the label's value in statistics (stats.rs).
        "alt_stat_name": format!("{name};"),
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    })
}

/// A gRPC server on a unix socket.
fn socket_cluster(name: &str, path: &str) -> Value {
    let mut cluster = cluster(name, json!({"pipe": {"path": path}}));
    cluster["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type":
                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        },
    });
    // The control plane's first answer for a large mesh must not stall on a small buffer.
    cluster["circuit_breakers"] = json!({"thresholds": [
        {"priority": "DEFAULT", "max_connections": 100000, "max_pending_requests": 100000,
         "max_requests": 100000},
        {"priority": "HIGH", "max_connections": 100000, "max_pending_requests": 100000,
         "max_requests": 100000},
    ]});
    cluster
}

/// A listener that passes one path to one cluster; everything else is 404.
fn http_listener(name: &str, port: u16, route: Route) -> Value {
    let Route { matches, cluster } = route;
    json!({
        "name": name,
        "address": address("0.0.0.0", port),
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network\
                          .http_connection_manager.v3.HttpConnectionManager",
                "codec_type": "AUTO",
                "stat_prefix": name,
                "route_config": {"virtual_hosts": [{
                    "name": "backend",
                    "domains": ["*"],
                    "routes": [{"match": matches, "route": {"cluster": cluster}}],
                }]},
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {
                        "@type": "type.googleapis.com/\
                                  envoy.extensions.filters.http.router.v3.Router",
                    },
                }],
            },
        }]}],
    })
}

#[cfg(test)]
mod tests;
