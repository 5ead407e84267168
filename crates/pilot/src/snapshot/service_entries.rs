//! ServiceEntry and WorkloadEntry as services and endpoints (istio.md 1.6, 6.3).

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::kinds::service_entry::{Location, Resolution as Written, ServiceEntry};
use mesh_api::kinds::workload_entry::WorkloadEntry;
use mesh_api::{Kind, Object, Spec};

use super::{Problem, Statuses, of_kind};
use crate::model::{
    Endpoint, EndpointAddress, Health, Labels, Locality, Port, Protocol, Registry, Resolution,
    Service, ServiceKey, TargetPort, TlsMode, Workload, selects,
};
use crate::state::State;
use crate::translate::message::parse_net;

/// Label by which an endpoint says that a sidecar takes mutual TLS.
pub const TLS_MODE_LABEL: &str = "security.istio.io/tlsMode";

/// One service per host of the object.
pub(super) fn services(object: &Object, statuses: &mut Statuses) -> Vec<Service> {
    let Spec::ServiceEntry(spec) = &object.spec else {
        return Vec::new();
    };
    let resolution = match spec.resolution {
        Written::None => Resolution::Passthrough,
        Written::Static => Resolution::ClientSide,
        Written::Dns => Resolution::Dns,
        Written::DnsRoundRobin => Resolution::DnsRoundRobin,
        Written::DynamicDns => {
            let reason = "resolution DYNAMIC_DNS is not performed yet";
            statuses.add(&object.key(), Problem::not_performed(reason));
            return Vec::new();
        }
    };
    let ports: Vec<Port> = spec.ports.iter().filter_map(port).collect();
    let service = |host: &String| {
        let key = ServiceKey::new(host, &object.meta.namespace);
        let mut service = Service::new(key, Registry::External, resolution);
        service.ports = ports.clone();
        service.addresses = spec
            .addresses
            .iter()
            .filter_map(|text| parse_net(text))
            .collect();
        service.external = spec.location == Location::MeshExternal;
        service.export_to = spec.export_to.clone();
        service.labels = object.meta.labels.clone();
        service.selector = spec
            .workload_selector
            .as_ref()
            .map(|s| s.labels.clone())
            .unwrap_or_default();
        service.subject_alt_names = spec.subject_alt_names.clone();
        service.created = object.meta.creation_timestamp;
        service.origin = Some(object.key());
        service
    };
    spec.hosts.iter().map(service).collect()
}

fn port(port: &mesh_api::kinds::port::ServicePort) -> Option<Port> {
    let number = u16::try_from(port.number).ok()?;
    let target = match u16::try_from(port.target_port) {
        Ok(target) if target != 0 => TargetPort::Number(target),
        _ => TargetPort::Same,
    };
    let protocol = Protocol::declared(&port.protocol, number);
    Some(Port {
        name: port.name.clone(),
        number,
        protocol,
        target,
    })
}

/// The endpoints that all ServiceEntry objects give to their hosts.
pub(crate) fn endpoints(state: &State) -> BTreeMap<ServiceKey, Vec<Endpoint>> {
    let mut sets: BTreeMap<ServiceKey, Vec<Endpoint>> = BTreeMap::new();
    for (key, object) in of_kind(state, Kind::ServiceEntry) {
        let Spec::ServiceEntry(spec) = &object.value.spec else {
            continue;
        };
        for host in &spec.hosts {
            let list = host_endpoints(state, &key.namespace, host, spec);
            sets.entry(ServiceKey::new(host, &key.namespace))
                .or_default()
                .extend(list);
        }
    }
    sets
}

fn host_endpoints(
    state: &State,
    namespace: &str,
    host: &str,
    spec: &ServiceEntry,
) -> Vec<Endpoint> {
    let mut list = Vec::new();
    let trust_domain = &state.mesh.value.trust_domain;
    if let Some(selector) = &spec.workload_selector {
        for (key, object) in of_kind(state, Kind::WorkloadEntry) {
            let Spec::WorkloadEntry(entry) = &object.value.spec else {
                continue;
            };
            let mut labels = object.value.meta.labels.clone();
            labels.extend(entry.labels.clone());
            if key.namespace == namespace && selects(&selector.labels, &labels) {
                let place = Place {
                    namespace,
                    name: &key.name,
                    trust_domain,
                };
                list.extend(entry_endpoints(spec, entry, labels, &place));
            }
        }
        let pods = state.workloads.values().map(|workload| &workload.value);
        for workload in pods.filter(|workload| workload.key.namespace == namespace) {
            if selects(&selector.labels, &workload.labels) {
                list.extend(pod_endpoints(spec, workload, trust_domain));
            }
        }
        return list;
    }
    for entry in &spec.endpoints {
        let place = Place {
            namespace,
            name: "",
            trust_domain,
        };
        list.extend(entry_endpoints(spec, entry, entry.labels.clone(), &place));
    }
    let by_dns = matches!(spec.resolution, Written::Dns | Written::DnsRoundRobin);
    if spec.endpoints.is_empty() && by_dns {
        for port in spec.ports.iter().filter_map(port) {
            let number = target_number(&port);
            let address = EndpointAddress::Hostname(host.to_owned());
            list.push(Endpoint::new(address, number, &port.name));
        }
    }
    list
}

