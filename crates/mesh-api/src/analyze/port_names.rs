//! Names of Service ports that say nothing about the protocol.

use super::Report;
use super::mesh::Mesh;
use crate::kinds::core::service::ServiceType;
use crate::kinds::{Kind, Spec};
use crate::port::Protocol;

const SYSTEM_NAMESPACES: [&str; 5] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "local-path-storage",
    "istio-system",
];

pub fn run(mesh: &Mesh<'_>, report: &mut Report) {
    for object in mesh.of_kind(Kind::Service) {
        let Spec::Service(spec) = &object.spec else {
            continue;
        };
        let managed = object.meta.labels.contains_key("gateway.istio.io/managed");
        if managed || SYSTEM_NAMESPACES.contains(&object.meta.namespace.as_str()) {
            continue;
        }
        let external = spec.r#type == ServiceType::ExternalName;
        for (index, port) in spec.ports.iter().enumerate() {
            let unknown = Protocol::of_service_port(port).is_unsupported();
            let path = format!("spec.ports[{index}]");
            if external && (unknown || port.name == "tcp") {
                let message = format!(
                    "the port {} of a Service of type ExternalName should name its protocol; \
                     TCP takes all traffic on the port",
                    port.port,
                );
                report.add("IST0150", object, &path, message);
            } else if unknown {
                let message = format!(
                    "the port name {:?} (port {}) does not start with a protocol, so the proxy \
                     has to look into the traffic",
                    port.name, port.port,
                );
                report.add("IST0118", object, &path, message);
            }
        }
    }
}
