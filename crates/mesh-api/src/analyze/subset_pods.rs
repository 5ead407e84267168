//! DestinationRules for hosts that exist, with subsets that select pods.

use super::Report;
use super::mesh::Mesh;
use crate::kinds::{Kind, Spec};
use crate::labels::{self, Labels};

pub fn run(mesh: &Mesh<'_>, report: &mut Report) {
    for object in mesh.of_kind(Kind::DestinationRule) {
        let Spec::DestinationRule(spec) = &object.spec else {
            continue;
        };
        let full = mesh.full_name(&spec.host, &object.meta.namespace);
        if full.contains('*') {
            continue;
        }
        let Some(known) = mesh.visible_host(&full, &object.meta.namespace) else {
            let message = format!("the host {:?} matches no service of the mesh", spec.host);
            report.add("IST0174", object, "spec.host", message);
            continue;
        };
        let Some(service) = known.service.filter(|service| !service.selector.is_empty()) else {
            continue;
        };
        for (index, subset) in spec.subsets.iter().enumerate() {
            let mut wanted: Labels = service.selector.clone();
            let own = subset.labels.iter().filter(|(key, _)| !of_node(key));
            wanted.extend(own.map(|(key, value)| (key.clone(), value.clone())));
            let selects = mesh.workloads.iter().any(|workload| {
                workload.object.meta.namespace == known.namespace
                    && labels::is_subset(&wanted, workload.labels)
            });
            if !selects {
                let message = format!("the subset {:?} selects no pod", subset.name);
                report.add(
                    "IST0173",
                    object,
                    &format!("spec.subsets[{index}]"),
                    message,
                );
            }
        }
    }
}

/// Labels that endpoints get from their node.
fn of_node(key: &str) -> bool {
    key.starts_with("topology.kubernetes.io/")
        || key.starts_with("topology.istio.io/")
        || key == "kubernetes.io/hostname"
}
