//! Who the proxy says it is: id, cluster, metadata, locality and, for ours, what it can do.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::options::{Engine, Options, Role};

/// Istio's filters that our proxy has built in and stock Envoy has not.
const EXTENSIONS: [(&str, &str, &str); 4] = [
    (
        "istio.metadata_exchange",
        "envoy.filters.network",
        METADATA_EXCHANGE,
    ),
    (
        "istio.peer_metadata",
        "envoy.filters.http",
        "io.istio.http.peer_metadata.Config",
    ),
    ("istio.alpn", "envoy.filters.http", ALPN),
    ("istio.stats", "envoy.filters.http", "stats.PluginConfig"),
];
const METADATA_EXCHANGE: &str = "envoy.tcp.metadataexchange.config.MetadataExchange";
const ALPN: &str = "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig";

pub(super) fn node(options: &Options) -> Value {
    let mut node = json!({
        "id": options.node_id(),
        "cluster": cluster(options),
        "metadata": metadata(options),
    });
    if let Some(locality) = locality(&options.pod.labels) {
        node["locality"] = locality;
    }
    if options.engine == Engine::Stolos {
        let extensions = EXTENSIONS.iter().map(|(name, category, message)| {
            let type_url = format!("type.googleapis.com/{message}");
            json!({"name": name, "category": category, "type_urls": [message, type_url]})
        });
        node["extensions"] = extensions.collect();
        node["user_agent_name"] = json!("stolos");
        node["user_agent_version"] = json!(env!("CARGO_PKG_VERSION"));
    }
    node
}

/// The service that the traces and logs name: by the `app` label, else the workload.
fn cluster(options: &Options) -> String {
    let config = &options.proxy_config;
    if !config.service_cluster.is_empty() {
        return config.service_cluster.clone();
    }
    let workload = options
        .metadata
        .get("WORKLOAD_NAME")
        .and_then(Value::as_str);
    let app = options.pod.labels.get("app").map(String::as_str);
    let name = app.or(workload).unwrap_or("istio-proxy");
    format!("{name}.{}", options.pod.namespace)
}

fn metadata(options: &Options) -> Value {
    let pod = &options.pod;
    let mut all: Map<String, Value> = options.metadata.clone().into_iter().collect();
    let ips: Vec<String> = pod.ips.iter().map(ToString::to_string).collect();
    let config = &options.proxy_config;
    let trust_domain = options.id.trust_domain.as_str();
    let mesh_id = if config.mesh_id.is_empty() {
        trust_domain
    } else {
        &config.mesh_id
    };
    let mode = match options.role {
        Role::Sidecar => "REDIRECT",
        Role::Router => "NONE",
    };
    // What the environment says explicitly stays.
    for (key, value) in [
        ("INTERCEPTION_MODE", json!(mode)),
        ("CLUSTER_ID", json!("Kubernetes")),
        ("MESH_ID", json!(mesh_id)),
        ("ISTIO_VERSION", json!("1.31.0")),
        ("WORKLOAD_NAME", json!(workload(&pod.name))),
    ] {
        all.entry(key).or_insert(value);
    }
    for (key, value) in [
        ("NAME", json!(pod.name)),
        ("NAMESPACE", json!(pod.namespace)),
        ("SERVICE_ACCOUNT", json!(pod.service_account)),
        ("INSTANCE_IPS", json!(ips.join(","))),
        ("LABELS", json!(pod.labels)),
        ("ANNOTATIONS", json!(pod.annotations)),
        ("PROXY_CONFIG", config.original.clone()),
        ("PILOT_SAN", json!([options.discovery.name])),
        ("ENVOY_STATUS_PORT", json!(options.ports.readiness)),
        ("ENVOY_PROMETHEUS_PORT", json!(options.ports.prometheus)),
    ] {
        all.insert(key.to_string(), value);
    }
    Value::Object(all)
}

/// A pod of a Deployment is DEPLOYMENT-HASH-HASH; nobody said better, so this is the guess.
fn workload(pod: &str) -> &str {
    let mut parts = pod.rsplitn(3, '-');
    let (_, _, workload) = (parts.next(), parts.next(), parts.next());
    workload.unwrap_or(pod)
}

fn locality(labels: &BTreeMap<String, String>) -> Option<Value> {
    let text = labels
        .get("topology.istio.io/locality")
        .or(labels.get("istio-locality"))?;
    // A label cannot hold a slash: dots stand for them.
    let separator = if text.contains('/') { '/' } else { '.' };
    let mut parts = text.splitn(3, separator);
    let mut part = || parts.next().unwrap_or_default().to_string();
    Some(json!({"region": part(), "zone": part(), "sub_zone": part()}))
}
