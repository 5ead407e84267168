//! Gateways by name and by the workloads they select.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::kinds::gateway::Gateway;
use mesh_api::{Kind, ObjectKey, Spec};

use super::{Problem, age_order, of_kind};
use crate::model::{Labels, selects};
use crate::state::{Revision, State};
use crate::translate::gateway::OWN_PORTS;

#[derive(Debug)]
pub struct GatewayEntry {
    pub key: ObjectKey,
    /// `namespace/name`.
    pub name: String,
    pub revision: Revision,
    pub spec: Gateway,
    /// Services that stand for this gateway, where its author says so (Gateway API).
    pub services: Vec<String>,
}

#[derive(Debug, Default)]
pub struct Gateways {
    /// Oldest first.
    ordered: Vec<Arc<GatewayEntry>>,
    by_name: BTreeMap<String, Arc<GatewayEntry>>,
}

/// Set by the translation of Gateway API objects, never by users.
const SERVICE_ANNOTATION: &str = "internal.istio.io/gateway-service";

impl Gateways {
    pub(super) fn build(state: &State) -> Self {
        let mut objects: Vec<_> = of_kind(state, Kind::Gateway).collect();
        objects.sort_by_cached_key(|(key, object)| {
            age_order(object.value.meta.creation_timestamp, key)
        });
        let mut gateways = Self::default();
        for (key, object) in objects {
            let Spec::Gateway(spec) = &object.value.spec else {
                continue;
            };
            let services = object.value.meta.annotations.get(SERVICE_ANNOTATION);
            let entry = Arc::new(GatewayEntry {
                key: key.clone(),
                name: format!("{}/{}", key.namespace, key.name),
                revision: object.revision,
                spec: (**spec).clone(),
                services: services
                    .map(|list| list.split(',').map(|host| host.trim().to_owned()).collect())
                    .unwrap_or_default(),
            });
            gateways.by_name.insert(entry.name.clone(), entry.clone());
            gateways.ordered.push(entry);
        }
        gateways
    }

    pub fn get(&self, name: &str) -> Option<&Arc<GatewayEntry>> {
        self.by_name.get(name)
    }

    /// The gateways that select a workload by its labels, oldest first. A gateway bound to
    /// services selects the workloads behind them instead.
    pub fn selecting<'a>(
        &'a self,
        labels: &'a Labels,
        serves: impl Fn(&str) -> bool + 'a,
    ) -> impl Iterator<Item = &'a Arc<GatewayEntry>> {
        self.ordered.iter().filter(move |gateway| {
            if gateway.services.is_empty() {
                return selects(&gateway.spec.selector, labels);
            }
            gateway.services.iter().any(|host| serves(host))
        })
    }

    /// Servers that cannot share a port with an older one of the same selector.
    pub(super) fn conflicts(&self) -> Vec<(ObjectKey, Problem)> {
        let mut conflicts = Vec::new();
        let mut taken: Vec<(&GatewayEntry, u32, &str, bool)> = Vec::new();
        for gateway in &self.ordered {
            for server in &gateway.spec.servers {
                let Some(port) = &server.port else { continue };
                let plain_http = matches!(
                    port.protocol.to_ascii_uppercase().as_str(),
                    "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB"
                );
                if OWN_PORTS.iter().any(|own| u32::from(*own) == port.number) {
                    let message = format!("port {} is the proxy's own", port.number);
                    conflicts.push((gateway.key.clone(), Problem::conflict(message)));
                    continue;
                }
                let other = taken.iter().find(|(older, number, bind, http)| {
                    *number == port.number
                        && *bind == server.bind
                        && *http != plain_http
                        && older.spec.selector == gateway.spec.selector
                });
                if let Some((older, number, ..)) = other {
                    let message = format!(
                        "port {number} is already used with another protocol by {}",
                        older.key
                    );
                    conflicts.push((gateway.key.clone(), Problem::conflict(message)));
                } else {
                    taken.push((gateway, port.number, &server.bind, plain_http));
                }
            }
        }
        conflicts
    }
}
