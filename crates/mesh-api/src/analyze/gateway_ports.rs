//! Gateways select a workload, and its Service has their ports.

use std::collections::BTreeSet;

use super::Report;
use super::mesh::Mesh;
use crate::kinds::core::IntOrString;
use crate::kinds::{Kind, Spec};
use crate::labels;

pub fn run(mesh: &Mesh<'_>, report: &mut Report) {
    for object in mesh.of_kind(Kind::Gateway) {
        let Spec::Gateway(spec) = &object.spec else {
            continue;
        };
        if spec.selector.is_empty() {
            continue;
        }
        let workloads: Vec<_> = mesh.selected(&spec.selector, None).collect();
        if workloads.is_empty() {
            if !mesh.is_platform_gateway(&spec.selector) {
                let shown = labels::show(&spec.selector);
                let message = format!("no workload is selected by {shown:?}");
                report.add("IST0101", object, "spec.selector", message);
            }
            continue;
        }
        let ports = service_ports(mesh, &workloads);
        for (index, server) in spec.servers.iter().enumerate() {
            let number = server.port.as_ref().map_or(0, |port| port.number);
            if number != 0 && !ports.is_empty() && !ports.contains(&number) {
                let shown = labels::show(&spec.selector);
                let message = format!("no Service of the workloads {shown} has the port {number}");
                let path = format!("spec.servers[{index}].port");
                report.add("IST0162", object, &path, message);
            }
        }
    }
}

/// Ports and target ports of the Services that select one of the workloads.
fn service_ports(mesh: &Mesh<'_>, workloads: &[&super::mesh::Workload<'_>]) -> BTreeSet<u32> {
    let mut ports = BTreeSet::new();
    for object in mesh.of_kind(Kind::Service) {
        let Spec::Service(spec) = &object.spec else {
            continue;
        };
        let serves = workloads.iter().any(|workload| {
            workload.object.meta.namespace == object.meta.namespace
                && labels::selects(&spec.selector, workload.labels)
        });
        for port in spec.ports.iter().filter(|_| serves) {
            ports.extend(u32::try_from(port.port).ok());
            if let Some(IntOrString::Int(target)) = port.target_port {
                ports.extend(u32::try_from(target).ok());
            }
        }
    }
    ports
}
