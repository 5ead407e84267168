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
        types.insert(Endpoint);
    }
    if !changes.structural.is_empty() {
        // Clusters resolved by DNS carry their endpoints; headless services have a listener and
        // a name per endpoint; a workload behind new endpoints gets its inbound side.
        types.extend([Cluster, Listener, NameTable]);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ProxyView, ServiceKey};

    fn view(kind: &str) -> ProxyView {
        let node = envoy_api::core::Node {
            id: format!("{kind}~10.0.0.1~a.default~default.svc.cluster.local"),
            ..Default::default()
        };
        let snapshot = crate::State::new(std::sync::Arc::default()).snapshot().0;
        ProxyView::from_node(&node, None, &snapshot).expect("a valid node")
    }

    #[test]
    fn changes_touch_their_own_types() {
        use ResourceType::{Cluster, Endpoint, Listener, Route};
        let object = |kind| Changes {
            objects: [ObjectKey {
                kind,
                namespace: "default".into(),
                name: "a".into(),
            }]
            .into(),
            ..Changes::default()
        };
        let key = ServiceKey::new("a", "default");
        let endpoints = Changes {
            endpoints: [key].into(),
            ..Changes::default()
        };
        for (changes, role, want, why) in [
            (
                endpoints,
                "sidecar",
                vec![Endpoint],
                "endpoints alone have a fast lane",
            ),
            (
                object(Kind::AuthorizationPolicy),
                "sidecar",
                vec![Listener],
                "filters only",
            ),
            (
                object(Kind::Gateway),
                "sidecar",
                vec![],
                "gateways are for routers",
            ),
            (
                object(Kind::Gateway),
                "router",
                vec![Cluster, Listener, Route],
                "all of a gateway",
            ),
            (
                object(Kind::Namespace),
                "sidecar",
                vec![],
                "no concern of proxies",
            ),
        ] {
            let got: Vec<ResourceType> = impact(&changes, &view(role)).into_iter().collect();
            assert_eq!(got, want, "{why}");
        }
    }
}
