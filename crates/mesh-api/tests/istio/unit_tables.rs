//! Istio's unit-test tables for hosts, labels and protocols, read from the test data.

use crate::testdata;

use std::collections::BTreeMap;

use mesh_api::port::Protocol;
use mesh_api::{host, labels};
use serde_json::Value;

/// The cases of one table, or `None` when the test data is not there.
fn cases(file: &str, test: &str) -> Option<Vec<Value>> {
    let text = testdata::read(&format!("istio/cases/unit/{file}"))?;
    let whole: Value = serde_json::from_str(&text).unwrap();
    let tables = whole["tables"].as_array().unwrap();
    let table = tables
        .iter()
        .find(|t| t["test"] == test)
        .unwrap_or_else(|| panic!("{test}"));
    Some(table["cases"].as_array().unwrap().clone())
}

fn text<'c>(case: &'c Value, key: &str) -> &'c str {
    case[key].as_str().unwrap_or("")
}

fn map(value: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(value.clone()).unwrap_or_default()
}

#[test]
fn hosts_contain_each_other_as_in_istio() {
    for case in cases("host.json", "TestNameSubsetOf").unwrap_or_default() {
        let got = host::is_subset(text(&case, "a"), text(&case, "b"));
        assert_eq!(got, case["out"] == true, "{case}");
    }
    for case in cases("host.json", "TestMoreSpecific").unwrap_or_default() {
        let got = host::is_more_specific(text(&case, "host1"), text(&case, "host2"));
        assert_eq!(got, case["expected"] == true, "{case}");
    }
}

#[test]
fn short_names_resolve_as_in_istio() {
    for case in cases("model.json", "TestResolveShortnameToFQDN").unwrap_or_default() {
        let meta = &case["meta"];
        let (namespace, domain) = (text(meta, "Namespace"), text(meta, "Domain"));
        let name = ["name", "Name", "hostname", "in"]
            .iter()
            .find_map(|key| case[*key].as_str());
        let got = host::resolve_short_name(name.unwrap_or(""), namespace, domain);
        assert_eq!(got, text(&case, "out"), "{case}");
    }
}

#[test]
fn labels_behave_as_in_istio() {
    for case in cases("labels.json", "TestInstance").unwrap_or_default() {
        let (left, right) = (map(&case["left"]), map(&case["right"]));
        let got = [
            labels::is_subset(&left, &right),
            labels::selects(&left, &right),
        ];
        assert_eq!(serde_json::json!(got), case["expected"], "{case}");
    }
    for case in cases("labels.json", "TestString").unwrap_or_default() {
        assert_eq!(
            labels::show(&map(&case["input"])),
            text(&case, "expected"),
            "{case}"
        );
    }
    for case in cases("labels.json", "TestInstanceValidate").unwrap_or_default() {
        let got = labels::check(&map(&case["tags"])).is_ok();
        assert_eq!(got, case["valid"] == true, "{case}");
    }
    for case in cases("labels.json", "TestCanonicalService").unwrap_or_default() {
        let found = map(&case["labels"]);
        let (name, revision) = labels::canonical_service(&found, text(&case, "workloadName"));
        assert_eq!(name, text(&case, "expectedName"), "{case}");
        assert_eq!(revision, text(&case, "expectedRevision"), "{case}");
    }
    for case in cases("labels.json", "TestHasCanonicalServiceName").unwrap_or_default() {
        let got = labels::names_canonical_service(&map(&case["labels"]));
        assert_eq!(got, case["expected"] == true, "{case}");
    }
}

#[test]
fn protocols_are_selected_as_in_istio() {
    for case in cases("protocol.json", "TestParse").unwrap_or_default() {
        assert_eq!(
            Protocol::parse(text(&case, "name")).as_str(),
            text(&case, "out"),
            "{case}"
        );
    }
    for case in cases("protocol.json", "TestConvertProtocol").unwrap_or_default() {
        let port = i32::try_from(case["port"].as_i64().unwrap()).unwrap();
        let (name, transport) = (text(&case, "name"), text(&case, "proto"));
        let got = Protocol::of_port(port, name, transport, text(&case, "appProtocol"));
        assert_eq!(got.as_str(), text(&case, "out"), "{case}");
    }
}
