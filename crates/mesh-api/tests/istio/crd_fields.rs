//! Every field of Istio's CRDs is known to our types, with the type the CRD gives it.

use mesh_api::parse::yaml::{self, Limits};
use mesh_api::parse::{self, ParseOptions};
use mesh_api::{Kind, Object, Reason};
use serde_json::{Map, Value, json};

use crate::testdata::{self, Ratchet};

/// A value for a schema, with only what leads to one of its leaves: one value per leaf.
fn probes(schema: &Value, path: &str, out: &mut Vec<(String, Value)>) {
    let at = out.len();
    let free = schema["x-kubernetes-preserve-unknown-fields"] == true;
    match schema["type"].as_str() {
        Some("object") if schema["properties"].is_object() => {
            for (name, property) in schema["properties"].as_object().unwrap() {
                let from = out.len();
                probes(property, &format!("{path}.{name}"), out);
                for (_, value) in &mut out[from..] {
                    let mut map = Map::new();
                    map.insert(name.clone(), value.take());
                    *value = Value::Object(map);
                }
            }
        }
        Some("object") if schema["additionalProperties"].is_object() => {
            probes(&schema["additionalProperties"], &format!("{path}{{}}"), out);
            for (_, value) in &mut out[at..] {
                *value = json!({"1": value.take()});
            }
        }
        Some("object") => out.push((path.to_owned(), json!({}))),
        Some("array") => {
            probes(&schema["items"], &format!("{path}[]"), out);
            for (_, value) in &mut out[at..] {
                *value = json!([value.take()]);
            }
        }
        Some("boolean") => out.push((path.to_owned(), json!(true))),
        Some("integer" | "number") => out.push((path.to_owned(), json!(100))),
        Some("string") => {
            let duration = schema["x-kubernetes-validations"]
                .to_string()
                .contains("duration(");
            let value = match &schema["enum"] {
                Value::Array(names) => names.last().unwrap().clone(),
                _ if duration => json!("5s"),
                _ => json!("1s"),
            };
            out.push((path.to_owned(), value));
        }
        _ if free || schema["x-kubernetes-int-or-string"] == true => {
            out.push((path.to_owned(), json!(1)));
        }
        other => panic!("{path}: {other:?}"),
    }
}

fn try_one(kind: Kind, version: &str, path: &str, spec: &Value) -> Result<(), String> {
    let document = json!({
        "apiVersion": format!("{}/{version}", kind.group()),
        "kind": kind.name(),
        "metadata": {"name": "a"},
        "spec": spec,
    });
    let parsed = parse::parse("crd", &document.to_string(), &ParseOptions::default());
    let bad = |reason| {
        matches!(
            reason,
            Reason::UnknownField | Reason::WrongType | Reason::UnknownKind
        )
    };
    if let Some(found) = parsed.diagnostics.iter().find(|found| bad(found.reason)) {
        return Err(format!("{path}: {found}"));
    }
    match parsed.objects.as_slice() {
        [object] => round_trip(object),
        // Refused for its content, which these values do not care for.
        _ => Ok(()),
    }
}

/// What `get -o yaml` shows reads as the same object.
pub fn round_trip(object: &Object) -> Result<(), String> {
    let text = object.to_json().to_string();
    let again = parse::parse("again", &text, &ParseOptions::default());
    match again.objects.as_slice() {
        [only] if only == object => Ok(()),
        [_] => Err(format!("{} changes on the way through JSON", object.key())),
        _ => Err(format!("{}: {:?}", object.key(), again.diagnostics)),
    }
}

#[test]
fn every_field_of_istios_crds_is_known() {
    let mut ratchet = Ratchet::new("crd-fields");
    let Some(text) = testdata::read("istio/crds/crd-all.gen.yaml") else {
        return;
    };
    let loaded = yaml::load(&text, &Limits::default());
    assert_eq!(loaded.errors, []);
    let mut kinds = 0;
    for document in &loaded.documents {
        let crd = document.to_json();
        let name = crd["spec"]["names"]["kind"].as_str().unwrap();
        let kind = Kind::from_name(name).unwrap_or_else(|| panic!("{name}"));
        kinds += 1;
        assert_eq!(crd["spec"]["group"], kind.group());
        assert_eq!(crd["spec"]["names"]["plural"], kind.plural());
        for version in crd["spec"]["versions"].as_array().unwrap() {
            let name = version["name"].as_str().unwrap();
            let schema = &version["schema"]["openAPIV3Schema"]["properties"]["spec"];
            let mut all = Vec::new();
            probes(schema, "spec", &mut all);
            for (path, spec) in &all {
                ratchet.row(
                    &format!("{kind} {name} {path}"),
                    try_one(kind, name, path, spec),
                );
            }
        }
    }
    assert_eq!(kinds, 15);
    ratchet.finish();
}
