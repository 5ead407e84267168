//! Virtual services with names resolved and delegates merged, by visibility and gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_api::kinds::virtual_service::VirtualService;
use mesh_api::{Kind, ObjectKey, Spec};

use super::{Problem, Statuses, Visibility, age_order, merge_delegates, of_kind};
use crate::hostname;
use crate::state::{Revision, State};

/// The gateway name that means "every sidecar".
pub const MESH: &str = "mesh";

/// A root virtual service, ready for translation.
#[derive(Debug)]
pub struct VirtualServiceEntry {
    pub key: ObjectKey,
    /// Covers its delegates too.
    pub revision: Revision,
    pub visibility: Visibility,
    /// Host and gateway names are complete, delegates are merged in.
    pub spec: VirtualService,
    /// Where each delegate was taken from: what a change of it concerns.
    pub delegates: Vec<ObjectKey>,
}

impl VirtualServiceEntry {
    pub fn is_on(&self, gateway: &str) -> bool {
        self.spec.gateways.iter().any(|name| name == gateway)
    }
}

#[derive(Debug, Default)]
pub struct VirtualServices {
    /// Oldest first.
    ordered: Vec<Arc<VirtualServiceEntry>>,
}

impl VirtualServices {
    pub(super) fn build(state: &State, statuses: &mut Statuses) -> Self {
        let default = &state.mesh.value.default_virtual_service_export_to;
        let mut objects: Vec<_> = of_kind(state, Kind::VirtualService).collect();
        objects.sort_by_cached_key(|(key, object)| {
            age_order(object.value.meta.creation_timestamp, key)
        });
        let mut delegates: BTreeMap<&ObjectKey, merge_delegates::Candidate> = BTreeMap::new();
        for (key, object) in &objects {
            let Spec::VirtualService(spec) = &object.value.spec else {
                continue;
            };
            if spec.hosts.is_empty() {
                let visibility = Visibility::new(&spec.export_to, default, &key.namespace);
                let candidate = merge_delegates::Candidate {
                    spec: resolve(spec, &key.namespace, &state.domain),
                    visibility,
                    revision: object.revision,
                };
                delegates.insert(key, candidate);
            }
        }
        let mut ordered = Vec::new();
        for (key, object) in &objects {
            let Spec::VirtualService(spec) = &object.value.spec else {
                continue;
            };
            if spec.hosts.is_empty() {
                continue;
            }
            let mut spec = resolve(spec, &key.namespace, &state.domain);
            let merged = merge_delegates::merge(&mut spec, &key.namespace, &delegates);
            for problem in merged.problems {
                statuses.add(key, problem);
            }
            let revisions = std::iter::once(object.revision).chain(merged.revisions.clone());
            let revision = match merged.revisions.is_empty() {
                true => object.revision,
                false => Revision::combine(revisions),
            };
            ordered.push(Arc::new(VirtualServiceEntry {
                key: (*key).clone(),
                revision,
                visibility: Visibility::new(&spec.export_to, default, &key.namespace),
                spec,
                delegates: merged.used,
            }));
        }
        Self { ordered }
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<VirtualServiceEntry>> {
        self.ordered.iter()
    }

    /// Those for sidecars that a client in `namespace` sees, oldest first.
    pub fn for_mesh(&self, namespace: &str) -> Vec<Arc<VirtualServiceEntry>> {
        let seen = |entry: &&Arc<VirtualServiceEntry>| {
            entry.is_on(MESH) && entry.visibility.allows(namespace)
        };
        self.ordered.iter().filter(seen).cloned().collect()
    }

    /// Those bound to one gateway (`namespace/name`), oldest first.
    pub fn for_gateway(&self, gateway: &str) -> impl Iterator<Item = &Arc<VirtualServiceEntry>> {
        self.ordered
            .iter()
            .filter(move |entry| entry.is_on(gateway))
    }

    /// Two virtual services that claim one host for sidecars: the older one wins.
    pub(super) fn conflicts(&self) -> Vec<(ObjectKey, Problem)> {
        let mut owners: BTreeMap<&str, Vec<&VirtualServiceEntry>> = BTreeMap::new();
        let mut conflicts = Vec::new();
        for entry in self.ordered.iter().filter(|entry| entry.is_on(MESH)) {
            let hosts: BTreeSet<&str> = entry.spec.hosts.iter().map(String::as_str).collect();
            for host in hosts {
                let owners = owners.entry(host).or_default();
                let older = owners.iter().find(|older| {
                    older.visibility.includes(&entry.visibility)
                        || entry.visibility.includes(&older.visibility)
                });
                if let Some(older) = older {
                    let message = format!(
                        "host `{host}` is also claimed by {}, which is older and wins",
                        older.key
                    );
                    conflicts.push((entry.key.clone(), Problem::conflict(message)));
                }
                owners.push(entry);
            }
        }
        conflicts
    }
}

/// Completes every host and gateway name.
fn resolve(spec: &VirtualService, namespace: &str, domain: &str) -> VirtualService {
    let mut spec = spec.clone();
    let full = |name: &mut String| *name = hostname::resolve(name, namespace, domain);
    spec.hosts.iter_mut().for_each(full);
    let gateway = |name: &mut String| *name = gateway_name(name, namespace);
    if spec.gateways.is_empty() {
        spec.gateways.push(MESH.to_owned());
    }
    spec.gateways.iter_mut().for_each(gateway);
    for route in &mut spec.http {
        for part in &mut route.r#match {
            part.gateways.iter_mut().for_each(gateway);
        }
        let routes = route
            .route
            .iter_mut()
            .filter_map(|route| route.destination.as_mut());
        let mirrors = route
            .mirrors
            .iter_mut()
            .filter_map(|m| m.destination.as_mut());
        for destination in routes.chain(mirrors).chain(route.mirror.as_mut()) {
            full(&mut destination.host);
        }
    }
    for route in &mut spec.tls {
        for part in &mut route.r#match {
            part.gateways.iter_mut().for_each(gateway);
        }
        for route in route
            .route
            .iter_mut()
            .filter_map(|route| route.destination.as_mut())
        {
            full(&mut route.host);
        }
    }
    for route in &mut spec.tcp {
        for part in &mut route.r#match {
            part.gateways.iter_mut().for_each(gateway);
        }
        for route in route
            .route
            .iter_mut()
            .filter_map(|route| route.destination.as_mut())
        {
            full(&mut route.host);
        }
    }
    spec
}

/// `namespace/name` of a gateway; the old `name.namespace.svc.…` form is read too.
fn gateway_name(name: &str, namespace: &str) -> String {
    if name == MESH || name.contains('/') {
        return match name.strip_prefix("./") {
            Some(name) => format!("{namespace}/{name}"),
            None => name.to_owned(),
        };
    }
    let mut labels = name.split('.');
    match (labels.next(), labels.next()) {
        (Some(name), Some(namespace)) => format!("{namespace}/{name}"),
        _ => format!("{namespace}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_names_are_completed() {
        for (name, want) in [
            ("mesh", "mesh"),
            ("gw", "ns/gw"),
            ("other/gw", "other/gw"),
            ("./gw", "ns/gw"),
            ("gw.other.svc.cluster.local", "other/gw"),
        ] {
            assert_eq!(gateway_name(name, "ns"), want);
        }
    }
}
