//! Services and the pods behind them: virtual ports for the node's rules, names for its DNS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use mesh_api::kinds::core::IntOrString;
use mesh_api::kinds::core::service::{ServicePort, ServiceSpec, ServiceType};
use mesh_api::{Object, Spec};

use crate::board::PodRecord;
use crate::network::NODE_ADDRESS;
use crate::nft::{Protocol, VirtualPort};

/// The zone of all names of the mesh.
pub const DOMAIN: &str = "cluster.local";
/// The control plane's name; it listens on the node's address.
pub const CONTROL_HOST: &str = "istiod.istio-system.svc";

/// A Service and its virtual IP; none if it is headless or an external name.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalService {
    pub object: Object,
    pub address: Option<Ipv4Addr>,
}

impl LocalService {
    pub fn spec(&self) -> Option<&ServiceSpec> {
        match &self.object.spec {
            Spec::Service(spec) => Some(spec),
            _ => None,
        }
    }

    pub fn key(&self) -> String {
        format!("{}/{}", self.object.meta.namespace, self.object.meta.name)
    }

    /// Whether the pod is one of the service's.
    pub fn selects(&self, pod: &PodRecord) -> bool {
        let Some(spec) = self.spec() else {
            return false;
        };
        !spec.selector.is_empty()
            && pod.namespace == self.object.meta.namespace
            && spec
                .selector
                .iter()
                .all(|(key, value)| pod.template.labels.get(key) == Some(value))
    }

    /// Pods that get traffic now.
    pub fn serving<'a>(&'a self, pods: &'a [PodRecord]) -> impl Iterator<Item = &'a PodRecord> {
        let unready_too = self
            .spec()
            .is_some_and(|spec| spec.publish_not_ready_addresses);
        pods.iter().filter(move |pod| {
            self.selects(pod) && (unready_too || (pod.ready && !pod.terminating))
        })
    }
}

/// Whether a service gets a virtual IP.
pub fn wants_address(spec: &ServiceSpec) -> bool {
    !spec.is_headless() && spec.r#type != ServiceType::ExternalName
}

/// Where a port of a service leads in one pod.
pub fn target_port(port: &ServicePort, pod: &PodRecord) -> Option<u16> {
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => {
            let mut ports = pod.template.containers.iter().flat_map(|one| &one.ports);
            return ports.find(|one| one.name == *name).map(|one| one.port);
        }
    };
    u16::try_from(number).ok()
}

/// Every port that has a virtual IP, with its ready endpoints.
pub fn virtual_ports(services: &[LocalService], pods: &[PodRecord]) -> Vec<VirtualPort> {
    let mut ports = Vec::new();
    for service in services {
        let (Some(address), Some(spec)) = (service.address, service.spec()) else {
            continue;
        };
        for port in &spec.ports {
            let protocol = match port.protocol.as_str() {
                "" | "TCP" => Protocol::Tcp,
                "UDP" => Protocol::Udp,
                _ => continue,
            };
            let Ok(number) = u16::try_from(port.port) else {
                continue;
            };
            let serving = service.serving(pods);
            let mut endpoints: Vec<SocketAddrV4> = serving
                .filter_map(|pod| Some(SocketAddrV4::new(pod.ip, target_port(port, pod)?)))
                .collect();
            endpoints.sort_unstable();
            let by_client = spec.session_affinity == "ClientIP";
            ports.push(VirtualPort {
                address,
                protocol,
                port: number,
                endpoints,
                by_client,
            });
        }
    }
    ports.sort();
    ports
}

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    Addresses(Vec<Ipv4Addr>),
    /// Another name (ExternalName).
    Alias(String),
}

