//! Envoy's verdict: everything pilot generates for a proxy, as one static bootstrap, must pass
//! `envoy --mode validate`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use envoy_api::cluster::Cluster;
use envoy_api::cluster::cluster::ClusterDiscoveryType;
use envoy_api::endpoint::ClusterLoadAssignment;
use envoy_api::hcm::HttpConnectionManager;
use envoy_api::hcm::http_connection_manager::RouteSpecifier;
use envoy_api::listener::{FilterChain, Listener, filter::ConfigType};
use envoy_api::route::RouteConfiguration;
use envoy_api::{Resource, ResourceType, any, json};
use pilot::{ProxyView, Snapshot, generate};
use prost::Message;
use serde_json::{Value, json as object};

const MANAGER: &str = "envoy.filters.network.http_connection_manager";

/// The Envoy binary, or `None` with a line on why its verdict is missing.
pub fn binary() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("STOLOS_ENVOY") {
        return Some(PathBuf::from(path));
    }
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
    let lib = cache.join("stolos/envoy-venv/lib");
    let found = std::fs::read_dir(lib).ok().and_then(|entries| {
        entries
            .filter_map(Result::ok)
            .map(|entry| entry.path().join("site-packages/envoy/_bin/envoy"))
            .find(|path| path.exists())
    });
    if found.is_none() {
        println!("not run: no Envoy (set STOLOS_ENVOY)");
    }
    found
}

pub fn decode<M: Message + Default>(resources: &[Resource]) -> Vec<M> {
    let one = |resource: &Resource| M::decode(resource.body.clone()).expect("pilot encodes");
    resources.iter().map(one).collect()
}

/// All that a proxy would be sent, with routes inside the listeners.
pub fn bootstrap(snapshot: &Snapshot, view: &ProxyView) -> Value {
    let all = |kind| generate(snapshot, view, kind, None);
    let mut clusters: Vec<Cluster> = decode(&all(ResourceType::Cluster));
    let mut listeners: Vec<Listener> = decode(&all(ResourceType::Listener));
    let tables: BTreeMap<String, RouteConfiguration> =
        decode::<RouteConfiguration>(&all(ResourceType::Route))
            .into_iter()
            .map(|table| (table.name.clone(), table))
            .collect();
    for listener in &mut listeners {
        let chains = listener
            .filter_chains
            .iter_mut()
            .chain(&mut listener.default_filter_chain);
        for chain in chains {
            inline_routes(chain, &tables);
        }
    }
    for (index, assignment) in decode::<ClusterLoadAssignment>(&all(ResourceType::Endpoint))
        .into_iter()
        .enumerate()
    {
        clusters.push(endpoints_cluster(index, assignment));
    }
    let own = ["sds-grpc", "xds-grpc"].map(|name| {
        object!({
            "name": name, "type": "STATIC", "connect_timeout": "1s",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/\
                        envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}}
                }
            },
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": {"pipe": {"path": "/tmp/none"}}}}]}]}
        })
    });
    let as_json = |cluster: &Cluster| json::to_json(cluster).expect("JSON");
    let clusters: Vec<Value> = clusters.iter().map(as_json).chain(own).collect();
    let listeners: Vec<Value> = listeners
        .iter()
        .map(|listener| json::to_json(listener).expect("JSON"))
        .collect();
    object!({
        "node": {"id": view.id, "cluster": "test"},
        "dynamic_resources": {"ads_config": {
            "api_type": "DELTA_GRPC", "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]}},
        "static_resources": {"clusters": clusters, "listeners": listeners}
    })
}

/// Endpoints are sent on their own; a static cluster makes Envoy check them.
fn endpoints_cluster(index: usize, mut assignment: ClusterLoadAssignment) -> Cluster {
    let name = format!("endpoints-{index}");
    assignment.cluster_name.clone_from(&name);
    Cluster {
        name,
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(0)),
        load_assignment: Some(assignment),
        ..Default::default()
    }
}

fn inline_routes(chain: &mut FilterChain, tables: &BTreeMap<String, RouteConfiguration>) {
    for filter in chain
        .filters
        .iter_mut()
        .filter(|filter| filter.name == MANAGER)
    {
        let Some(ConfigType::TypedConfig(config)) = &mut filter.config_type else {
            continue;
        };
        let mut manager: HttpConnectionManager = any::unpack(config).expect("a manager");
        if let Some(RouteSpecifier::Rds(rds)) = &manager.route_specifier {
            let table = tables.get(&rds.route_config_name);
            let table = table.unwrap_or_else(|| panic!("no table {}", rds.route_config_name));
            manager.route_specifier = Some(RouteSpecifier::RouteConfig(table.clone()));
        }
        *config = any::pack(&manager);
    }
}

/// Panics with Envoy's words when it refuses.
pub fn accepts(what: &str, snapshot: &Snapshot, view: &ProxyView) {
    let config = bootstrap(snapshot, view);
    keep(what, &config);
    let Some(envoy) = binary() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("envoy.json");
    std::fs::write(&file, config.to_string()).expect("a file");
    let output = Command::new(envoy)
        .args(["--mode", "validate", "--log-level", "error", "-c"])
        .arg(&file)
        .output()
        .expect("Envoy starts");
    assert!(
        output.status.success(),
        "Envoy refuses {what}: {}\n{}",
        String::from_utf8_lossy(&output.stderr),
        serde_json::to_string_pretty(&config).unwrap_or_default()
    );
}

/// `STOLOS_BOOTSTRAPS=DIR` keeps every bootstrap, for a look or for another proxy's verdict.
pub fn keep(what: &str, config: &Value) {
    let Some(folder) = std::env::var_os("STOLOS_BOOTSTRAPS") else {
        return;
    };
    let name: String = what
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    let short: String = name
        .chars()
        .rev()
        .take(80)
        .collect::<String>()
        .chars()
        .rev()
        .collect();
    let path = PathBuf::from(folder).join(format!("{short}.json"));
    std::fs::write(path, config.to_string()).expect("a writable folder");
}
