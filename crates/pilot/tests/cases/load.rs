//! A mesh and a proxy from YAML: what golden cases and the simulation set are written in.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use envoy_api::core::{Extension, Node};
use mesh_api::mesh_config::MeshConfig;
use mesh_api::parse::{ParseOptions, parse};
use mesh_api::{Object, Spec};
use pilot::model::{Endpoint, EndpointAddress, Service, Workload, WorkloadKey};
use pilot::{Event, ProxyView, Snapshot, State, kubernetes};
use serde_json::{Value, json};

/// Istio's test data, or `None` with one line on why a suite does not run.
pub fn testdata(path: &str) -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/testdata");
    let root = std::env::var_os("STOLOS_TESTDATA").map_or(beside, PathBuf::from);
    let full = root.join(path);
    if full.exists() {
        return Some(full);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "CI needs the test data at {}",
        full.display()
    );
    println!("not run: no test data at {}", full.display());
    None
}

/// Collects events in the order in which a source would report them.
pub struct Mesh {
    pub state: State,
    workloads: Vec<Workload>,
    services: Vec<Service>,
    domain: String,
}

impl Mesh {
    pub fn new(config: MeshConfig, domain: &str) -> Self {
        Self::with_domains(config, domain, domain)
    }

    /// Short names in rules may be completed otherwise than services are named.
    pub fn with_domains(config: MeshConfig, rules: &str, services: &str) -> Self {
        Self {
            state: State::with_domain(Arc::new(config), rules),
            workloads: Vec::new(),
            services: Vec::new(),
            domain: services.to_owned(),
        }
    }

    /// Applies every document; `Workload` and `EndpointSlice` are the registry's.
    pub fn apply(&mut self, text: &str) {
        for document in mesh_documents(text) {
            match document["kind"].as_str() {
                Some("Workload") => self.workload(&document),
                Some("EndpointSlice") => self.slice(&document),
                Some(_) => self.object(&document),
                None => {}
            }
        }
        self.connect();
    }

    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        self.state.snapshot().0
    }

    fn object(&mut self, document: &Value) {
        let options = ParseOptions {
            default_namespace: "default".to_owned(),
        };
        let parsed = parse("mesh.yaml", &document.to_string(), &options);
        let errors: Vec<String> = parsed
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.is_error())
            .map(ToString::to_string)
            .collect();
        assert!(errors.is_empty(), "{errors:?}\nin {document}");
        for object in parsed.objects {
            self.typed(object);
        }
    }

    fn typed(&mut self, object: Object) {
        if let Spec::Service(spec) = &object.spec {
            let service = kubernetes::service(&object.meta, spec, &self.domain);
            self.services.push(service.clone());
            self.state.apply(Event::Service(Arc::new(service)));
            return;
        }
        self.state.apply(Event::Object(Arc::new(object)));
    }

    fn workload(&mut self, document: &Value) {
        let text = |path: &str| document[path].as_str().unwrap_or_default().to_owned();
        let name = document["metadata"]["name"].as_str().unwrap_or_default();
        let namespace = document["metadata"]["namespace"]
            .as_str()
            .unwrap_or("default");
        let address: IpAddr = text("address").parse().expect("a workload has an address");
        let mut workload = Workload::new(WorkloadKey::new(namespace, name), vec![address]);
        workload.labels = labels(&document["metadata"]["labels"]);
        if document["serviceAccount"].is_string() {
            workload.service_account = text("serviceAccount");
        }
        if document["workloadName"].is_string() {
            workload.workload_name = text("workloadName");
        }
        workload.locality = pilot::model::Locality::parse(&text("locality"));
        workload.hostname = document["hostname"].as_str().map(str::to_owned);
        workload.subdomain = document["subdomain"].as_str().map(str::to_owned);
        self.workloads.push(workload.clone());
        self.state.apply(Event::Workload(Arc::new(workload)));
    }

    fn slice(&mut self, document: &Value) {
        let metadata = &document["metadata"];
        let name = metadata["labels"]["kubernetes.io/service-name"]
            .as_str()
            .unwrap_or_default();
        let namespace = metadata["namespace"].as_str().unwrap_or("default");
        let service = pilot::hostname::service(name, namespace, &self.domain);
        let mut endpoints = Vec::new();
        for port in document["ports"].as_array().into_iter().flatten() {
            for endpoint in document["endpoints"].as_array().into_iter().flatten() {
                for address in endpoint["addresses"].as_array().into_iter().flatten() {
                    let address = EndpointAddress::parse(address.as_str().unwrap_or_default());
                    let number = port["port"].as_u64().unwrap_or_default() as u16;
                    let port_name = port["name"].as_str().unwrap_or_default();
                    endpoints.push(Endpoint::new(address, number, port_name));
                }
            }
        }
        self.state.apply(Event::Endpoints {
            service: pilot::model::ServiceKey::new(service, namespace),
            shard: "slices".to_owned(),
            endpoints,
        });
    }

    /// Selectors times workloads.
    fn connect(&mut self) {
        for service in &self.services {
            let endpoints = kubernetes::endpoints(service, &self.workloads, "cluster.local");
            self.state.apply(Event::Endpoints {
                service: service.key.clone(),
                shard: "registry".to_owned(),
                endpoints,
            });
        }
    }
}

fn mesh_documents(text: &str) -> Vec<Value> {
    super::yaml::read(text)
        .into_iter()
        .filter(|document| !document.is_null())
        .collect()
}

pub fn labels(value: &Value) -> pilot::model::Labels {
    let pairs = value.as_object().into_iter().flatten();
    pairs
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}

/// Node of a proxy: `{type, name, namespace, ip, labels, extensions, metadata}`.
pub fn node(proxy: &Value) -> Node {
    let text = |key: &str, default: &str| proxy[key].as_str().unwrap_or(default).to_owned();
    let kind = text("type", "sidecar");
    let (name, namespace) = (text("name", "app"), text("namespace", "default"));
    let ip = text("ip", "1.1.1.1");
    let domain = text("dnsDomain", &format!("{namespace}.svc.cluster.local"));
    let mut metadata = json!({
        "NAMESPACE": namespace,
        "LABELS": proxy["labels"],
        "INSTANCE_IPS": proxy["ips"].as_array().map_or(ip.clone(), |ips| {
            ips.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
        }),
    });
    for (key, value) in proxy["metadata"].as_object().into_iter().flatten() {
        metadata[key] = value.clone();
    }
    let extensions = proxy["extensions"].as_array().into_iter().flatten();
    Node {
        id: format!("{kind}~{ip}~{name}.{namespace}~{domain}"),
        metadata: Some(structure(&metadata)),
        extensions: extensions
            .filter_map(Value::as_str)
            .map(|name| Extension {
                name: name.to_owned(),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}

pub fn view(proxy: &Value, snapshot: &Snapshot) -> ProxyView {
    ProxyView::from_node(&node(proxy), None, snapshot).expect("a valid node")
}

fn structure(value: &Value) -> prost_types::Struct {
    let fields = value.as_object().into_iter().flatten();
    prost_types::Struct {
        fields: fields.map(|(k, v)| (k.clone(), wire(v))).collect(),
    }
}

fn wire(value: &Value) -> prost_types::Value {
    use prost_types::value::Kind;
    let kind = match value {
        Value::Object(_) => Kind::StructValue(structure(value)),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Bool(value) => Kind::BoolValue(*value),
        other => Kind::NumberValue(other.as_f64().unwrap_or_default()),
    };
    prost_types::Value { kind: Some(kind) }
}
