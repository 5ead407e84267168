//! Golden cases: `golden/CASE/{mesh.yaml,proxy.yaml}` to one file per resource type.
//! `STOLOS_GOLDEN=rewrite` writes them anew; a reviewer reads the difference.

use std::path::{Path, PathBuf};

use envoy_api::cluster::Cluster;
use envoy_api::endpoint::ClusterLoadAssignment;
use envoy_api::istio::NameTable;
use envoy_api::listener::Listener;
use envoy_api::route::RouteConfiguration;
use envoy_api::{Resource, ResourceType, json};
use mesh_api::mesh_config::MeshConfig;
use pilot::generate;
use prost::{Message, Name};
use serde_json::Value;

use super::load::{Mesh, view};
use super::{envoy, yaml};

#[test]
fn golden_cases() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    let failures: Vec<String> = cases.iter().filter_map(|case| run(case).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn run(case: &Path) -> Result<(), String> {
    let read = |name: &str| std::fs::read_to_string(case.join(name)).unwrap_or_default();
    let config = match read("mesh-config.yaml") {
        text if text.is_empty() => MeshConfig::default(),
        text => MeshConfig::parse("mesh-config.yaml", &text).expect("a mesh configuration"),
    };
    let mut mesh = Mesh::new(config, "cluster.local");
    mesh.apply(&read("mesh.yaml"));
    let snapshot = mesh.snapshot();
    let proxy = yaml::read(&read("proxy.yaml")).remove(0);
    let view = view(&proxy, &snapshot);
    let mut wrong = Vec::new();
    for (file, kind) in [
        ("clusters.yaml", ResourceType::Cluster),
        ("endpoints.yaml", ResourceType::Endpoint),
        ("listeners.yaml", ResourceType::Listener),
        ("routes.yaml", ResourceType::Route),
        ("names.yaml", ResourceType::NameTable),
    ] {
        let resources = generate(&snapshot, &view, kind, None);
        let got = yaml::write(&Value::Array(resources.iter().map(show).collect()));
        let path = case.join(file);
        if std::env::var("STOLOS_GOLDEN").is_ok_and(|value| value == "rewrite") {
            std::fs::write(&path, &got).expect("a writable golden file");
        } else if std::fs::read_to_string(&path).unwrap_or_default() != got {
            wrong.push(file);
        }
    }
    // Stock Envoy does not know Istio's filters: they are only for nodes that announce them.
    let what = case.display().to_string();
    if view.capabilities.stats {
        envoy::keep(&what, &envoy::bootstrap(&snapshot, &view));
    } else {
        envoy::accepts(&what, &snapshot, &view);
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{}: {wrong:?} differ; STOLOS_GOLDEN=rewrite shows how",
        case.display()
    ))
}

fn show(resource: &Resource) -> Value {
    fn as_json<M: Message + Name + Default>(resource: &Resource) -> Value {
        json::to_json(&M::decode(resource.body.clone()).unwrap()).unwrap()
    }
    match resource.kind {
        ResourceType::Cluster => as_json::<Cluster>(resource),
        ResourceType::Endpoint => as_json::<ClusterLoadAssignment>(resource),
        ResourceType::Listener => as_json::<Listener>(resource),
        ResourceType::Route => as_json::<RouteConfiguration>(resource),
        _ => as_json::<NameTable>(resource),
    }
}
