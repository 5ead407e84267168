//! The cost of a change follows the change: how many fragments are translated anew.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use envoy_api::ResourceType;
use mesh_api::mesh_config::MeshConfig;
use pilot::{ProxyView, Snapshot, generate};
use serde_json::json;

use super::load::{Mesh, view};

const TYPES: [ResourceType; 4] = [
    ResourceType::Cluster,
    ResourceType::Endpoint,
    ResourceType::Listener,
    ResourceType::Route,
];

fn versions(snapshot: &Snapshot, view: &ProxyView) -> BTreeMap<(ResourceType, String), String> {
    let all = TYPES
        .iter()
        .flat_map(|kind| generate(snapshot, view, *kind, None));
    all.map(|resource| ((resource.kind, resource.name), resource.version))
        .collect()
}

fn proxies(snapshot: &Snapshot) -> Vec<ProxyView> {
    ["productpage-v1", "details-v1", "reviews-v1", "reviews-v2"]
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let ip = format!("10.0.0.{}", 11 + index);
            view(&json!({"name": name, "ip": ip}), snapshot)
        })
        .collect()
}

fn all(snapshot: &Arc<Snapshot>) -> u64 {
    for view in proxies(snapshot) {
        versions(snapshot, &view);
    }
    snapshot.cache.translations()
}

#[test]
fn a_change_translates_only_its_own_fragments() {
    let base = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bookinfo_productpage");
    let mut mesh = Mesh::new(MeshConfig::default(), "cluster.local");
    mesh.apply(&std::fs::read_to_string(base.join("mesh.yaml")).unwrap());
    let before = mesh.snapshot();
    let first = all(&before);
    assert_eq!(all(&before), first, "asking again translates nothing");
    let old = versions(&before, &proxies(&before)[0]);

    for (change, budget, changed, why) in [
        (
            "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: ratings}, \
             spec: {hosts: [ratings], http: [{route: [{destination: {host: ratings}}], \
             timeout: 3s}]}}",
            2,
            vec![(ResourceType::Route, "9080"), (ResourceType::Route, "80")],
            "a new rule is one virtual host on its port and one on 80, for all proxies",
        ),
        (
            "{apiVersion: networking.istio.io/v1, kind: DestinationRule, \
             metadata: {name: details}, \
             spec: {host: details, trafficPolicy: {loadBalancer: {simple: RANDOM}}}}",
            3,
            vec![
                (
                    ResourceType::Cluster,
                    "outbound|9080||details.default.svc.cluster.local",
                ),
                (ResourceType::Route, "9080"),
            ],
            "a new policy is one cluster, its endpoints' key, and its virtual host",
        ),
        (
            "{kind: Workload, metadata: {name: ratings-v2, labels: {app: ratings, version: v2, \
             security.istio.io/tlsMode: istio}}, address: 10.0.0.99, \
             serviceAccount: bookinfo-ratings}",
            1,
            vec![(
                ResourceType::Endpoint,
                "outbound|9080||ratings.default.svc.cluster.local",
            )],
            "a new endpoint is one endpoint set",
        ),
    ] {
        let count = mesh.snapshot().cache.translations();
        mesh.apply(change);
        let after = mesh.snapshot();
        assert!(
            all(&after) - count <= budget,
            "{why}: {} translated",
            all(&after) - count
        );
        let new = versions(&after, &proxies(&after)[0]);
        let allowed = |key: &(ResourceType, String)| {
            changed
                .iter()
                .any(|(kind, name)| *kind == key.0 && *name == key.1)
        };
        for (key, version) in &new {
            assert!(
                old.get(key) == Some(version) || allowed(key) || differs_before(key),
                "{why}: {key:?}"
            );
        }
    }
}

/// Resources that earlier changes of the table have touched.
fn differs_before(key: &(ResourceType, String)) -> bool {
    matches!(key.0, ResourceType::Route) || key.1.contains("details")
}

#[test]
fn a_bad_object_keeps_the_last_good_version() {
    let base = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bookinfo_productpage");
    let mut mesh = Mesh::new(MeshConfig::default(), "cluster.local");
    mesh.apply(&std::fs::read_to_string(base.join("mesh.yaml")).unwrap());
    let before = mesh.snapshot();
    let view = proxies(&before).remove(0);
    let good = versions(&before, &view);
    // The parser would refuse it; a source that does not parse hands it over as it is.
    let bad = mesh_api::kinds::virtual_service::VirtualService {
        hosts: vec!["reviews".to_owned()],
        ..Default::default()
    };
    let meta = mesh_api::Metadata::new(mesh_api::Kind::VirtualService, "default", "reviews");
    let object = mesh_api::Object::new(meta, bad.into());
    let key = object.key();
    mesh.state.apply(pilot::Event::Object(Arc::new(object)));
    let after = mesh.snapshot();
    assert_eq!(versions(&after, &view), good, "nothing changes for proxies");
    let status = after.statuses().get(&key).expect("a status");
    assert!(status.in_force && !status.problems.is_empty(), "{status:?}");
}
