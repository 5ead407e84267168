//! The built-in gateways: their Services' ports and the ports published on the host follow the
//! Gateway objects that select them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use mesh_api::Object;
use mesh_api::parse::{ParseOptions, parse};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{Mutex, Notify};

use crate::error::LocalError;
use crate::manifest::local_mesh::{LocalMesh, ProxyChoice};
use crate::manifest::template::{PodTemplate, ProxyRole, RestartPolicy};
use crate::manifest::{Workload, WorkloadKind, names, role};
use crate::platform::Platform;
use crate::publish::{PortKey, Published, PublishedPorts, parse_key};
use crate::publisher::SharedCatalog;
use crate::services::{LocalService, target_port};

pub const NAMESPACE: &str = "istio-system";
pub const INGRESS: &str = "istio-ingressgateway";
const GATEWAYS: [(&str, &str); 2] = [
    (INGRESS, "ingressgateway"),
    ("istio-egressgateway", "egressgateway"),
];
/// Objects may change without `stolos apply` (a restored store, another client).
const POLL: Duration = Duration::from_secs(1);

/// One published port, for `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedPort {
    pub service: String,
    pub namespace: String,
    pub port: u16,
    pub host_port: u16,
}

/// The two gateways as workloads.
pub fn workloads(settings: &LocalMesh) -> Vec<Workload> {
    GATEWAYS
        .iter()
        .map(|(name, istio)| workload(name, istio, settings.proxy))
        .collect()
}

fn workload(name: &str, istio: &str, proxy: ProxyChoice) -> Workload {
    let labels = [("istio", istio), ("app", name)];
    let mut template = PodTemplate {
        namespace: NAMESPACE.to_owned(),
        labels: labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        annotations: BTreeMap::new(),
        service_account: format!("{name}-service-account"),
        hostname: String::new(),
        subdomain: String::new(),
        containers: Vec::new(),
        volumes: Vec::new(),
        grace: Duration::from_secs(30),
        restart: RestartPolicy::Always,
        proxy: ProxyRole::Router(proxy),
    };
    role::add_labels(&mut template, name);
    let text = serde_json::to_string(&template).unwrap_or_default();
    Workload {
        kind: WorkloadKind::Gateway,
        namespace: NAMESPACE.to_owned(),
        name: name.to_owned(),
        replicas: 1,
        hash: names::template_hash(&text),
        template,
        origin: "built in".to_owned(),
    }
}

/// A gateway's Service with these ports; without any it has the status port, as Istio's has.
pub fn service(name: &str, ports: &BTreeSet<u16>) -> Result<Object, LocalError> {
    let istio = GATEWAYS
        .iter()
        .find(|(known, _)| *known == name)
        .map_or("", |(_, istio)| istio);
    let mut list = vec![json!({"name": "status-port", "port": 15021, "targetPort": 15021})];
    let named = |port: &u16| json!({"name": format!("port-{port}"), "port": port});
    list.extend(ports.iter().filter(|port| **port != 15021).map(named));
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"istio": istio}},
        "spec": {"selector": {"istio": istio}, "ports": list},
    });
    let parsed = parse("built in", &object.to_string(), &ParseOptions::default());
    parsed.objects.into_iter().next().ok_or_else(|| {
        LocalError::failed(format!(
            "BUG: the Service of {name}: {:?}",
            parsed.diagnostics
        ))
    })
}

/// The names of both gateways' Services.
pub fn names() -> impl Iterator<Item = &'static str> {
    GATEWAYS.iter().map(|(name, _)| *name)
}

/// Follows the Gateways and keeps the published ports.
#[derive(Debug)]
pub struct Gateways {
    platform: Arc<Platform>,
    catalog: SharedCatalog,
    settings: std::sync::Mutex<LocalMesh>,
    published: Mutex<PublishedPorts>,
    problems: std::sync::Mutex<BTreeMap<PortKey, String>>,
    wake: Notify,
}

