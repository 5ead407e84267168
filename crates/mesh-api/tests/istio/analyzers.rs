//! Inputs of Istio's analyzers with the codes and objects they must find.

use mesh_api::Reason;
use mesh_api::analyze::{self, AnalyzeOptions};
use mesh_api::parse::{self, ParseOptions};
use serde_json::Value;

use crate::testdata::{self, Ratchet};

fn run(row: &Value) -> Result<(), String> {
    let analyzer = row["analyzer"].as_str().unwrap();
    if !analyze::analyzer_names().any(|name| name == analyzer) {
        return Err(format!("there is no {analyzer} yet"));
    }
    let mut objects = Vec::new();
    for file in row["files"].as_array().unwrap() {
        let name = file.as_str().unwrap();
        let text = testdata::read(&format!("istio/goldens/analyzers/{name}")).unwrap();
        let parsed = parse::parse(name, &text, &ParseOptions::default());
        let error = parsed
            .diagnostics
            .iter()
            .find(|d| d.is_error() && d.reason != Reason::UnknownKind);
        if let Some(error) = error {
            return Err(error.to_string());
        }
        objects.extend(parsed.objects);
    }
    let options = AnalyzeOptions {
        only: vec![analyzer.to_owned()],
        auto_allocate_addresses: !row["meshConfig"].is_null(),
        ..AnalyzeOptions::default()
    };
    let found = analyze::analyze(&objects, &options);
    let mut got: Vec<String> = found
        .iter()
        .map(|m| {
            format!(
                "{} {} {}/{}",
                m.code, m.object.kind, m.object.namespace, m.object.name
            )
        })
        .collect();
    let mut want: Vec<String> = Vec::new();
    for expected in row["expected"].as_array().unwrap() {
        let resource = expected["resource"].as_str().unwrap();
        let (kind, name) = resource.split_once(' ').unwrap();
        let name = if name.contains('/') {
            name.to_owned()
        } else {
            format!("default/{name}")
        };
        want.push(format!(
            "{} {kind} {name}",
            expected["code"].as_str().unwrap()
        ));
    }
    got.sort();
    want.sort();
    match got == want {
        true => Ok(()),
        false => Err(format!("got {got:?}, want {want:?}")),
    }
}

#[test]
fn analyzers_find_what_istios_find() {
    let mut ratchet = Ratchet::new("analyzers");
    let Some(text) = testdata::read("istio/goldens/analyzers/expected.json") else {
        return;
    };
    let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
    for row in &rows {
        let name = format!("{} {}", row["name"].as_str().unwrap(), row["files"][0]);
        ratchet.row(&name.replace(['"', '#'], ""), run(row));
    }
    ratchet.finish();
}
