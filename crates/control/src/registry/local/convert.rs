//! Registry entries as pilot's model; a bad entry is left out alone.

use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::kinds::core::ServiceSpec;
use mesh_api::parse::{ParseOptions, parse};
use mesh_api::{Object, Spec};
use pilot::model::{Endpoint, Health, Locality, Resolution, Service, Workload, WorkloadKey};
use pki::{SpiffeId, TrustDomain};
use serde_json::json;

use super::{Contents, PodEntry, RegistryFile};

/// The file's meaning, and what of it was left out with the reason.
pub(super) fn contents(
    file: &RegistryFile,
    domain: &str,
    trust_domain: &TrustDomain,
) -> (Contents, Vec<String>) {
    let mut contents = Contents::default();
    let mut problems = Vec::new();
    for namespace in &file.namespaces {
        let value = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": namespace.name, "labels": namespace.labels},
        });
        if let Some(object) = object(&value, &mut problems) {
            contents.namespaces.insert(object.key(), Arc::new(object));
        }
    }
    let pods = pods(file, trust_domain, &mut problems);
    for pod in &pods {
        contents.workloads.insert(pod.key.clone(), pod.clone());
    }
    for value in &file.services {
        let Some(object) = object(value, &mut problems) else {
            continue;
        };
        let Spec::Service(spec) = &object.spec else {
            problems.push(format!("{} is no Service", object.key()));
            continue;
        };
        check(&object, spec, &mut problems);
        let service = pilot::kubernetes::service(&object.meta, spec, domain);
        if !service.selector.is_empty() && service.resolution != Resolution::Alias {
            let endpoints = endpoints(&service, &pods, trust_domain);
            contents.endpoints.insert(service.key.clone(), endpoints);
        }
        contents
            .services
            .insert(service.key.clone(), Arc::new(service));
    }
    (contents, problems)
}

fn object(value: &serde_json::Value, problems: &mut Vec<String>) -> Option<Object> {
    let parsed = parse("registry", &value.to_string(), &ParseOptions::default());
    problems.extend(parsed.diagnostics.iter().map(ToString::to_string));
    parsed.objects.into_iter().next()
}

/// What the model would drop in silence.
fn check(object: &Object, spec: &ServiceSpec, problems: &mut Vec<String>) {
    let is_address = |text: &&String| text.parse::<IpAddr>().is_ok();
    let given = std::iter::once(&spec.cluster_ip).chain(&spec.cluster_ips);
    for text in given.filter(|text| !text.is_empty() && *text != "None" && !is_address(text)) {
        problems.push(format!("{}: `{text}` is no address", object.key()));
    }
    for port in spec
        .ports
        .iter()
        .filter(|port| u16::try_from(port.port).is_err())
    {
        problems.push(format!(
            "{}: port {} is out of range",
            object.key(),
            port.port
        ));
    }
}

fn pods(
    file: &RegistryFile,
    trust_domain: &TrustDomain,
    problems: &mut Vec<String>,
) -> Vec<Arc<Workload>> {
    let mut pods = Vec::new();
    for entry in file.pods.iter().filter(|entry| !entry.ip.is_empty()) {
        let PodEntry {
            namespace,
            name,
            ip,
            service_account,
            ..
        } = entry;
        let Ok(address) = ip.parse::<IpAddr>() else {
            problems.push(format!("pod {namespace}/{name}: `{ip}` is no address"));
            continue;
        };
        if let Err(error) = SpiffeId::new(trust_domain.clone(), namespace, service_account) {
            problems.push(format!("pod {namespace}/{name}: {error}"));
            continue;
        }
        pods.push(Arc::new(workload(entry, address)));
    }
    pods
}

fn workload(entry: &PodEntry, address: IpAddr) -> Workload {
    let key = WorkloadKey::new(&entry.namespace, &entry.name);
    let mut workload = Workload::new(key, vec![address]);
    workload.labels.clone_from(&entry.labels);
    workload.annotations.clone_from(&entry.annotations);
    workload.service_account.clone_from(&entry.service_account);
    let named = entry.ports.iter().filter(|port| !port.name.is_empty());
    workload.ports = named
        .map(|port| (port.name.clone(), port.container_port))
        .collect();
    if !entry.workload_name.is_empty() {
        workload.workload_name.clone_from(&entry.workload_name);
    }
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    workload.hostname = some(&entry.hostname);
    workload.subdomain = some(&entry.subdomain);
    let locality = ["topology.istio.io/locality", "istio-locality"];
    if let Some(text) = locality.iter().find_map(|label| entry.labels.get(*label)) {
        workload.locality = Locality::parse(&text.replace('.', "/"));
    }
    workload.health = match entry {
        PodEntry {
            terminating: true, ..
        } => Health::Terminating,
        PodEntry { ready: true, .. } => Health::Healthy,
        _ => Health::Unhealthy,
    };
    workload.created = entry
        .created_at
        .parse::<jiff::Timestamp>()
        .ok()
        .map(jiff::Timestamp::as_second);
    workload
}

/// Unready pods serve only where the service says so; terminating ones never.
fn endpoints(
    service: &Service,
    pods: &[Arc<Workload>],
    trust_domain: &TrustDomain,
) -> Vec<Endpoint> {
    let serving = pods
        .iter()
        .map(Arc::as_ref)
        .filter(|workload| match workload.health {
            Health::Healthy => true,
            Health::Unhealthy => service.publish_not_ready,
            Health::Draining | Health::Terminating => false,
        });
    pilot::kubernetes::endpoints(service, serving, trust_domain.as_str())
}