impl Gateways {
    pub fn new(platform: Arc<Platform>, catalog: SharedCatalog, settings: LocalMesh) -> Gateways {
        Gateways {
            platform,
            catalog,
            settings: std::sync::Mutex::new(settings),
            published: Mutex::default(),
            problems: std::sync::Mutex::default(),
            wake: Notify::new(),
        }
    }

    pub fn set_settings(&self, settings: LocalMesh) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
        self.wake.notify_one();
    }

    /// Runs for ever.
    pub async fn run(self: Arc<Self>) {
        let mut version = self.platform.board.version();
        loop {
            self.refresh().await;
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                _ = version.changed() => self.set_targets().await,
                () = self.wake.notified() => {}
            }
        }
    }

    /// One pass: what is there now is published when this returns.
    pub async fn refresh(&self) {
        match self.selected_ports().await {
            Ok(ports) => {
                self.set_services(&ports);
                self.publish(&ports).await;
                self.set_targets().await;
            }
            Err(error) => tracing::debug!(%error, "cannot ask for Gateways"),
        }
    }

    pub async fn published(&self) -> Vec<PublishedPort> {
        let published = self.published.lock().await;
        published
            .iter()
            .map(|(key, published)| PublishedPort {
                service: key.service.clone(),
                namespace: key.namespace.clone().unwrap_or_default(),
                port: key.port,
                host_port: published.host_port,
            })
            .collect()
    }

    /// Ports that could not be published, with the reason.
    pub fn problems(&self) -> Vec<String> {
        let problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        problems.values().cloned().collect()
    }

    /// Gateway service name to the ports that Gateways ask of it.
    async fn selected_ports(&self) -> Result<BTreeMap<&'static str, BTreeSet<u16>>, LocalError> {
        let answer = self
            .platform
            .control
            .get("/v1/objects?kind=Gateway")
            .await?;
        if !answer.is_success() {
            return Err(LocalError::failed(answer.error_text()));
        }
        let json = answer.json();
        let items = json.get("items").or(Some(&json)).and_then(Value::as_array);
        let mut ports: BTreeMap<&'static str, BTreeSet<u16>> = BTreeMap::new();
        for (name, istio) in GATEWAYS {
            let labels = BTreeMap::from([("istio", istio), ("app", name)]);
            let wanted = items
                .into_iter()
                .flatten()
                .filter(|one| selects(one, &labels));
            ports.insert(name, wanted.flat_map(server_ports).collect());
        }
        Ok(ports)
    }

    fn set_services(&self, ports: &BTreeMap<&'static str, BTreeSet<u16>>) {
        let mut changed = false;
        {
            let mut catalog = self.catalog.lock().unwrap_or_else(PoisonError::into_inner);
            for (name, ports) in ports {
                let Ok(object) = service(name, ports) else {
                    continue;
                };
                let key = object.key();
                let known = catalog
                    .services
                    .iter_mut()
                    .find(|one| one.object.key() == key);
                if let Some(known) = known.filter(|known| known.object != object) {
                    known.object = object;
                    changed = true;
                }
            }
        }
        if changed {
            self.platform.board.changed();
        }
    }

    async fn publish(&self, gateway_ports: &BTreeMap<&'static str, BTreeSet<u16>>) {
        let wanted = self.wanted(gateway_ports);
        let mut published = self.published.lock().await;
        published.retain(|key, open| match wanted.get(key) {
            None => false,
            Some(None | Some(0)) => true,
            Some(Some(exact)) => open.host_port == *exact,
        });
        let mut problems = BTreeMap::new();
        for (key, host_port) in wanted {
            if published.contains_key(&key) {
                continue;
            }
            match Published::open(&self.platform.node, key.port, host_port).await {
                Ok(open) => {
                    tracing::info!(service = key.service, port = key.port, on = open.host_port);
                    published.insert(key, open);
                }
                Err(error) => {
                    let port = host_port.unwrap_or(key.port);
                    let text = format!(
                        "cannot publish {}:{} on 127.0.0.1:{port}: {error}; choose another in \
                         `publish` of stolos.yaml",
                        key.service, key.port
                    );
                    problems.insert(key, text);
                }
            }
        }
        *self.problems.lock().unwrap_or_else(PoisonError::into_inner) = problems;
    }

    /// Every port to publish and what the settings say of it.
    fn wanted(
        &self,
        gateway_ports: &BTreeMap<&'static str, BTreeSet<u16>>,
    ) -> BTreeMap<PortKey, Option<u16>> {
        let mut wanted = BTreeMap::new();
        for port in gateway_ports.get(INGRESS).into_iter().flatten() {
            let service = INGRESS.to_owned();
            let namespace = Some(NAMESPACE.to_owned());
            wanted.insert(
                PortKey {
                    service,
                    namespace,
                    port: *port,
                },
                None,
            );
        }
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        for (text, host_port) in &settings.publish {
            let Some(mut key) = parse_key(text) else {
                continue;
            };
            let is_gateway = names().any(|name| name == key.service);
            let default = if is_gateway { NAMESPACE } else { "default" };
            key.namespace.get_or_insert_with(|| default.to_owned());
            wanted.insert(key, Some(*host_port));
        }
        wanted
    }

    /// Each published port leads to the pods that are ready now.
    async fn set_targets(&self) {
        let pods = self.platform.board.pods();
        let services = self
            .catalog
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .services
            .clone();
        for (key, published) in self.published.lock().await.iter() {
            published.set_targets(targets(key, &services, &pods));
        }
    }
}

