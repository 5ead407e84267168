//! All services: the registries' and those that ServiceEntry objects write, by host and namespace.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::Kind;

use super::{Statuses, Visibility, age_order, of_kind, service_entries};
use crate::model::{Registry, Service, ServiceKey};
use crate::state::{Revision, State};

/// A service in the index.
#[derive(Debug, Clone)]
pub struct ServiceEntryRef {
    pub service: Arc<Service>,
    pub revision: Revision,
    pub visibility: Visibility,
}

#[derive(Debug, Default)]
pub struct Services {
    by_key: BTreeMap<ServiceKey, Arc<ServiceEntryRef>>,
    /// Oldest first: the order in which translation meets them.
    ordered: Vec<Arc<ServiceEntryRef>>,
}

impl Services {
    pub(super) fn build(state: &State, statuses: &mut Statuses) -> Self {
        let mut by_key: BTreeMap<ServiceKey, Arc<ServiceEntryRef>> = BTreeMap::new();
        let default = &state.mesh.value.default_service_export_to;
        let entry = |service: Arc<Service>, revision| {
            let namespace = &service.key.namespace;
            let visibility = Visibility::new(&service.export_to, default, namespace);
            Arc::new(ServiceEntryRef {
                service,
                revision,
                visibility,
            })
        };
        for (key, service) in &state.services {
            by_key.insert(key.clone(), entry(service.value.clone(), service.revision));
        }
        let mut entries: Vec<_> = of_kind(state, Kind::ServiceEntry).collect();
        entries.sort_by_cached_key(|(key, object)| {
            age_order(object.value.meta.creation_timestamp, key)
        });
        for (_, object) in entries {
            for service in service_entries::services(&object.value, statuses) {
                match by_key.get(&service.key) {
                    // A host of the platform's own keeps its ports; only identities are added.
                    Some(known) => {
                        let merged = merge(&known.service, service);
                        let revision = Revision::combine([known.revision, object.revision]);
                        by_key.insert(merged.key.clone(), entry(Arc::new(merged), revision));
                    }
                    None => {
                        let revision = object.revision;
                        by_key.insert(service.key.clone(), entry(Arc::new(service), revision));
                    }
                }
            }
        }
        let mut ordered: Vec<_> = by_key.values().cloned().collect();
        ordered.sort_by_cached_key(|entry| {
            let service = &entry.service;
            // The platform's own services come before written ones of the same age.
            let rank = u8::from(service.registry != Registry::Kubernetes);
            (
                service.created.unwrap_or_default(),
                rank,
                service.name.clone(),
                service.key.clone(),
            )
        });
        Self { by_key, ordered }
    }

    pub fn get(&self, key: &ServiceKey) -> Option<&Arc<ServiceEntryRef>> {
        self.by_key.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<ServiceEntryRef>> {
        self.ordered.iter()
    }

    /// The service of that host which a client in `namespace` sees: its own namespace's first,
    /// else the oldest that is exported to it.
    pub fn visible(&self, hostname: &str, namespace: &str) -> Option<&Arc<ServiceEntryRef>> {
        let own = self.by_key.get(&ServiceKey::new(hostname, namespace));
        own.or_else(|| {
            let first = ServiceKey::new(hostname, "");
            self.by_key
                .range(first..)
                .take_while(|(key, _)| key.hostname == hostname)
                .map(|(_, entry)| entry)
                .filter(|entry| entry.visibility.allows(namespace))
                .min_by_key(|entry| {
                    let rank = u8::from(entry.service.registry != Registry::Kubernetes);
                    (rank, entry.service.created.unwrap_or_default())
                })
        })
    }

    pub fn has_host(&self, hostname: &str) -> bool {
        self.by_key
            .range(ServiceKey::new(hostname, "")..)
            .next()
            .is_some_and(|(key, _)| key.hostname == hostname)
    }
}

/// Ports of several ServiceEntry objects for one host and namespace unite; the first wins.
fn merge(known: &Service, more: Service) -> Service {
    let mut merged = known.clone();
    merged.subject_alt_names.extend(more.subject_alt_names);
    merged.subject_alt_names.sort();
    merged.subject_alt_names.dedup();
    if known.registry == Registry::Kubernetes {
        return merged;
    }
    for port in more.ports {
        if merged.ports.iter().all(|own| own.number != port.number) {
            merged.ports.push(port);
        }
    }
    for address in more.addresses {
        if !merged.addresses.contains(&address) {
            merged.addresses.push(address);
        }
    }
    merged
}
