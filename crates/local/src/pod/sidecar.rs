//! What the mesh adds to a pod: the rules that capture its traffic, and the proxy under a user
//! of its own, with the environment that Istio's injector gives to `istio-proxy`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine;
use serde_json::{Value, json};

use crate::init::protocol::{
    Container, ENVOY_IN_POD, Mount, Privilege, STOLOS_IN_POD, Volume, VolumeFile,
};
use crate::manifest::local_mesh::ProxyChoice;
use crate::manifest::template::{ContainerTemplate, Identity, NODE_NAME, PodTemplate, ProxyRole};

pub const PROXY: &str = "istio-proxy";
pub const CAPTURE: &str = "istio-init";
/// The proxy's user and group, which the capture rules exempt.
pub const PROXY_USER: u32 = 1337;
/// Where the proxy says that it is ready, and its path.
pub const READY_PORT: u16 = 15021;
pub const READY_PATH: &str = "/healthz/ready";
/// Ports of the proxy's that are never captured.
const OWN_PORTS: &str = "15090,15021,15020";
const TRAFFIC: &str = "traffic.sidecar.istio.io/";

/// What all sidecars of a mesh share.
#[derive(Debug, Clone)]
pub struct MeshFacts {
    pub trust_domain: String,
    pub cluster: String,
    /// `HOST:PORT` of the control plane, for discovery and certificates.
    pub discovery: String,
    /// The `defaultConfig` of the mesh, as JSON.
    pub proxy_config: Value,
    pub root_certificate: String,
    /// PEM of authorities besides the host's.
    pub trusted_certificates: String,
}

