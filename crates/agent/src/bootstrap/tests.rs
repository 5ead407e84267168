//! The bootstrap as a message, and as real Envoy judges it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::options::Role;

fn options(role: Role, more: &[(&str, &str)]) -> Options {
    let base = [
        ("POD_NAME", "reviews-v1-7d9c-x2x4z"),
        ("POD_NAMESPACE", "default"),
        ("INSTANCE_IP", "10.0.0.7"),
        ("SERVICE_ACCOUNT", "bookinfo-reviews"),
        (
            "ISTIO_METAJSON_LABELS",
            r#"{"app":"reviews","topology.istio.io/locality":"r.z.s"}"#,
        ),
        ("ISTIO_META_POD_PORTS", r#"[{"containerPort":9080}]"#),
    ];
    let all = base
        .iter()
        .chain(more)
        .map(|(name, value)| (name.to_string(), value.to_string()));
    let all: BTreeMap<_, _> = all.collect();
    let mut options = Options::parse(role, &[], &all).unwrap();
    options.socket_mark = all.get("MARK").and_then(|mark| mark.parse().ok());
    options
}

#[test]
fn the_node_says_who_and_what_it_is() {
    let ours = json(&options(Role::Sidecar, &[]));
    let node = &ours["node"];
    assert_eq!(
        node["id"],
        "sidecar~10.0.0.7~reviews-v1-7d9c-x2x4z.default~default.svc.cluster.local"
    );
    assert_eq!(node["cluster"], "reviews.default");
    assert_eq!(
        node["locality"],
        serde_json::json!({"region": "r", "zone": "z", "sub_zone": "s"})
    );
    let metadata = &node["metadata"];
    for (key, want) in [
        ("NAME", "reviews-v1-7d9c-x2x4z"),
        ("NAMESPACE", "default"),
        ("SERVICE_ACCOUNT", "bookinfo-reviews"),
        ("INSTANCE_IPS", "10.0.0.7"),
        ("MESH_ID", "cluster.local"),
        ("INTERCEPTION_MODE", "REDIRECT"),
        ("WORKLOAD_NAME", "reviews-v1"),
        ("POD_PORTS", r#"[{"containerPort":9080}]"#),
    ] {
        assert_eq!(metadata[key], want, "{key}");
    }
    assert_eq!(
        node["extensions"].as_array().map(Vec::len),
        Some(4),
        "ours announces its own"
    );
    let envoy = json(&options(Role::Router, &[("STOLOS_PROXY", "envoy")]));
    assert_eq!(
        envoy["node"]["extensions"],
        Value::Null,
        "Envoy announces itself"
    );
    assert_eq!(envoy["node"]["metadata"]["INTERCEPTION_MODE"], "NONE");
}

#[test]
fn it_is_a_message() {
    for more in [&[][..], &[("MARK", "77")][..]] {
        let bootstrap = message(&options(Role::Sidecar, more)).unwrap();
        let resources = bootstrap.static_resources.unwrap();
        assert_eq!(
            (resources.clusters.len(), resources.listeners.len()),
            (4, 2)
        );
        assert_eq!(bootstrap.cluster_manager.is_some(), !more.is_empty());
    }
}

/// Envoy by STOLOS_ENVOY_PATH, in the cache folder of the tests, or on PATH.
fn envoy() -> Option<PathBuf> {
    let cache = std::env::var("HOME").unwrap_or_default() + "/.cache/stolos/envoy-venv/bin/envoy";
    let candidates = [
        std::env::var("STOLOS_ENVOY_PATH").unwrap_or_default(),
        cache,
    ];
    if let Some(found) = candidates.iter().map(Path::new).find(|path| path.is_file()) {
        return Some(found.to_path_buf());
    }
    let runs = Command::new("envoy").arg("--version").output().is_ok();
    assert!(runs || std::env::var_os("CI").is_none(), "no Envoy found");
    if !runs {
        println!("not run: no Envoy found");
    }
    runs.then(|| PathBuf::from("envoy"))
}

#[test]
fn real_envoy_accepts_it() {
    let Some(envoy) = envoy() else { return };
    let folder = tempfile::tempdir().unwrap();
    for (index, (role, more)) in [
        (Role::Sidecar, &[][..]),
        (Role::Router, &[][..]),
        (Role::Sidecar, &[("MARK", "77")][..]),
    ]
    .into_iter()
    .enumerate()
    {
        let file = folder.path().join(format!("{index}.json"));
        for engine in ["envoy", "stolos"] {
            let all = [more, &[("STOLOS_PROXY", engine)]].concat();
            std::fs::write(&file, json(&options(role, &all)).to_string()).unwrap();
            let base_id = (std::process::id() % 30_000 + index as u32).to_string();
            let output = Command::new(&envoy)
                .args(["--mode", "validate", "--base-id", &base_id, "-c"])
                .arg(&file)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{role:?} for {engine}: {text}");
            let complaint = text
                .lines()
                .find(|line| line.contains("[warning]") && line.contains("Deprecated"));
            assert_eq!(complaint, None, "{role:?} for {engine}");
        }
    }
}
