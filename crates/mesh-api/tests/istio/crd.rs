//! Documents that Istio's CRDs accept or refuse: our parser and rules decide alike.

use mesh_api::parse::{self, ParseOptions};
use mesh_api::{Diagnostic, validate};

use crate::testdata::{self, Ratchet};

/// Errors of the first kind met: parsing, then the rules.
pub fn decide(file: &str, text: &str) -> Result<(), String> {
    let parsed = parse::parse(file, text, &ParseOptions::default());
    let mut found: Vec<Diagnostic> = parsed.diagnostics;
    for object in &parsed.objects {
        found.extend(validate::rules(object));
    }
    match found.iter().find(|d| d.is_error()) {
        Some(error) => Err(error.to_string()),
        None => Ok(()),
    }
}

fn decide_on_folder(folder: &str, ratchet: &mut Ratchet) {
    for file in testdata::files(folder, &["yaml"]) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if name == "crd-all.gen.yaml" {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        for (index, document) in text.split("\n---").enumerate() {
            let lines: Vec<&str> = document.lines().collect();
            let refused = lines.iter().any(|line| line.starts_with("_err:"));
            let body = |line: &&&str| !line.starts_with("_err:");
            let body: Vec<&str> = lines.iter().filter(body).copied().collect();
            if body
                .iter()
                .all(|line| line.trim().is_empty() || line.trim().starts_with('#'))
            {
                continue;
            }
            let outcome = match (decide(&name, &body.join("\n")), refused) {
                (Ok(()), false) | (Err(_), true) => Ok(()),
                (Ok(()), true) => Err("accepted".to_owned()),
                (Err(error), false) => Err(error),
            };
            ratchet.row(&format!("{name}#{index}"), outcome);
        }
    }
}

#[test]
fn documents_are_decided_on_as_istios_crds_do() {
    for (folder, list) in [
        ("istio/cases/crd", "crd"),
        ("istio/goldens/validation", "goldens-validation"),
    ] {
        let mut ratchet = Ratchet::new(list);
        decide_on_folder(folder, &mut ratchet);
        ratchet.finish();
    }
}