/// Where an entry belongs, for its identity and telemetry.
struct Place<'a> {
    namespace: &'a str,
    name: &'a str,
    trust_domain: &'a str,
}

fn target_number(port: &Port) -> u16 {
    match port.target {
        TargetPort::Number(number) => number,
        TargetPort::Same | TargetPort::Name(_) => port.number,
    }
}

fn entry_endpoints(
    spec: &ServiceEntry,
    entry: &WorkloadEntry,
    labels: Labels,
    place: &Place<'_>,
) -> Vec<Endpoint> {
    let tls_mode = match labels.get(TLS_MODE_LABEL).map(String::as_str) {
        Some("istio") => TlsMode::Istio,
        Some(_) => TlsMode::Disabled,
        None if entry.service_account.is_empty() => TlsMode::Disabled,
        None => TlsMode::Istio,
    };
    let identity = if entry.service_account.is_empty() {
        String::new()
    } else {
        let (domain, namespace) = (place.trust_domain, place.namespace);
        format!(
            "spiffe://{domain}/ns/{namespace}/sa/{}",
            entry.service_account
        )
    };
    let labels = Arc::new(labels);
    let ports = spec.ports.iter().filter_map(port);
    let endpoint = |port: Port| {
        let number = match entry.ports.get(&port.name) {
            Some(number) => u16::try_from(*number).ok()?,
            None => target_number(&port),
        };
        let mut endpoint =
            Endpoint::new(EndpointAddress::parse(&entry.address), number, &port.name);
        endpoint.labels = labels.clone();
        endpoint.locality = Locality::parse(&entry.locality);
        endpoint.network = entry.network.clone();
        endpoint.weight = entry.weight.max(1);
        endpoint.identity = identity.clone();
        endpoint.tls_mode = tls_mode;
        endpoint.workload = place.name.to_owned();
        endpoint.namespace = place.namespace.to_owned();
        Some(endpoint)
    };
    ports.filter_map(endpoint).collect()
}

fn pod_endpoints(spec: &ServiceEntry, workload: &Workload, trust_domain: &str) -> Vec<Endpoint> {
    let mut list = Vec::new();
    if workload.health != Health::Healthy {
        return list;
    }
    let labels = Arc::new(workload.labels.clone());
    for port in spec.ports.iter().filter_map(port) {
        for address in &workload.addresses {
            let address = EndpointAddress::Ip(*address);
            let mut endpoint = Endpoint::new(address, target_number(&port), &port.name);
            endpoint.labels = labels.clone();
            fill_from_workload(&mut endpoint, workload, trust_domain);
            list.push(endpoint);
        }
    }
    list
}

/// What an endpoint takes over from the workload behind it.
pub(crate) fn fill_from_workload(endpoint: &mut Endpoint, workload: &Workload, trust_domain: &str) {
    let istio = workload
        .labels
        .get(TLS_MODE_LABEL)
        .is_some_and(|mode| mode == "istio");
    endpoint.locality = workload.locality.clone();
    endpoint.network = workload.network.clone();
    endpoint.identity = format!(
        "spiffe://{trust_domain}/ns/{}/sa/{}",
        workload.key.namespace, workload.service_account
    );
    endpoint.tls_mode = if istio {
        TlsMode::Istio
    } else {
        TlsMode::Disabled
    };
    endpoint.workload = workload.workload_name.clone();
    endpoint.namespace = workload.key.namespace.clone();
    endpoint.hostname = workload.hostname.clone();
    endpoint.subdomain = workload.subdomain.clone();
    endpoint.node = workload.node.clone();
    endpoint.health = workload.health;
}
