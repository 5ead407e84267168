//! Istio's own rules for Bookinfo, each translated for a sidecar and the ingress gateway: Envoy
//! must take all of it.

use std::path::PathBuf;

use mesh_api::mesh_config::MeshConfig;
use serde_json::json;

use super::envoy;
use super::load::{Mesh, testdata, view};

#[test]
fn every_networking_sample_is_accepted_by_envoy() {
    let Some(folder) = testdata("istio/samples/bookinfo/networking") else {
        return;
    };
    let base = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bookinfo_gateway");
    let base = std::fs::read_to_string(base.join("mesh.yaml")).unwrap();
    // Without the case's own rules.
    let base = base
        .split("---\napiVersion: networking.istio.io")
        .next()
        .unwrap();
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() > 15, "the samples are there");
    for file in files {
        let mut mesh = Mesh::new(MeshConfig::default(), "cluster.local");
        mesh.apply(base);
        mesh.apply(&std::fs::read_to_string(&file).unwrap());
        let snapshot = mesh.snapshot();
        for proxy in [
            json!({"name": "productpage-v1", "ip": "10.0.0.11"}),
            json!({"type": "router", "name": "istio-ingressgateway",
                   "namespace": "istio-system", "ip": "10.0.1.1"}),
        ] {
            let what = format!("{} for {}", file.display(), proxy["name"]);
            envoy::accepts(&what, &snapshot, &view(&proxy, &snapshot));
        }
    }
}
