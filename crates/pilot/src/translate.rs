//! From the snapshot to Envoy resources, one type for one proxy at a time. Pure: the same
//! snapshot and view give the same bytes.

pub mod cluster;
pub mod cluster_balancer;
pub mod cluster_policy;
pub mod cluster_pool;
pub mod cluster_tls;
pub mod endpoint;
pub mod locality;
pub mod message;
pub mod tls_context;

use std::collections::BTreeSet;

use envoy_api::{Resource, ResourceType};

use crate::model::ProxyView;
use crate::snapshot::Snapshot;

/// The resources of one type for one proxy; `names` limits types that are asked for by name.
pub fn generate(
    snapshot: &Snapshot,
    view: &ProxyView,
    kind: ResourceType,
    names: Option<&BTreeSet<String>>,
) -> Vec<Resource> {
    let mut resources = match kind {
        ResourceType::Cluster => clusters(snapshot, view),
        ResourceType::Endpoint => endpoints(snapshot, view, names),
        _ => Vec::new(),
    };
    if let Some(names) = names {
        resources.retain(|resource| names.contains(&resource.name));
    }
    resources
}

fn clusters(snapshot: &Snapshot, view: &ProxyView) -> Vec<Resource> {
    let scope = snapshot.scope(view);
    let mut resources = Vec::new();
    for entry in &scope.services {
        let service = &entry.service.key;
        let rule = snapshot.destination_rules.find(&view.namespace, &view.labels, service);
        for target in cluster::targets(entry, rule) {
            let fragment = cluster::fragment(snapshot, view, &target);
            resources.extend(fragment.map(|f| f.resource(ResourceType::Cluster)));
        }
    }
    resources
}

fn endpoints(
    snapshot: &Snapshot,
    view: &ProxyView,
    names: Option<&BTreeSet<String>>,
) -> Vec<Resource> {
    let scope = snapshot.scope(view);
    let mut resources = Vec::new();
    for entry in &scope.services {
        let service = &entry.service.key;
        let rule = snapshot.destination_rules.find(&view.namespace, &view.labels, service);
        for target in cluster::targets(entry, rule) {
            if names.is_some_and(|names| !names.contains(&target.name().to_string())) {
                continue;
            }
            let fragment = endpoint::fragment(snapshot, view, &target);
            resources.extend(fragment.map(|f| f.resource(ResourceType::Endpoint)));
        }
    }
    resources
}
