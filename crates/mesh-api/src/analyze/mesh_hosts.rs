//! VirtualServices for sidecars that claim the same host: only the oldest one counts.

use super::Report;
use super::mesh::{Mesh, Scope, scope};
use crate::host;
use crate::kinds::{Kind, Spec};
use crate::object::Object;

struct Claim<'o> {
    object: &'o Object,
    hosts: Vec<String>,
    scope: Scope,
}

pub fn run(mesh: &Mesh<'_>, report: &mut Report) {
    let claims: Vec<Claim<'_>> = mesh
        .of_kind(Kind::VirtualService)
        .filter_map(|object| claim(mesh, object))
        .collect();
    for (index, one) in claims.iter().enumerate() {
        let mut others: Vec<String> = Vec::new();
        let mut hosts: Vec<&str> = Vec::new();
        for (_, other) in claims.iter().enumerate().filter(|(at, _)| *at != index) {
            let shared = one
                .hosts
                .iter()
                .filter(|name| other.hosts.iter().any(|theirs| host::matches(name, theirs)));
            let shared: Vec<&str> = shared.map(String::as_str).collect();
            if !shared.is_empty() && one.scope.overlaps(&other.scope) {
                others.push(format!(
                    "{}/{}",
                    other.object.meta.namespace, other.object.meta.name
                ));
                hosts.extend(shared);
            }
        }
        if !others.is_empty() {
            hosts.dedup();
            let message = format!(
                "also {} define the host {} for the mesh gateway; only the oldest counts, merge \
                 them into one",
                others.join(", "),
                hosts.join(", "),
            );
            report.add("IST0109", one.object, "spec.hosts", message);
        }
    }
}

fn claim<'o>(mesh: &Mesh<'_>, object: &'o Object) -> Option<Claim<'o>> {
    let Spec::VirtualService(spec) = &object.spec else {
        return None;
    };
    if !spec.gateways.is_empty() && !spec.gateways.iter().any(|gateway| gateway == "mesh") {
        return None;
    }
    let namespace = &object.meta.namespace;
    let hosts = spec
        .hosts
        .iter()
        .map(|name| mesh.full_name(name, namespace))
        .collect();
    Some(Claim {
        object,
        hosts,
        scope: scope(&spec.export_to, namespace),
    })
}
