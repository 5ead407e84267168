//! Destinations of VirtualServices: the host, its port and its subset must exist.

use super::Report;
use super::mesh::{Mesh, Scope, scope};
use crate::host;
use crate::kinds::destination::Destination;
use crate::kinds::virtual_service::VirtualService;
use crate::kinds::{Kind, Spec};
use crate::object::Object;

/// Every destination with its path; a route without one counts as the empty host.
fn destinations(spec: &VirtualService) -> Vec<(String, Destination)> {
    let mut all = Vec::new();
    for (r, route) in spec.http.iter().enumerate() {
        for (d, target) in route.route.iter().enumerate() {
            let path = format!("spec.http[{r}].route[{d}].destination");
            all.push((path, target.destination.clone().unwrap_or_default()));
        }
        if let Some(mirror) = &route.mirror {
            all.push((format!("spec.http[{r}].mirror"), mirror.clone()));
        }
        for (m, mirror) in route.mirrors.iter().enumerate() {
            let path = format!("spec.http[{r}].mirrors[{m}].destination");
            all.push((path, mirror.destination.clone().unwrap_or_default()));
        }
    }
    let tls = spec
        .tls
        .iter()
        .map(|route| &route.route)
        .enumerate()
        .map(|(r, t)| ("tls", r, t));
    let tcp = spec
        .tcp
        .iter()
        .map(|route| &route.route)
        .enumerate()
        .map(|(r, t)| ("tcp", r, t));
    for (field, r, targets) in tls.chain(tcp) {
        for (d, target) in targets.iter().enumerate() {
            let path = format!("spec.{field}[{r}].route[{d}].destination");
            all.push((path, target.destination.clone().unwrap_or_default()));
        }
    }
    all
}

fn virtual_services<'m, 'o>(
    mesh: &'m Mesh<'o>,
) -> impl Iterator<Item = (&'o Object, &'o VirtualService)> + use<'m, 'o> {
    mesh.of_kind(Kind::VirtualService)
        .filter_map(|object| match &object.spec {
            Spec::VirtualService(spec) => Some((object, &**spec)),
            _ => None,
        })
}

pub fn run_hosts(mesh: &Mesh<'_>, report: &mut Report) {
    for (object, spec) in virtual_services(mesh) {
        let own = &object.meta.namespace;
        let namespaces: Vec<String> = match scope(&spec.export_to, own) {
            Scope::Everywhere => vec![own.clone()],
            Scope::In(some) => some.into_iter().collect(),
        };
        for (path, destination) in destinations(spec) {
            let full = mesh.full_name(&destination.host, own);
            let found: Vec<_> = namespaces
                .iter()
                .map(|namespace| mesh.visible_host(&full, namespace))
                .collect();
            let Some(Some(known)) = found.iter().find(|known| known.is_none()).or(found.first())
            else {
                let message = format!("the host {:?} is not found", destination.host);
                report.add("IST0101", object, &format!("{path}.host"), message);
                continue;
            };
            match &destination.port {
                Some(port) if !known.ports.is_empty() && !known.ports.contains(&port.number) => {
                    let message = format!("the host {full:?} has no port {}", port.number);
                    report.add("IST0101", object, &format!("{path}.port"), message);
                }
                None if known.ports.len() > 1 => {
                    let message = format!(
                        "{full:?} has several ports {:?}, the destination must name one",
                        known.ports,
                    );
                    report.add("IST0112", object, &path, message);
                }
                _ => {}
            }
        }
    }
}

pub fn run_subsets(mesh: &Mesh<'_>, report: &mut Report) {
    let mut subsets: Vec<(String, &str)> = Vec::new();
    for object in mesh.of_kind(Kind::DestinationRule) {
        let Spec::DestinationRule(spec) = &object.spec else {
            continue;
        };
        let name = mesh.full_name(&spec.host, &object.meta.namespace);
        subsets.extend(
            spec.subsets
                .iter()
                .map(|subset| (name.clone(), subset.name.as_str())),
        );
    }
    for (object, spec) in virtual_services(mesh) {
        for (path, destination) in destinations(spec) {
            if destination.subset.is_empty() {
                continue;
            }
            let full = mesh.full_name(&destination.host, &object.meta.namespace);
            let exists = subsets.iter().any(|(name, subset)| {
                *subset == destination.subset && host::is_subset(&full, name)
            });
            if !exists {
                let message = format!(
                    "no DestinationRule has the subset {:?} of {full:?}",
                    destination.subset,
                );
                report.add("IST0101", object, &format!("{path}.subset"), message);
            }
        }
    }
}
