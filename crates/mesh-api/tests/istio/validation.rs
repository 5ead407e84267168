//! Tables of Istio's validation tests. A case about a part of an object is put into an object
//! around it, so that the whole way through is what is tested.

use mesh_api::mesh_config::MeshConfig;
use mesh_api::parse::{self, ParseOptions};
use mesh_api::{Diagnostic, host, validate};
use serde_json::{Value, json};

use crate::testdata::{self, Ratchet};

/// Builds the document for a case of one of Istio's tests; `None`: not about an object of ours.
fn document(test: &str, input: &Value) -> Option<Value> {
    let destination = || json!({"destination": {"host": "foo.baz"}});
    let policy = |policy: Value| json!({"host": "reviews", "trafficPolicy": policy});
    let http = |route: Value| json!({"hosts": ["foo.bar"], "http": [route]});
    let tcp = |route: Value| json!({"hosts": ["foo.bar"], "tcp": [route]});
    let mut meta = json!({"name": "case", "namespace": "default"});
    let (kind, spec) = match test {
        "TestValidateGateway" => ("Gateway", input["in"].clone()),
        "TestValidateServerPort" => {
            let server = json!({"port": input["in"], "bind": input["bind"], "hosts": ["a.b"]});
            ("Gateway", json!({"servers": [server]}))
        }
        "TestValidateCORSPolicy" => (
            "VirtualService",
            http(json!({"corsPolicy": input["in"], "route": [destination()]})),
        ),
        "TestValidateHTTPFaultInjectionDelay" => {
            let fault = match input["in"].is_null() {
                true => Value::Null,
                false => json!({"delay": input["in"]}),
            };
            (
                "VirtualService",
                http(json!({"fault": fault, "route": [destination()]})),
            )
        }
        "TestValidateHTTPRoute" | "TestValidateRootHTTPRoute" => {
            ("VirtualService", http(input["route"].clone()))
        }
        "TestValidateDelegateHTTPRoute" => {
            ("VirtualService", json!({"http": [input["route"].clone()]}))
        }
        "TestValidateRouteDestination" => (
            "VirtualService",
            json!({"hosts": ["a.b"], "tcp": [{"route": input["routes"]}]}),
        ),
        "TestValidateVirtualService" | "TestValidateChainingVirtualService" => {
            ("VirtualService", input["in"].clone())
        }
        "TestValidateDestinationRule" => ("DestinationRule", input["in"].clone()),
        "TestValidateTrafficPolicy" => ("DestinationRule", policy(input["in"].clone())),
        "TestValidateConnectionPool" => (
            "DestinationRule",
            policy(json!({"connectionPool": input["in"]})),
        ),
        "TestValidateLoadBalancer" => (
            "DestinationRule",
            policy(json!({"loadBalancer": input["in"]})),
        ),
        "TestValidateRequestAuthentication" => {
            meta["name"] = input["configName"].clone();
            meta["annotations"] = input["annotations"].clone();
            ("RequestAuthentication", input["in"].clone())
        }
        "TestValidateTelemetry" => ("Telemetry", input["in"].clone()),
        "TestValidateTelemetryFilter" => (
            "Telemetry",
            json!({"accessLogging": [{"filter": input["filter"]}]}),
        ),
        "TestValidateHTTPHeaderValue" => {
            let headers = json!({"request": {"set": {"x-a": input["input"]}}});
            (
                "VirtualService",
                http(json!({"headers": headers, "route": [destination()]})),
            )
        }
        "Test_validateExportTo" => return Some(export_to(input)),
        "TestValidateLocalities" => {
            let from = |name: &Value| json!({"from": name, "to": {"x": 100}});
            let list: Vec<Value> = input["localities"]
                .as_array()
                .unwrap()
                .iter()
                .map(from)
                .collect();
            let balancer = json!({"localityLbSetting": {"distribute": list}});
            ("DestinationRule", policy(json!({"loadBalancer": balancer})))
        }
        "TestValidatePort" => {
            let ports = json!([{"number": input["in"], "name": "a", "protocol": "HTTP"}]);
            ("ServiceEntry", json!({"hosts": ["a.b"], "ports": ports}))
        }
        "TestValidateDuration" => {
            let route = json!({"timeout": input["duration"], "route": [destination()]});
            ("VirtualService", http(route))
        }
        "TestValidationIPSubnet" => {
            let r#match = json!([{"destinationSubnets": [input["subnet"]]}]);
            (
                "VirtualService",
                tcp(json!({"match": r#match, "route": [destination()]})),
            )
        }
        "TestStrictValidateHTTPHeaderName" => {
            let output = json!({"header": input["name"], "claim": "a"});
            let rule = json!({"issuer": "a", "outputClaimToHeaders": [output]});
            ("RequestAuthentication", json!({"jwtRules": [rule]}))
        }
        _ => return None,
    };
    Some(object(kind, meta, spec))
}

fn export_to(input: &Value) -> Value {
    let meta = json!({"name": "case", "namespace": input["namespace"]});
    let list = &input["exportTo"];
    let mut spec = json!({"host": "a.b", "exportTo": list});
    let kind = if input["isServiceEntry"] == true {
        spec = json!({"hosts": ["a.b"], "exportTo": list});
        "ServiceEntry"
    } else {
        if input["isDestinationRuleWithSelector"] == true {
            spec["workloadSelector"] = json!({"matchLabels": {"a": "b"}});
        }
        "DestinationRule"
    };
    object(kind, meta, spec)
}

fn object(kind: &str, meta: Value, spec: Value) -> Value {
    let kind_row = mesh_api::Kind::from_name(kind).unwrap();
    json!({
        "apiVersion": kind_row.api_version(),
        "kind": kind,
        "metadata": meta,
        "spec": spec,
    })
}

/// Istio's cases hold null where the Go code has a nil item; such an item means an empty one.
fn without_null_items(value: &mut Value) {
    match value {
        Value::Array(items) => {
            for item in items {
                if item.is_null() {
                    *item = json!({});
                }
                without_null_items(item);
            }
        }
        Value::Object(members) => members.values_mut().for_each(without_null_items),
        _ => {}
    }
}

fn decide(document: &Value) -> Vec<Diagnostic> {
    let parsed = parse::parse("case", &document.to_string(), &ParseOptions::default());
    let mut found = parsed.diagnostics;
    for object in &parsed.objects {
        found.extend(validate::rules(object));
    }
    found
}

fn compare(found: &[Diagnostic], expect: &Value) -> Result<(), String> {
    let error = found.iter().find(|d| d.is_error());
    match (error, expect["valid"] == true) {
        (Some(error), true) => return Err(format!("refused: {error}")),
        (None, false) => return Err("accepted".to_owned()),
        _ => {}
    }
    let wants_warning = expect["warning"] == true || expect.get("warningContains").is_some();
    let warned = found.iter().any(|d| !d.is_error());
    if expect["valid"] == true && wants_warning && !warned {
        return Err("no warning".to_owned());
    }
    if expect["warning"] == false && error.is_none() && warned {
        return Err(format!("warned: {}", found[0]));
    }
    Ok(())
}

/// Tests of single values that have a function of their own here.
fn of_value(test: &str, input: &Value) -> Option<Result<(), String>> {
    let text = input["in"].as_str().unwrap_or("");
    let mesh_config = |config: Value| match MeshConfig::parse("case", &config.to_string()) {
        Ok(_) => Ok(()),
        Err(found) => Err(found[0].to_string()),
    };
    match test {
        "TestValidateWildcardDomain" => Some(host::check_wildcard_domain(text)),
        "TestValidateWildcardDomainForVirtualServiceBoundToGateway" => {
            Some(match input["sni"] == true {
                true => host::check_sni_domain(text),
                false => host::check_wildcard_domain(text),
            })
        }
        "TestValidateMeshConfigProxyConfig" => Some(mesh_config(
            json!({"defaultConfig": without_usual_keys(&input["in"])}),
        )),
        "TestValidateProxyAddress" => Some(mesh_config(
            json!({"defaultConfig": {"discoveryAddress": text}}),
        )),
        "TestValidateConnectionSettings" => Some(mesh_config(
            json!({"defaultConfig": {"connectionSettings": input["cs"]}}),
        )),
        _ => None,
    }
}

/// Istio's cases all hold some keys that are not their subject and that we refuse.
fn without_usual_keys(config: &Value) -> Value {
    let usual = json!({
        "statsdUdpAddress": "istio-statsd-prom-bridge.istio-system:9125",
        "envoyMetricsService": {"address": "metrics-service.istio-system:15000"},
        "envoyAccessLogService": {"address": "accesslog-service.istio-system:15000"},
        "controlPlaneAuthPolicy": "MUTUAL_TLS",
        "tracing": null,
        "privateKeyProvider": null,
    });
    let mut config = config.clone();
    if let (Value::Object(config), Value::Object(usual)) = (&mut config, usual) {
        config.retain(|key, value| usual.get(key) != Some(value));
    }
    config
}

fn expand(value: &mut Value) {
    if let (Some(text), Some(count)) = (value["@repeat"].as_str(), value["@count"].as_u64()) {
        *value = Value::String(text.repeat(usize::try_from(count).unwrap()));
    } else if let Value::Object(members) = value {
        members.values_mut().for_each(expand);
    } else if let Value::Array(items) = value {
        items.iter_mut().for_each(expand);
    }
}

#[test]
fn objects_are_decided_on_as_istios_webhook_does() {
    let mut ratchet = Ratchet::new("validation");
    for file in testdata::files("istio/cases/validation/cases", &["json"]) {
        let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
        let whole: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        for table in whole["tables"].as_array().unwrap() {
            let test = table["test"].as_str().unwrap();
            for (index, case) in table["cases"].as_array().unwrap().iter().enumerate() {
                let mut input = case["input"].clone();
                expand(&mut input);
                without_null_items(&mut input);
                let name = format!("{stem}/{test}#{index}");
                if let Some(outcome) = of_value(test, &input) {
                    let wanted = case["expect"]["valid"] == true;
                    let same = outcome.is_ok() == wanted;
                    ratchet.row(
                        &name,
                        if same {
                            Ok(())
                        } else {
                            Err(format!("{outcome:?}"))
                        },
                    );
                } else if let Some(document) = document(test, &input) {
                    ratchet.row(&name, compare(&decide(&document), &case["expect"]));
                } else {
                    ratchet.row(
                        &name,
                        Err(format!("{} has no counterpart", table["validator"])),
                    );
                }
            }
        }
    }
    ratchet.finish();
}
