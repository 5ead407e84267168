//! Rules on Cargo.toml files: which crate may use which, who may use tokio, what is banned.

use super::Breach;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::path::Path;

/// Each crate of the product and the crates of the product that it may use. `proxy` and `local`
/// never meet `pilot`; nothing points upwards.
const ARROWS: &[(&str, &[&str])] = &[
    ("envoy-api", &[]),
    ("mesh-api", &[]),
    ("pki", &[]),
    ("daemon", &[]),
    ("xds", &["envoy-api"]),
    ("pilot", &["mesh-api", "envoy-api", "pki"]),
    ("proxy", &["envoy-api", "xds", "pki", "daemon"]),
    (
        "control",
        &["mesh-api", "envoy-api", "pki", "xds", "pilot", "daemon"],
    ),
    ("agent", &["envoy-api", "xds", "pki", "proxy", "daemon"]),
    ("local", &["mesh-api", "control", "agent", "daemon", "pki"]),
    (
        "cli",
        &[
            "envoy-api",
            "mesh-api",
            "pki",
            "daemon",
            "xds",
            "pilot",
            "proxy",
            "control",
            "agent",
            "local",
        ],
    ),
];

const TOKIO: &[&str] = &["daemon", "proxy", "control", "agent", "local", "cli"];
/// tokio only behind a feature that pure users leave off.
const OPTIONAL_TOKIO: &[&str] = &["xds"];
const BANNED: &[&str] = &[
    "openssl",
    "openssl-sys",
    "native-tls",
    "serde_yaml",
    "async-std",
];

pub fn check(root: &Path, breaches: &mut Vec<Breach>) -> Result<()> {
    for entry in std::fs::read_dir(root.join("crates"))? {
        let folder = entry?.path();
        let manifest = folder.join("Cargo.toml");
        if !manifest.is_file() {
            continue;
        }
        let text = std::fs::read_to_string(&manifest)?;
        let name = folder
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        check_crate(&name.context("a crate has a folder name")?, &text, breaches);
    }
    let lock = std::fs::read_to_string(root.join("Cargo.lock")).unwrap_or_default();
    check_lock(&lock, breaches);
    check_ring(root, breaches);
    Ok(())
}

fn check_crate(name: &str, text: &str, breaches: &mut Vec<Breach>) {
    let place = format!("crates/{name}/Cargo.toml");
    let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == name) else {
        let why = "a new crate needs its row in xtask/src/tidy/manifests.rs and a decision record";
        return breaches.push(Breach::new(place, why));
    };
    let internal: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    for (dependency, line) in dependencies(text) {
        if internal.contains(dependency.as_str()) && !allowed.contains(&dependency.as_str()) {
            let text = format!("{name} must not use {dependency} (architecture, section 3)");
            breaches.push(Breach::new(&place, text));
        }
        let is_tokio = dependency == "tokio" || dependency.starts_with("tokio-");
        let optional = OPTIONAL_TOKIO.contains(&name) && line.contains("optional = true");
        if is_tokio && !TOKIO.contains(&name) && !optional {
            breaches.push(Breach::new(
                &place,
                format!("{name} is pure: no {dependency}"),
            ));
        }
    }
}

/// Names and lines of the `[dependencies]` sections; development ones may be anything.
fn dependencies(text: &str) -> Vec<(String, String)> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line.ends_with(".dependencies]") || line == "[dependencies]";
            continue;
        }
        let end = line.find(['.', '=', ' ']);
        if let (true, Some(end)) = (inside && !line.starts_with('#'), end) {
            found.push((line[..end].to_owned(), line.to_owned()));
        }
    }
    found
}

fn check_lock(lock: &str, breaches: &mut Vec<Breach>) {
    for line in lock.lines() {
        let name = line
            .strip_prefix("name = ")
            .map(|name| name.trim_matches('"'));
        if let Some(name) = name.filter(|name| BANNED.contains(name)) {
            breaches.push(Breach::new(
                "Cargo.lock",
                format!("{name} is banned (deny.toml)"),
            ));
        }
    }
}

/// `ring` may stand in the lock file as somebody's option; no build of ours may hold it.
fn check_ring(root: &Path, breaches: &mut Vec<Breach>) {
    let arguments = [
        "tree",
        "--quiet",
        "--workspace",
        "--edges",
        "all",
        "--invert",
        "ring",
    ];
    let output = crate::cargo(&arguments).current_dir(root).output();
    let Ok(output) = output else { return };
    let tree = String::from_utf8_lossy(&output.stdout);
    if tree.lines().any(|line| line.starts_with("ring ")) {
        breaches.push(Breach::new(
            "Cargo.lock",
            "ring is built: aws-lc-rs is the only provider",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_and_tokio() {
        for (name, line, want, why) in [
            ("pilot", "mesh-api.workspace = true", 0, "downwards"),
            (
                "pilot",
                "proxy.workspace = true",
                1,
                "pilot never meets proxy",
            ),
            (
                "proxy",
                "mesh-api.workspace = true",
                1,
                "proxy never meets mesh-api",
            ),
            ("pki", "tokio.workspace = true", 1, "pure"),
            (
                "xds",
                "tokio = { workspace = true, optional = true }",
                0,
                "behind a feature",
            ),
            ("daemon", "tokio.workspace = true", 0, "runtime"),
            ("news", "serde.workspace = true", 1, "an unknown crate"),
        ] {
            let mut found = Vec::new();
            let text = format!("[package]\nname = \"{name}\"\n\n[dependencies]\n{line}\n");
            check_crate(name, &text, &mut found);
            assert_eq!(found.len(), want, "{why}");
        }
        let mut found = Vec::new();
        check_crate(
            "pki",
            "[dev-dependencies]\ntokio.workspace = true\n",
            &mut found,
        );
        assert!(found.is_empty(), "tests of a pure crate may use tokio");
    }
}
