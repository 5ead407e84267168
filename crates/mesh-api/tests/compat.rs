//! `docs/compat/istio.md` is what the tables of this crate say. `STOLOS_GOLDEN=rewrite` writes it
//! anew.

// A helper of a test may panic as a test may.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::Path;

use mesh_api::Kind;
use mesh_api::mesh_config::{self, MeshConfig};
use mesh_api::performed::{WHOLE_KINDS, rows};

const TITLE: &str = "\
# What of Istio's API is in force

Generated from the tables in `crates/mesh-api` by `cargo xtask golden`; a test compares.

Every kind is read strictly and validated to Istio's rules. What is valid and not performed is
said when it is applied: for kinds about traffic as a warning and the status `NotPerformed`; for
security kinds the object is **refused**, because a condition that is ignored opens a door.
";

#[test]
fn golden_table_of_istio_fields() {
    let mut text = TITLE.to_owned();
    let istio = || {
        Kind::ALL
            .iter()
            .filter(|kind| kind.group().ends_with("istio.io"))
    };
    text.push_str("\n| kind | in force |\n|---|---|\n");
    for kind in istio() {
        let state = match (WHOLE_KINDS.contains(kind), rows(*kind).len()) {
            (true, _) => "no".to_owned(),
            (false, 0) => "yes".to_owned(),
            (false, 1) => "yes, but for 1 field".to_owned(),
            (false, count) => format!("yes, but for {count} fields"),
        };
        let _ = writeln!(text, "| {kind} | {state} |");
    }
    for kind in istio().filter(|kind| !WHOLE_KINDS.contains(kind)) {
        let rows = rows(*kind);
        if !rows.is_empty() {
            let _ = writeln!(text, "\n## {kind}: not performed\n");
        }
        for (path, why) in rows {
            let _ = writeln!(text, "* `{path}`: {why}");
        }
    }
    let keys = |keys: Vec<String>| {
        keys.iter()
            .map(|key| format!("`{key}`"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    text.push_str("\n## MeshConfig\n\n");
    let _ = writeln!(text, "In force: {}.\n", keys(MeshConfig::performed_keys()));
    let refused = mesh_config::NOT_PERFORMED
        .iter()
        .map(ToString::to_string)
        .collect();
    let _ = writeln!(text, "Refused by name: {}.", keys(refused));
    text.push_str("\n## MeshConfig.defaultConfig\n\n");
    let refused = mesh_config::PROXY_NOT_PERFORMED
        .iter()
        .map(ToString::to_string)
        .collect();
    let _ = writeln!(text, "Refused by name: {}.", keys(refused));
    compare("docs/compat/istio.md", &text);
}

fn compare(file: &str, want: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(file);
    if std::env::var("STOLOS_GOLDEN").is_ok_and(|value| value == "rewrite") {
        std::fs::write(&path, want).unwrap();
    }
    let have = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        have == want,
        "{file} is not what the tables say: run `cargo xtask golden`"
    );
}
