//! Which resource types of a proxy a change may touch: one exhaustive match over kinds.
//! Versions are content hashes, so naming a type too much costs time, never a wrong push.

use std::collections::BTreeSet;

use envoy_api::ResourceType;
use mesh_api::{Kind, ObjectKey};

use crate::model::{ProxyView, Role};
use crate::state::Changes;

/// The types to generate again for this proxy after these changes.
pub fn impact(changes: &Changes, view: &ProxyView) -> BTreeSet<ResourceType> {
    use ResourceType::{Cluster, Endpoint, Listener, NameTable, Route, Secret};
    let mut types = BTreeSet::new();
    if changes.everything || changes.mesh {
        types.extend([Cluster, Endpoint, Listener, Route, Secret, NameTable]);
        return types;
    }
    for key in &changes.objects {
        types.extend(of_object(key, view));
    }
    if !changes.services.is_empty() {
        types.extend([Cluster, Endpoint, Listener, Route, NameTable]);
    }
    if !changes.identities.is_empty() {
        types.insert(Cluster);
    }
    if !changes.endpoints.is_empty() {
        // Clusters resolved by DNS carry their endpoints; headless services have a listener and
        // a name per endpoint; a workload behind new endpoints gets its inbound side.
        types.extend([Cluster, Endpoint, Listener, NameTable]);
    }
    if !changes.workloads.is_empty() {
        let own = changes
            .workloads
            .iter()
            .any(|key| key.namespace == view.namespace && key.name == view.name);
        if own {
            types.extend([Cluster, Endpoint, Listener, Route, Secret, NameTable]);
        }
        types.insert(NameTable);
    }
    types
}

fn of_object(key: &ObjectKey, view: &ProxyView) -> Vec<ResourceType> {
    use ResourceType::{Cluster, Endpoint, Listener, NameTable, Route, Secret};
    let router = view.role == Role::Router;
    match key.kind {
        Kind::VirtualService => vec![Cluster, Listener, Route],
        Kind::DestinationRule => vec![Cluster, Endpoint, Listener, Route],
        Kind::Gateway if router => vec![Cluster, Listener, Route],
        Kind::Gateway => vec![],
        Kind::ServiceEntry | Kind::WorkloadEntry => {
            vec![Cluster, Endpoint, Listener, Route, NameTable]
        }
        Kind::Sidecar if router => vec![],
        Kind::Sidecar => vec![Cluster, Endpoint, Listener, Route, NameTable],
        Kind::PeerAuthentication => vec![Cluster, Endpoint, Listener],
        Kind::AuthorizationPolicy => vec![Listener],
        Kind::Secret | Kind::ConfigMap if router => vec![Secret],
        Kind::Secret | Kind::ConfigMap => vec![],
        // Not in force yet, or of no concern to proxies.
        Kind::WorkloadGroup
        | Kind::EnvoyFilter
        | Kind::ProxyConfig
        | Kind::RequestAuthentication
        | Kind::Telemetry
        | Kind::WasmPlugin
        | Kind::TrafficExtension
        | Kind::Namespace
        | Kind::ServiceAccount
        | Kind::Service
        | Kind::Deployment
        | Kind::Pod => vec![],
    }
}
