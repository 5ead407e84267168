//! Kubernetes-shaped services as model services, and the endpoints behind their selectors: one
//! place for every source that has Service objects and workloads (istio.md 6.2).

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_api::Metadata;
use mesh_api::kinds::core::IntOrString;
use mesh_api::kinds::core::service::{ServicePort, ServiceSpec, ServiceType};

use crate::hostname;
use crate::model::{
    Endpoint, EndpointAddress, Health, Port, Protocol, Registry, Resolution, Service, ServiceKey,
    TargetPort, Workload, selects,
};
use crate::snapshot::service_entries::fill_from_workload;

/// Annotation that limits who sees the service.
const EXPORT_TO: &str = "networking.istio.io/exportTo";

/// The model of a Service object; `domain` is what service names end with.
pub fn service(meta: &Metadata, spec: &ServiceSpec, domain: &str) -> Service {
    let hostname = hostname::service(&meta.name, &meta.namespace, domain);
    let resolution = if spec.r#type == ServiceType::ExternalName {
        Resolution::Alias
    } else if spec.is_headless() {
        Resolution::Passthrough
    } else {
        Resolution::ClientSide
    };
    let key = ServiceKey::new(hostname, &meta.namespace);
    let mut service = Service::new(key, Registry::Kubernetes, resolution);
    service.name = meta.name.clone();
    service.ports = spec.ports.iter().filter_map(port).collect();
    let listed = if spec.cluster_ips.is_empty() {
        std::slice::from_ref(&spec.cluster_ip)
    } else {
        &spec.cluster_ips
    };
    service.addresses = listed
        .iter()
        .filter_map(|text| text.parse::<IpAddr>().ok())
        .map(IpNet::from)
        .collect();
    let export = meta
        .annotations
        .get(EXPORT_TO)
        .map(String::as_str)
        .unwrap_or_default();
    service.export_to = export
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    service.labels = meta.labels.clone();
    service.selector = spec.selector.clone();
    service.publish_not_ready = spec.publish_not_ready_addresses;
    service.created = meta.creation_timestamp;
    service.external_name = (resolution == Resolution::Alias).then(|| spec.external_name.clone());
    service
}

fn port(port: &ServicePort) -> Option<Port> {
    let number = u16::try_from(port.port).ok()?;
    let app = Some(port.app_protocol.as_str()).filter(|app| !app.is_empty());
    let target = match &port.target_port {
        Some(IntOrString::Int(target)) => match u16::try_from(*target) {
            Ok(target) if target != 0 => TargetPort::Number(target),
            _ => TargetPort::Same,
        },
        Some(IntOrString::String(name)) => TargetPort::Name(name.clone()),
        None => TargetPort::Same,
    };
    let transport = if port.protocol.is_empty() {
        "TCP"
    } else {
        &port.protocol
    };
    let protocol = Protocol::of_kubernetes(transport, app, &port.name, number);
    Some(Port {
        name: port.name.clone(),
        number,
        protocol,
        target,
    })
}

/// The workload's port behind a service port; `None` if a named port does not exist there.
pub fn target_port(port: &Port, workload: Option<&Workload>) -> Option<u16> {
    match &port.target {
        TargetPort::Same => Some(port.number),
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => workload
            .and_then(|workload| workload.ports.get(name))
            .copied(),
    }
}

/// The endpoints of a service with a selector: every workload of its namespace that it selects.
pub fn endpoints<'a>(
    service: &Service,
    workloads: impl IntoIterator<Item = &'a Workload>,
    trust_domain: &str,
) -> Vec<Endpoint> {
    let mut list = Vec::new();
    if service.selector.is_empty() {
        return list;
    }
    for workload in workloads {
        let selected = workload.key.namespace == service.key.namespace
            && selects(&service.selector, &workload.labels)
            && workload.health != Health::Terminating;
        if !selected {
            continue;
        }
        let labels = Arc::new(workload.labels.clone());
        for port in &service.ports {
            let Some(number) = target_port(port, Some(workload)) else {
                continue;
            };
            for address in &workload.addresses {
                let address = EndpointAddress::Ip(*address);
                let mut endpoint = Endpoint::new(address, number, &port.name);
                endpoint.labels = labels.clone();
                fill_from_workload(&mut endpoint, workload, trust_domain);
                if service.publish_not_ready {
                    endpoint.health = Health::Healthy;
                }
                list.push(endpoint);
            }
        }
    }
    list
}
