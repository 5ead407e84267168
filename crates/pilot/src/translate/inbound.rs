//! What a sidecar serves: the ports of its workload, each with its protocol, mutual TLS mode and
//! cluster (istio.md 2.3).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::kinds::connection_pool::ConnectionPoolSettings;
use mesh_api::kinds::sidecar::IstioIngressListener;
use mesh_api::kinds::tls_settings::ServerTlsSettings;

use crate::kubernetes;
use crate::model::{
    EndpointAddress, Port, Protocol, ProxyView, Registry, Resolution, Service, selects,
};
use crate::snapshot::{ServiceEntryRef, Snapshot};
use crate::state::Revision;

/// A service port that the proxy's workload serves.
pub struct Instance {
    pub entry: Arc<ServiceEntryRef>,
    pub port: Port,
    pub target: u16,
}

/// By selector (whether ready or not) or, for written services, by address.
pub fn instances(snapshot: &Snapshot, view: &ProxyView) -> Vec<Instance> {
    let mut list = Vec::new();
    for entry in snapshot.services.iter() {
        let service = &entry.service;
        if service.resolution == Resolution::Alias {
            continue;
        }
        let selected = !service.selector.is_empty()
            && service.key.namespace == view.namespace
            && selects(&service.selector, &view.labels);
        if selected {
            for port in &service.ports {
                let target = kubernetes::target_port(port, view.workload.as_deref());
                push(&mut list, entry, port, target);
            }
        } else {
            by_address(snapshot, view, entry, &mut list);
        }
    }
    list
}

fn by_address(
    snapshot: &Snapshot,
    view: &ProxyView,
    entry: &Arc<ServiceEntryRef>,
    list: &mut Vec<Instance>,
) {
    let service = &entry.service;
    // The platform's services name their workloads by selector.
    let platform = service.registry == Registry::Kubernetes;
    let foreign = !view.is_router() && service.key.namespace != view.namespace;
    if (platform && !service.selector.is_empty()) || (foreign && !platform) {
        return;
    }
    let set = snapshot.endpoints.read(&service.key);
    for endpoint in &set.endpoints {
        let own = matches!(endpoint.address, EndpointAddress::Ip(address)
            if view.addresses.contains(&address));
        if let (true, Some(port)) = (own, service.port_named(&endpoint.service_port)) {
            push(list, entry, port, Some(endpoint.port));
        }
    }
}

fn push(list: &mut Vec<Instance>, entry: &Arc<ServiceEntryRef>, port: &Port, target: Option<u16>) {
    let Some(target) = target.filter(|_| port.protocol != Protocol::Udp) else {
        return;
    };
    list.push(Instance {
        entry: entry.clone(),
        port: port.clone(),
        target,
    });
}

/// Where the application behind a port is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// The address the client asked for.
    Original,
    Address(String, u16),
    Pipe(String),
}

/// One port on which the sidecar takes connections for its application.
pub struct Served {
    pub port: u16,
    pub protocol: Protocol,
    /// `0.0.0.0_80`, or with the bind of a Sidecar's ingress listener.
    pub chain_name: String,
    pub service_port: u16,
    pub service_port_name: String,
    /// All services on this port, by host; the oldest decides the protocol.
    pub services: Vec<Arc<Service>>,
    pub revision: Option<Revision>,
    pub backend: Backend,
    pub bind: Option<IpAddr>,
    /// The ingress listener's own TLS.
    pub tls: Option<ServerTlsSettings>,
    pub pool: Option<ConnectionPoolSettings>,
}

/// The ports of the Sidecar's ingress if there is one, else those of the services.
pub fn served(snapshot: &Snapshot, view: &ProxyView) -> Vec<Served> {
    let scope = snapshot.scope(view);
    match scope
        .sidecar
        .as_ref()
        .filter(|sidecar| !sidecar.spec.ingress.is_empty())
    {
        Some(sidecar) => sidecar
            .spec
            .ingress
            .iter()
            .filter_map(|ingress| {
                let mut served = from_ingress(ingress, view)?;
                let shared = &sidecar.spec.inbound_connection_pool;
                served.pool = served.pool.or_else(|| shared.clone());
                served.revision = Some(sidecar.revision);
                Some(served)
            })
            .collect(),
        None => from_services(snapshot, view),
    }
}

fn from_services(snapshot: &Snapshot, view: &ProxyView) -> Vec<Served> {
    let local = snapshot.mesh.inbound_traffic_policy.mode
        == mesh_api::mesh_config::MeshInboundMode::Localhost;
    let scope = snapshot.scope(view);
    let pool = scope
        .sidecar
        .as_ref()
        .and_then(|s| s.spec.inbound_connection_pool.clone());
    let mut by_port: BTreeMap<u16, Served> = BTreeMap::new();
    for instance in instances(snapshot, view) {
        let service = instance.entry.service.clone();
        let served = by_port.entry(instance.target).or_insert_with(|| {
            let rule = snapshot
                .destination_rules
                .find(&view.namespace, &view.labels, &service.key);
            let own = rule.and_then(|rule| {
                super::cluster_policy::Policy::resolve(
                    Some(&rule.spec),
                    None,
                    instance.port.number,
                    &snapshot.mesh,
                )
                .connection_pool
            });
            let loopback = Backend::Address(view.loopback().to_owned(), instance.target);
            Served {
                port: instance.target,
                protocol: instance.port.protocol,
                chain_name: format!("{}_{}", view.wildcard(), instance.target),
                service_port: instance.port.number,
                service_port_name: instance.port.name.clone(),
                services: Vec::new(),
                revision: None,
                backend: if local { loopback } else { Backend::Original },
                bind: None,
                tls: None,
                pool: pool.clone().or(own),
            }
        });
        let known = served.services.iter().any(|known| known.key == service.key);
        if !known {
            served.services.push(service);
        }
    }
    let mut list: Vec<Served> = by_port.into_values().collect();
    for served in &mut list {
        served
            .services
            .sort_by(|one, other| one.key.cmp(&other.key));
    }
    list
}

fn from_ingress(ingress: &IstioIngressListener, view: &ProxyView) -> Option<Served> {
    let port = ingress.port.as_ref()?;
    let number = u16::try_from(port.number).ok()?;
    let own = view
        .addresses
        .first()
        .map(ToString::to_string)
        .unwrap_or_default();
    let bind = if ingress.bind.is_empty() {
        own.clone()
    } else {
        ingress.bind.clone()
    };
    let backend = match ingress.default_endpoint.as_str() {
        "" => Backend::Original,
        text => match text.strip_prefix("unix://") {
            Some(path) => Backend::Pipe(path.to_owned()),
            None => {
                let (host, port) = text.rsplit_once(':')?;
                let host = host.trim_matches(['[', ']']);
                // The wildcard means the pod's own address.
                let host = if matches!(host, "0.0.0.0" | "::") {
                    &own
                } else {
                    host
                };
                Backend::Address(host.to_owned(), port.parse().ok()?)
            }
        },
    };
    Some(Served {
        port: number,
        protocol: Protocol::declared(&port.protocol, number),
        chain_name: format!("{bind}_{number}"),
        service_port: number,
        service_port_name: port.name.clone(),
        services: Vec::new(),
        revision: None,
        backend,
        bind: bind.parse().ok(),
        tls: ingress.tls.clone(),
        pool: ingress.connection_pool.clone(),
    })
}