/// The volumes that only the proxy's container mounts.
pub fn volumes(template: &PodTemplate, token: &str, facts: &MeshFacts) -> Vec<Volume> {
    let file = |content: &str, mode: u32| VolumeFile {
        content: base64::engine::general_purpose::STANDARD.encode(content),
        mode,
    };
    let volume = |name: &str, files: BTreeMap<String, VolumeFile>| Volume {
        name: name.to_owned(),
        owner: PROXY_USER,
        mode: 0o755,
        files,
    };
    let lines = |map: &BTreeMap<String, String>| {
        map.iter()
            .map(|(key, value)| format!("{key}={value:?}"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let pod = BTreeMap::from([
        ("labels".to_owned(), file(&lines(&template.labels), 0o644)),
        (
            "annotations".to_owned(),
            file(&lines(&template.annotations), 0o644),
        ),
    ]);
    vec![
        volume(
            "istio-token",
            BTreeMap::from([("istio-token".to_owned(), file(token, 0o400))]),
        ),
        volume(
            "istiod-ca-cert",
            BTreeMap::from([(
                "root-cert.pem".to_owned(),
                file(&facts.root_certificate, 0o644),
            )]),
        ),
        volume("istio-podinfo", pod),
        volume("istio-data", BTreeMap::new()),
        volume("istio-envoy", BTreeMap::new()),
        volume("workload-socket", BTreeMap::new()),
        volume("credential-socket", BTreeMap::new()),
        volume("workload-certs", BTreeMap::new()),
    ]
}

const MOUNTS: [(&str, &str); 8] = [
    ("istio-token", "/var/run/secrets/tokens"),
    ("istiod-ca-cert", "/var/run/secrets/istio"),
    ("istio-podinfo", "/etc/istio/pod"),
    ("istio-data", "/var/lib/istio/data"),
    ("istio-envoy", "/etc/istio/proxy"),
    ("workload-socket", "/var/run/secrets/workload-spiffe-uds"),
    ("credential-socket", "/var/run/secrets/credential-uds"),
    (
        "workload-certs",
        "/var/run/secrets/workload-spiffe-credentials",
    ),
];

const LOG_LEVELS: [(&str, &str); 3] = [
    ("sidecar.istio.io/logLevel", "--proxyLogLevel"),
    (
        "sidecar.istio.io/componentLogLevel",
        "--proxyComponentLogLevel",
    ),
    ("sidecar.istio.io/agentLogLevel", "--log_output_level"),
];

/// Sets up capture in the pod's network namespace; ends by itself. The annotations are Istio's.
pub fn capture(template: &PodTemplate) -> Container {
    let annotation = |name: &str| template.annotations.get(&format!("{TRAFFIC}{name}"));
    let or = |name: &str, default: &str| {
        annotation(name)
            .cloned()
            .unwrap_or_else(|| default.to_owned())
    };
    let excluded = match annotation("excludeInboundPorts").filter(|ports| !ports.is_empty()) {
        Some(ports) => format!("{OWN_PORTS},{ports}"),
        None => OWN_PORTS.to_owned(),
    };
    let mut command: Vec<String> = [
        STOLOS_IN_POD,
        "capture",
        "-p",
        "15001",
        "-z",
        "15006",
        "-u",
        "1337",
        "-m",
        "REDIRECT",
        "--native-nftables",
    ]
    .map(str::to_owned)
    .to_vec();
    let mut flag = |name: &str, value: String| command.extend([name.to_owned(), value]);
    flag("-i", or("includeOutboundIPRanges", "*"));
    flag("-x", or("excludeOutboundIPRanges", ""));
    flag("-b", or("includeInboundPorts", "*"));
    flag("-d", excluded);
    for (name, key) in [
        ("-q", "includeOutboundPorts"),
        ("-o", "excludeOutboundPorts"),
        ("-c", "excludeInterfaces"),
    ] {
        if let Some(value) = annotation(key) {
            flag(name, value.clone());
        }
    }
    Container {
        name: CAPTURE.to_owned(),
        command,
        env: vec![("PATH".to_owned(), SEARCH_PATH.to_owned())],
        directory: None,
        user: None,
        group: None,
        privilege: Privilege::Full,
        mounts: Vec::new(),
        quiet: false,
    }
}

const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The proxy as a container template, so that it is watched and restarted as any other.
pub fn proxy_template(role: ProxyRole) -> ContainerTemplate {
    ContainerTemplate {
        name: PROXY.to_owned(),
        image: "stolos".to_owned(),
        command: Vec::new(),
        env: Vec::new(),
        directory: None,
        user: Some(PROXY_USER),
        group: Some(PROXY_USER),
        mounts: Vec::new(),
        ports: Vec::new(),
        readiness: (role != ProxyRole::None).then(ready_probe),
        liveness: None,
        startup: None,
    }
}

fn ready_probe() -> crate::manifest::template::ProbeTemplate {
    use crate::manifest::template::{ProbeAction, ProbeTemplate};
    use std::time::Duration;
    ProbeTemplate {
        action: ProbeAction::Http {
            port: READY_PORT,
            path: READY_PATH.to_owned(),
            headers: Vec::new(),
        },
        initial_delay: Duration::ZERO,
        period: Duration::from_secs(5),
        timeout: Duration::from_secs(3),
        successes: 1,
        failures: 4,
    }
}

/// The proxy's process.
pub fn proxy(
    template: &PodTemplate,
    identity: &Identity,
    workload: &str,
    facts: &MeshFacts,
) -> Container {
    let role = match template.proxy {
        ProxyRole::Router(_) => "router",
        _ => "sidecar",
    };
    let mut command = vec![
        STOLOS_IN_POD.to_owned(),
        "proxy".to_owned(),
        role.to_owned(),
        "--domain".to_owned(),
        format!("{}.svc.cluster.local", template.namespace),
    ];
    for (annotation, flag) in LOG_LEVELS {
        if let Some(level) = template.annotations.get(annotation) {
            command.push(format!("{flag}={level}"));
        }
    }
    Container {
        name: PROXY.to_owned(),
        command,
        env: environment(template, identity, workload, facts),
        directory: Some(PathBuf::from("/")),
        user: Some(PROXY_USER),
        group: Some(PROXY_USER),
        privilege: Privilege::Default,
        mounts: MOUNTS
            .iter()
            .map(|(volume, path)| Mount {
                volume: (*volume).to_owned(),
                path: PathBuf::from(path),
                sub_path: String::new(),
                read_only: false,
            })
            .collect(),
        quiet: false,
    }
}

fn environment(
    template: &PodTemplate,
    identity: &Identity,
    workload: &str,
    facts: &MeshFacts,
) -> Vec<(String, String)> {
    let namespace = &template.namespace;
    let ports: Vec<Value> = template
        .containers
        .iter()
        .flat_map(|container| &container.ports)
        .map(|port| {
            json!({"name": port.name, "containerPort": port.port, "protocol": port.protocol})
        })
        .collect();
    let apps: Vec<&str> = template
        .containers
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    let owner = format!("kubernetes://apis/apps/v1/namespaces/{namespace}/deployments/{workload}");
    let proxy_config = proxy_config(template, facts).to_string();
    let choice = template.proxy.choice().unwrap_or_default();
    let mut env: Vec<(&str, String)> = vec![
        ("PATH", SEARCH_PATH.to_owned()),
        ("HOSTNAME", template.host_name(identity)),
        ("PILOT_CERT_PROVIDER", "istiod".to_owned()),
        ("CA_ADDR", facts.discovery.clone()),
        ("POD_NAME", identity.name.clone()),
        ("POD_NAMESPACE", namespace.clone()),
        ("POD_UID", identity.uid.clone()),
        ("INSTANCE_IP", identity.ip.to_string()),
        ("SERVICE_ACCOUNT", template.service_account.clone()),
        ("HOST_IP", crate::network::NODE_ADDRESS.to_string()),
        ("TRUST_DOMAIN", facts.trust_domain.clone()),
        ("PROXY_CONFIG", proxy_config),
        ("ISTIO_META_POD_PORTS", Value::Array(ports).to_string()),
        ("ISTIO_META_APP_CONTAINERS", apps.join(",")),
        ("ISTIO_META_CLUSTER_ID", facts.cluster.clone()),
        ("ISTIO_META_NODE_NAME", NODE_NAME.to_owned()),
        ("ISTIO_META_INTERCEPTION_MODE", "REDIRECT".to_owned()),
        ("ISTIO_META_WORKLOAD_NAME", workload.to_owned()),
        ("ISTIO_META_OWNER", owner),
        ("ISTIO_META_MESH_ID", facts.trust_domain.clone()),
        ("ISTIO_METAJSON_LABELS", json!(template.labels).to_string()),
        ("STOLOS_PROXY", choice.as_str().to_owned()),
    ];
    if choice == ProxyChoice::Envoy {
        env.push(("STOLOS_ENVOY_PATH", ENVOY_IN_POD.to_owned()));
    }
    if let Some(annotations) = prometheus_annotations(template) {
        env.push(("ISTIO_PROMETHEUS_ANNOTATIONS", annotations.to_string()));
    }
    env.into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// The mesh's `defaultConfig` with what the pod's annotation (YAML) says over it.
fn proxy_config(template: &PodTemplate, facts: &MeshFacts) -> Value {
    let mut config = facts.proxy_config.clone();
    if let Some(text) = template.annotations.get("proxy.istio.io/config") {
        let loaded = mesh_api::parse::yaml::load(text, &Default::default());
        for document in &loaded.documents {
            merge(&mut config, document.to_json());
        }
    }
    config
}

fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

/// Where the application's own metrics are, for the proxy to merge.
fn prometheus_annotations(template: &PodTemplate) -> Option<Value> {
    let get = |name: &str| template.annotations.get(&format!("prometheus.io/{name}"));
    let scrape = get("scrape")?;
    let or = |name: &str, default: &str| get(name).map_or(default, String::as_str).to_owned();
    Some(json!({"scrape": scrape, "path": or("path", "/metrics"), "port": or("port", "80")}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_proxy_config_goes_over_the_meshs() {
        let mut template = crate::pod::tests::template();
        let annotation = "concurrency: 3\nproxyMetadata:\n  A: b\n".to_owned();
        template
            .annotations
            .insert("proxy.istio.io/config".to_owned(), annotation);
        let facts = MeshFacts {
            trust_domain: String::new(),
            cluster: String::new(),
            discovery: String::new(),
            proxy_config: json!({"concurrency": 1, "proxyMetadata": {"C": "d"}}),
            root_certificate: String::new(),
            trusted_certificates: String::new(),
        };
        let want = json!({"concurrency": 3, "proxyMetadata": {"C": "d", "A": "b"}});
        assert_eq!(proxy_config(&template, &facts), want);
    }

    #[test]
    fn capture_follows_istios_annotations() {
        let mut template = crate::pod::tests::template();
        let flags = |template: &PodTemplate| capture(template).command.join(" ");
        assert!(
            flags(&template).ends_with("-i * -x  -b * -d 15090,15021,15020"),
            "Istio's defaults: {}",
            flags(&template)
        );
        for (name, value, want) in [
            ("excludeInboundPorts", "80", "-d 15090,15021,15020,80"),
            ("includeOutboundIPRanges", "10.0.0.0/8", "-i 10.0.0.0/8"),
            ("excludeOutboundPorts", "25", "-o 25"),
        ] {
            template
                .annotations
                .insert(format!("{TRAFFIC}{name}"), value.to_owned());
            assert!(
                flags(&template).contains(want),
                "{name}: {}",
                flags(&template)
            );
        }
    }
}
