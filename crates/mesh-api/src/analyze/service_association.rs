//! Deployments behind several Services that disagree about a port.

use std::collections::{BTreeMap, BTreeSet};

use super::Report;
use super::mesh::Mesh;
use crate::kinds::core::IntOrString;
use crate::kinds::core::service::ServiceSpec;
use crate::kinds::{Kind, Spec};
use crate::labels;

pub fn run(mesh: &Mesh<'_>, report: &mut Report) {
    for workload in mesh
        .workloads
        .iter()
        .filter(|w| w.object.meta.kind == Kind::Deployment)
    {
        let services: Vec<(&str, &ServiceSpec)> = mesh
            .of_kind(Kind::Service)
            .filter(|object| object.meta.namespace == workload.object.meta.namespace)
            .filter_map(|object| match &object.spec {
                Spec::Service(spec) => Some((object.meta.name.as_str(), &**spec)),
                _ => None,
            })
            .filter(|(_, spec)| labels::selects(&spec.selector, workload.labels))
            .collect();
        if services.len() < 2 {
            continue;
        }
        let name = &workload.object.meta.name;
        let mut protocols: BTreeMap<i32, BTreeSet<&str>> = BTreeMap::new();
        let mut ports: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
        for port in services.iter().flat_map(|(_, spec)| &spec.ports) {
            let transport = if port.protocol.is_empty() {
                "TCP"
            } else {
                &port.protocol
            };
            protocols.entry(port.port).or_default().insert(transport);
            let target = match &port.target_port {
                Some(IntOrString::String(name)) => name.clone(),
                Some(IntOrString::Int(number)) if *number != 0 => number.to_string(),
                _ => port.port.to_string(),
            };
            ports.entry(target).or_default().insert(port.port);
        }
        for (port, all) in protocols.iter().filter(|(_, all)| all.len() > 1) {
            let message = format!("{name} serves port {port} with several protocols {all:?}");
            report.add("IST0116", workload.object, "spec", message);
        }
        for (target, all) in ports.iter().filter(|(_, all)| all.len() > 1) {
            let names: Vec<&str> = services.iter().map(|(name, _)| *name).collect();
            let message = format!(
                "{} name the target port {target} of {name} by several ports {all:?}",
                names.join(", "),
            );
            report.add("IST0137", workload.object, "spec", message);
        }
    }
}
