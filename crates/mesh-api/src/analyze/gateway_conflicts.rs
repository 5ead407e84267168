//! Gateways that serve the same host on the same port of the same workloads.

use super::Report;
use super::mesh::Mesh;
use crate::host;
use crate::kinds::gateway::{Gateway, Server};
use crate::kinds::{Kind, Spec};
use crate::labels;

pub fn run(mesh: &Mesh<'_>, report: &mut Report) {
    let gateways: Vec<_> = mesh
        .of_kind(Kind::Gateway)
        .filter_map(|object| match &object.spec {
            Spec::Gateway(spec) => Some((object, &**spec)),
            _ => None,
        })
        .collect();
    for (index, (object, spec)) in gateways.iter().enumerate() {
        let mut others = Vec::new();
        let mut place = None;
        for (_, (other, theirs)) in gateways.iter().enumerate().filter(|(at, _)| *at != index) {
            if let Some(server) = conflict(spec, theirs) {
                others.push(format!("{}/{}", other.meta.namespace, other.meta.name));
                place = place.or(Some(server));
            }
        }
        let Some(server) = place else { continue };
        let port = spec.servers[server]
            .port
            .as_ref()
            .map_or(0, |port| port.number);
        let message = format!(
            "conflicts with the gateways {} (selector {}, port {port}, hosts {})",
            others.join(", "),
            labels::show(&spec.selector),
            spec.servers[server].hosts.join(", "),
        );
        report.add(
            "IST0145",
            object,
            &format!("spec.servers[{server}]"),
            message,
        );
    }
}

/// The first server of `one` that takes something from `other`.
fn conflict(one: &Gateway, other: &Gateway) -> Option<usize> {
    if one.selector != other.selector {
        return None;
    }
    one.servers
        .iter()
        .position(|mine| other.servers.iter().any(|theirs| overlap(mine, theirs)))
}

fn overlap(one: &Server, other: &Server) -> bool {
    let (Some(a), Some(b)) = (&one.port, &other.port) else {
        return false;
    };
    let bare = |entry: &String| -> (String, String) {
        let (scope, name) = entry.split_once('/').unwrap_or(("*", entry));
        (scope.to_owned(), name.to_owned())
    };
    a.number == b.number
        && one.bind == other.bind
        && one.hosts.iter().map(bare).any(|(scope, name)| {
            other.hosts.iter().map(bare).any(|(their_scope, theirs)| {
                let same_scope = scope == their_scope || scope == "*" || their_scope == "*";
                same_scope && host::matches(&name, &theirs)
            })
        })
}
