//! Sidecars and Telemetries: each workload is selected by at most one, each selector selects.

use std::collections::{BTreeMap, BTreeSet};

use super::Report;
use super::mesh::Mesh;
use crate::kinds::{Kind, Spec};
use crate::labels::{self, Labels};
use crate::object::Object;

/// The codes for: two select one workload, several without a selector.
type Codes = (&'static str, &'static str);

pub fn run_sidecars(mesh: &Mesh<'_>, report: &mut Report) {
    let selector = |object: &'_ Object| match &object.spec {
        Spec::Sidecar(spec) => spec.workload_selector.as_ref().map(|s| s.labels.clone()),
        _ => None,
    };
    run(
        mesh,
        report,
        Kind::Sidecar,
        &selector,
        ("IST0110", "IST0111"),
    );
}

pub fn run_telemetries(mesh: &Mesh<'_>, report: &mut Report) {
    let selector = |object: &'_ Object| match &object.spec {
        Spec::Telemetry(spec) => spec.selector.as_ref().map(|s| s.match_labels.clone()),
        _ => None,
    };
    run(
        mesh,
        report,
        Kind::Telemetry,
        &selector,
        ("IST0159", "IST0160"),
    );
}

fn run(
    mesh: &Mesh<'_>,
    report: &mut Report,
    kind: Kind,
    selector: &dyn Fn(&Object) -> Option<Labels>,
    (shared, several): Codes,
) {
    let mut by_workload: BTreeMap<usize, Vec<&Object>> = BTreeMap::new();
    let mut without: BTreeMap<&str, Vec<&Object>> = BTreeMap::new();
    for object in mesh.of_kind(kind) {
        let namespace = object.meta.namespace.as_str();
        let Some(wanted) = selector(object).filter(|wanted| !wanted.is_empty()) else {
            without.entry(namespace).or_default().push(object);
            continue;
        };
        let everywhere = kind == Kind::Telemetry && namespace == mesh.options.root_namespace;
        let mut any = false;
        for (index, workload) in mesh.workloads.iter().enumerate() {
            let near = everywhere || workload.object.meta.namespace == namespace;
            if near && labels::is_subset(&wanted, workload.labels) {
                any = true;
                by_workload.entry(index).or_default().push(object);
            }
        }
        if !any {
            let message = format!("no workload is selected by {:?}", labels::show(&wanted));
            report.add("IST0101", object, "spec", message);
        }
    }
    let mut told = BTreeSet::new();
    for (index, objects) in by_workload.iter().filter(|(_, objects)| objects.len() > 1) {
        let names: Vec<&str> = objects
            .iter()
            .map(|object| object.meta.name.as_str())
            .collect();
        let workload = &mesh.workloads[*index].object.meta.name;
        for object in objects.iter().filter(|object| told.insert(object.key())) {
            let message = format!("{} select the same workload {workload}", names.join(", "));
            report.add(shared, object, "spec", message);
        }
    }
    for objects in without.values().filter(|objects| objects.len() > 1) {
        let names: Vec<&str> = objects
            .iter()
            .map(|object| object.meta.name.as_str())
            .collect();
        for object in objects {
            let message = format!("{} have no selector, one of them counts", names.join(", "));
            report.add(several, object, "spec", message);
        }
    }
}