/// All names of the mesh, lower-case, without the last dot.
pub fn names(
    services: &[LocalService],
    pods: &[PodRecord],
    hosts: &BTreeMap<String, String>,
) -> BTreeMap<String, Name> {
    let mut names = BTreeMap::new();
    names.insert(
        format!("{CONTROL_HOST}.{DOMAIN}"),
        Name::Addresses(vec![NODE_ADDRESS]),
    );
    for service in services {
        let Some(spec) = service.spec() else { continue };
        let meta = &service.object.meta;
        let host = format!("{}.{}.svc.{DOMAIN}", meta.name, meta.namespace);
        if spec.r#type == ServiceType::ExternalName {
            names.insert(host, Name::Alias(spec.external_name.to_ascii_lowercase()));
            continue;
        }
        if let Some(address) = service.address {
            names.insert(host, Name::Addresses(vec![address]));
            continue;
        }
        let serving: Vec<&PodRecord> = service.serving(pods).collect();
        for pod in &serving {
            let template = &pod.template;
            if !template.hostname.is_empty() && template.subdomain == meta.name {
                let name = format!("{}.{host}", template.hostname);
                names.insert(name, Name::Addresses(vec![pod.ip]));
            }
        }
        let addresses: BTreeSet<Ipv4Addr> = serving.iter().map(|pod| pod.ip).collect();
        names.insert(host, Name::Addresses(addresses.into_iter().collect()));
    }
    for (name, target) in hosts {
        let meaning = match target.parse() {
            Ok(address) => Name::Addresses(vec![address]),
            Err(_) => Name::Alias(format!("{target}.svc.{DOMAIN}")),
        };
        names.insert(name.to_ascii_lowercase(), meaning);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{Phase, PodRecord};
    use mesh_api::parse::{ParseOptions, parse};
    use std::sync::Arc;

    fn service(text: &str, address: Option<&str>) -> LocalService {
        let parsed = parse("test", text, &ParseOptions::default());
        let object = parsed.objects.into_iter().next().unwrap();
        LocalService {
            object,
            address: address.map(|one| one.parse().unwrap()),
        }
    }

    fn pod(name: &str, ip: &str, ready: bool) -> PodRecord {
        let mut template = crate::pod::tests::template();
        template.labels.insert("app".to_owned(), "a".to_owned());
        template.hostname = name.to_owned();
        template.subdomain = "a".to_owned();
        PodRecord {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            uid: String::new(),
            ip: ip.parse().unwrap(),
            workload: "a".to_owned(),
            template: Arc::new(template),
            token_sha256: String::new(),
            created_at: 0,
            ready,
            terminating: false,
            phase: Phase::Running,
            containers: BTreeMap::new(),
            pid: 0,
            message: String::new(),
        }
    }

    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: default}\n\
                           spec:\n  selector: {app: a}\n  ports: [{port: 80, targetPort: 8080}]\n";

    #[test]
    fn only_ready_pods_are_endpoints() {
        let service = service(SERVICE, Some("10.96.0.20"));
        let pods = [pod("x", "10.244.0.2", true), pod("y", "10.244.0.3", false)];
        let ports = virtual_ports(&[service], &pods);
        assert_eq!(ports[0].endpoints, ["10.244.0.2:8080".parse().unwrap()]);
    }

    #[test]
    fn headless_services_answer_with_pods_and_by_pod_name() {
        let headless = service(&SERVICE.replace("spec:", "spec:\n  clusterIP: None"), None);
        let pods = [pod("x", "10.244.0.2", true), pod("y", "10.244.0.3", true)];
        let hosts = BTreeMap::from([("Example.org".to_owned(), "a.default".to_owned())]);
        let names = names(&[headless], &pods, &hosts);
        let of = |list: &[&str]| Name::Addresses(list.iter().map(|a| a.parse().unwrap()).collect());
        for (name, want) in [
            (
                "a.default.svc.cluster.local",
                of(&["10.244.0.2", "10.244.0.3"]),
            ),
            ("y.a.default.svc.cluster.local", of(&["10.244.0.3"])),
            ("istiod.istio-system.svc.cluster.local", of(&["10.244.0.1"])),
            (
                "example.org",
                Name::Alias("a.default.svc.cluster.local".to_owned()),
            ),
        ] {
            assert_eq!(names.get(name), Some(&want), "{name}");
        }
    }
}