fn targets(
    key: &PortKey,
    services: &[LocalService],
    pods: &[crate::board::PodRecord],
) -> Vec<SocketAddrV4> {
    let service = services.iter().find(|one| {
        let meta = &one.object.meta;
        meta.name == key.service && Some(&meta.namespace) == key.namespace.as_ref()
    });
    let Some(service) = service else {
        return Vec::new();
    };
    let ports = service
        .spec()
        .map(|spec| spec.ports.as_slice())
        .unwrap_or_default();
    let port = ports.iter().find(|one| one.port == i32::from(key.port));
    let serving = service.serving(pods);
    serving
        .filter_map(|pod| Some(SocketAddrV4::new(pod.ip, target_port(port?, pod)?)))
        .collect()
}

/// Whether a Gateway's selector chooses a pod with these labels.
fn selects(gateway: &Value, labels: &BTreeMap<&str, &str>) -> bool {
    let selector = gateway.pointer("/spec/selector").and_then(Value::as_object);
    selector.is_some_and(|selector| {
        let known =
            |(key, value): (&String, &Value)| labels.get(key.as_str()).copied() == value.as_str();
        !selector.is_empty() && selector.iter().all(known)
    })
}

fn server_ports(gateway: &Value) -> Vec<u16> {
    let servers = gateway.pointer("/spec/servers").and_then(Value::as_array);
    let port = |server: &Value| {
        server
            .pointer("/port/number")?
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
    };
    servers.into_iter().flatten().filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_that_select_the_ingress_give_it_ports() {
        let labels = BTreeMap::from([("istio", "ingressgateway"), ("app", INGRESS)]);
        let gateway = |selector: Value| {
            json!({"spec": {"selector": selector, "servers": [
                {"port": {"number": 80}}, {"port": {"number": 443}}]}})
        };
        for (selector, want, why) in [
            (
                json!({"istio": "ingressgateway"}),
                true,
                "Istio's convention",
            ),
            (json!({"istio": "egressgateway"}), false, "another gateway"),
            (json!({}), false, "no selector selects nothing here"),
            (
                json!({"istio": "ingressgateway", "x": "y"}),
                false,
                "all labels count",
            ),
        ] {
            let gateway = gateway(selector);
            assert_eq!(selects(&gateway, &labels), want, "{why}");
            assert_eq!(server_ports(&gateway), [80, 443]);
        }
    }

    #[test]
    fn services_are_valid() {
        let object = service(INGRESS, &BTreeSet::from([8080])).unwrap();
        assert_eq!(object.meta.namespace, NAMESPACE);
    }
}
