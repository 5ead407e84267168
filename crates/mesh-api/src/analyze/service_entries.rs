//! ServiceEntries: addresses where the protocol needs them, one protocol for each port.

use super::Report;
use super::mesh::{Mesh, scope};
use crate::kinds::service_entry::ServiceEntry;
use crate::kinds::{Kind, Spec};
use crate::object::Object;
use crate::port::Protocol;

fn entries<'o>(mesh: &Mesh<'o>) -> Vec<(&'o Object, &'o ServiceEntry)> {
    let spec = |object: &'o Object| match &object.spec {
        Spec::ServiceEntry(spec) => Some((object, &**spec)),
        _ => None,
    };
    mesh.of_kind(Kind::ServiceEntry).filter_map(spec).collect()
}

pub fn run_addresses(mesh: &Mesh<'_>, report: &mut Report) {
    if mesh.options.auto_allocate_addresses {
        return;
    }
    for (object, spec) in entries(mesh)
        .iter()
        .filter(|(_, spec)| spec.addresses.is_empty())
    {
        for (index, port) in spec.ports.iter().enumerate() {
            let protocol = Protocol::parse(&port.protocol);
            if port.protocol.is_empty() || protocol == Protocol::Tcp {
                let message = "without addresses TCP cannot be told apart by service".to_owned();
                report.add("IST0134", object, &format!("spec.ports[{index}]"), message);
            }
        }
    }
}

pub fn run_protocols(mesh: &Mesh<'_>, report: &mut Report) {
    let all = entries(mesh);
    for (index, (object, spec)) in all.iter().enumerate() {
        let mine = scope(&spec.export_to, &object.meta.namespace);
        for (at, port) in spec.ports.iter().enumerate() {
            let conflict = all
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != index)
                .find(|(_, (other, theirs))| {
                    let shared = spec.hosts.iter().any(|name| theirs.hosts.contains(name));
                    let differs = theirs.ports.iter().any(|other_port| {
                        other_port.number == port.number
                            && Protocol::parse(&other_port.protocol)
                                != Protocol::parse(&port.protocol)
                    });
                    let scope = scope(&theirs.export_to, &other.meta.namespace);
                    shared && differs && mine.overlaps(&scope)
                });
            if let Some((_, (other, _))) = conflict {
                let message = format!(
                    "{}/{} defines the same host with another protocol on port {}",
                    other.meta.namespace, other.meta.name, port.number,
                );
                report.add("IST0177", object, &format!("spec.ports[{at}]"), message);
            }
        }
    }
}
