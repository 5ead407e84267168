//! Carries the board's state outwards after each change: the registry file for the control
//! plane, the rules for virtual IPs, the names. One task, so that the order is one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::board::{Board, PodRecord};
use crate::dns::NameServer;
use crate::manifest::template::PodTemplate;
use crate::nft::{self, VirtualPort};
use crate::node::Node;
use crate::services::{self, LocalService};
use crate::state_dir::{StateDir, replace_file};

/// What is published besides pods; changed by the supervisor.
#[derive(Debug, Default, Clone)]
pub struct Catalog {
    pub services: Vec<LocalService>,
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    pub hosts: BTreeMap<String, String>,
}

/// The catalog, shared between the supervisor and the publisher.
pub type SharedCatalog = Arc<Mutex<Catalog>>;

pub struct Publisher {
    pub node: Node,
    pub board: Board,
    pub state: StateDir,
    pub catalog: SharedCatalog,
    pub names: NameServer,
    pub published: watch::Sender<u64>,
}

impl Publisher {
    /// Runs for ever; a failure is logged and tried again with the next change.
    pub async fn run(self) {
        let mut version = self.board.version();
        let mut rules: Option<Vec<VirtualPort>> = None;
        let mut registry = String::new();
        loop {
            let current = *version.borrow_and_update();
            let pods = self.board.pods();
            let catalog = self
                .catalog
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            self.names
                .set_names(services::names(&catalog.services, &pods, &catalog.hosts));
            let ports = services::virtual_ports(&catalog.services, &pods);
            if rules.as_ref() != Some(&ports) {
                match self
                    .node
                    .feed(&["nft", "-f", "-"], nft::ruleset(&ports))
                    .await
                {
                    Ok(()) => rules = Some(ports),
                    Err(error) => tracing::error!(%error, "virtual IPs are not up to date"),
                }
            }
            let content = registry_content(&catalog, &pods);
            if content != registry {
                match replace_file(&self.state.registry(), content.as_bytes()) {
                    Ok(()) => registry = content,
                    Err(error) => tracing::error!(%error, "cannot write the registry"),
                }
            }
            self.published.send_replace(current);
            if version.changed().await.is_err() {
                return;
            }
        }
    }
}

fn registry_content(catalog: &Catalog, pods: &[PodRecord]) -> String {
    let services: Vec<Value> = catalog.services.iter().map(service_json).collect();
    let pods: Vec<Value> = pods.iter().map(pod_json).collect();
    let namespaces: Vec<Value> = catalog
        .namespaces
        .iter()
        .map(|(name, labels)| json!({"name": name, "labels": labels}))
        .collect();
    json!({"services": services, "pods": pods, "namespaces": namespaces}).to_string()
}

/// The Service with its virtual IP, as the API server would show it.
pub fn service_json(service: &LocalService) -> Value {
    let mut object = service.object.to_json();
    let address = service
        .address
        .map_or_else(|| "None".to_owned(), |one| one.to_string());
    let is_external = service
        .spec()
        .is_some_and(|spec| !services::wants_address(spec))
        && !service.spec().is_some_and(|spec| spec.is_headless());
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut)
        && !is_external
    {
        spec.insert("clusterIP".to_owned(), json!(address));
    }
    object
}

fn pod_json(pod: &PodRecord) -> Value {
    let template: &PodTemplate = &pod.template;
    let created = jiff::Timestamp::from_second(pod.created_at).unwrap_or_default();
    let ports: Vec<Value> = template
        .containers
        .iter()
        .flat_map(|container| &container.ports)
        .map(|port| json!({"name": port.name, "containerPort": port.port}))
        .collect();
    json!({
        "namespace": pod.namespace,
        "name": pod.name,
        "uid": pod.uid,
        "ip": pod.ip,
        "labels": template.labels,
        "annotations": template.annotations,
        "serviceAccount": template.service_account,
        "ready": pod.ready,
        "terminating": pod.terminating,
        "workloadName": pod.workload,
        "hostname": template.hostname,
        "subdomain": template.subdomain,
        "ports": ports,
        "tokenSha256": pod.token_sha256,
        "createdAt": created.to_string(),
    })
}
