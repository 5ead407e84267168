//! The local platform's own objects: pods, deployments, services, namespaces, in Kubernetes'
//! shape.

use jiff::Timestamp;
use local::board::PodStatus;
use local::supervisor::api::{MeshStatus, WorkloadStatus};
use serde_json::{Value, json};

use crate::commands::apply::{list, word};
use crate::exit::CliError;
use crate::mesh::Mesh;

/// `None` when the word means a kind that the control plane keeps.
pub async fn objects(mesh: &Mesh, kind: &str) -> Result<Option<Vec<Value>>, CliError> {
    Ok(Some(match kind.to_lowercase().as_str() {
        "pods" | "pod" | "po" => mesh.status().await?.pods.iter().map(pod).collect(),
        "deployments" | "deployment" | "deploy" => {
            let status: MeshStatus = mesh.status().await?;
            status
                .workloads
                .iter()
                .filter(|one| one.kind == "Deployment")
                .map(deployment)
                .collect()
        }
        "services" | "service" | "svc" => services(mesh)?,
        "namespaces" | "namespace" | "ns" => namespaces(mesh)?,
        _ => return Ok(None),
    }))
}

fn pod(pod: &PodStatus) -> Value {
    let ready = pod.containers.values().filter(|one| one.ready).count();
    let restarts: u32 = pod.containers.values().map(|one| one.restarts).sum();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod.name, "namespace": pod.namespace, "labels": pod.labels,
            "creationTimestamp": timestamp(pod.created_at),
        },
        "status": {
            "phase": pod.phase, "podIP": pod.ip, "status": pod.status, "message": pod.message,
            "ready": format!("{ready}/{}", pod.containers.len()), "restarts": restarts,
            "proxy": pod.proxy, "identity": pod.identity, "containers": pod.containers,
        },
    })
}

fn deployment(workload: &WorkloadStatus) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": workload.name, "namespace": workload.namespace, "labels": {}},
        "spec": {"replicas": workload.replicas},
        "status": {
            "ready": format!("{}/{}", workload.ready, workload.replicas),
            "updatedReplicas": if workload.up_to_date { workload.replicas } else { 0 },
            "availableReplicas": workload.ready,
        },
    })
}

fn registry(mesh: &Mesh) -> Result<Value, CliError> {
    let path = mesh.state.registry();
    let text = std::fs::read_to_string(&path)
        .map_err(|error| CliError::failed(format!("{}: {error}", path.display())))?;
    serde_json::from_str(&text)
        .map_err(|error| CliError::failed(format!("{}: {error}", path.display())))
}

fn namespaces(mesh: &Mesh) -> Result<Vec<Value>, CliError> {
    let json = registry(mesh)?;
    let namespaces = list(&json, "namespaces").iter().map(|one| {
        json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": one["name"], "labels": one["labels"]},
            "status": {"phase": "Active"},
        })
    });
    Ok(namespaces.collect())
}

/// From the registry, where the virtual IPs are filled in.
fn services(mesh: &Mesh) -> Result<Vec<Value>, CliError> {
    let json = registry(mesh)?;
    let mut services = list(&json, "services").to_vec();
    for service in &mut services {
        let ports: Vec<String> = list(&service["spec"], "ports")
            .iter()
            .map(|port| {
                let protocol = Some(word(port, "protocol")).filter(|one| !one.is_empty());
                format!("{}/{}", port["port"], protocol.unwrap_or("TCP"))
            })
            .collect();
        service["kind"] = json!("Service");
        service["status"] = json!({"ports": ports.join(",")});
        if word(&service["spec"], "type").is_empty() {
            service["spec"]["type"] = json!("ClusterIP");
        }
    }
    Ok(services)
}

fn timestamp(seconds: i64) -> String {
    Timestamp::from_second(seconds)
        .map(|one| one.to_string())
        .unwrap_or_default()
}
