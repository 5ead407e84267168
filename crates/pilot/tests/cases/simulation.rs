//! Istio's simulation set: calls and where each must go, decided on the generated resources by
//! the algorithm that the test data describes. Needs no Envoy.

#[path = "simulation/chains.rs"]
mod chains;
#[path = "simulation/routes.rs"]
mod routes;

use std::collections::{BTreeMap, BTreeSet};

use envoy_api::ResourceType;
use envoy_api::listener::Listener;
use envoy_api::route::RouteConfiguration;
use mesh_api::mesh_config::MeshConfig;
use pilot::generate;
use serde_json::{Value, json};

use super::envoy::decode;
use super::load::{self, Mesh, testdata, view};
use super::yaml;

/// What a proxy has, ready for calls.
pub struct Configured {
    pub listeners: Vec<Listener>,
    pub tables: BTreeMap<String, RouteConfiguration>,
    pub router: bool,
}

/// Where a call went; an error names the step that stopped it.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    pub error: Option<&'static str>,
    pub listener: String,
    pub chain: String,
    pub route_config: String,
    pub virtual_host: String,
    pub cluster: String,
}

#[test]
fn calls_go_where_istio_sends_them() {
    let Some(file) = testdata("istio/cases/simulation/traffic-simulation.yaml") else {
        return;
    };
    let text = std::fs::read_to_string(file).unwrap();
    let mut failed: BTreeMap<String, String> = BTreeMap::new();
    let mut rows = 0;
    for case in yaml::read(&text).remove(0)["cases"].as_array().unwrap() {
        if case["knownBugSkip"].is_boolean() {
            continue;
        }
        let configured = std::panic::catch_unwind(|| configure(case));
        for call in case["calls"].as_array().unwrap() {
            rows += 1;
            let id = case["id"].as_str().unwrap();
            let row = format!("{id} :: {}", call["name"].as_str().unwrap_or_default());
            let result = match &configured {
                Ok(configured) => check(configured, call),
                Err(_) => Err("the configuration is refused".to_owned()),
            };
            if let Err(reason) = result {
                failed.insert(row, reason);
            }
        }
    }
    compare(rows, &failed);
}

/// Each failing row must be listed, each listed row must fail.
fn compare(rows: usize, failed: &BTreeMap<String, String>) {
    let list = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/expected-failures/simulation.txt"
    );
    let listed: BTreeSet<String> = std::fs::read_to_string(list)
        .unwrap()
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            line.splitn(3, " :: ")
                .take(2)
                .collect::<Vec<_>>()
                .join(" :: ")
        })
        .collect();
    let new: Vec<String> = failed
        .iter()
        .filter(|(row, _)| !listed.contains(*row))
        .map(|(row, reason)| format!("{row}: {reason}"))
        .collect();
    let passing: Vec<&String> = listed
        .iter()
        .filter(|row| !failed.contains_key(*row))
        .collect();
    println!("{rows} rows, {} fail", failed.len());
    assert!(new.is_empty(), "these rows fail:\n{}", new.join("\n"));
    assert!(
        passing.is_empty(),
        "these listed rows pass, take them off: {passing:?}"
    );
}

fn configure(case: &Value) -> Configured {
    let config = match &case["meshConfig"] {
        Value::Null => MeshConfig::default(),
        value => MeshConfig::parse("mesh", &value.to_string()).expect("a mesh configuration"),
    };
    let mut mesh = Mesh::with_domains(config, "", "cluster.local");
    for key in ["kubeObjects", "istioConfig"] {
        mesh.apply(&plain(case[key].as_str().unwrap_or_default()));
    }
    let snapshot = mesh.snapshot();
    let written = &case["proxy"];
    let (name, _) = written["id"]
        .as_str()
        .unwrap_or("app.test")
        .split_once('.')
        .unwrap();
    let proxy = json!({
        "type": written["type"], "name": name, "namespace": written["configNamespace"],
        "ip": written["ip"], "ips": written["ips"], "labels": written["labels"],
        "extensions": written["extensions"], "metadata": written["metadata"],
    });
    let view = view(&proxy, &snapshot);
    let tables =
        decode::<RouteConfiguration>(&generate(&snapshot, &view, ResourceType::Route, None));
    Configured {
        listeners: decode(&generate(&snapshot, &view, ResourceType::Listener, None)),
        tables: tables
            .into_iter()
            .map(|table| (table.name.clone(), table))
            .collect(),
        router: written["type"] == "router",
    }
}

/// Without what only Istio's own translation of Gateway API objects may write, and without a
/// field that its TCPRoute does not have.
fn plain(text: &str) -> String {
    let kept = |line: &&str| {
        !line.contains("internal.istio.io/parents")
            && !line.contains("internal.istio.io/route-semantics")
    };
    let lines: Vec<&str> = text.lines().filter(kept).collect();
    lines
        .join("\n")
        .replace("- name: \"route1\"\n    route:", "- route:")
}

fn check(configured: &Configured, row: &Value) -> Result<(), String> {
    let outcome = chains::simulate(configured, &row["call"]);
    let expect = &row["expect"];
    let wanted = |key: &str| expect[key].as_str();
    let error = wanted("error");
    if outcome.error != error {
        return Err(format!("wanted error {error:?}, got {outcome:?}"));
    }
    for (key, got) in [
        ("listener", &outcome.listener),
        ("filterChain", &outcome.chain),
        ("routeConfig", &outcome.route_config),
        ("virtualHost", &outcome.virtual_host),
        ("cluster", &outcome.cluster),
    ] {
        if let Some(want) = wanted(key)
            && want != got
        {
            return Err(format!("wanted {key} {want}, got {outcome:?}"));
        }
    }
    Ok(())
}

#[test]
fn sidecar_route_tables() {
    let Some(file) = testdata("istio/cases/simulation/sidecar-routes.yaml") else {
        return;
    };
    let data = yaml::read(&std::fs::read_to_string(file).unwrap()).remove(0);
    let mut failed = Vec::new();
    let mut rows = 0;
    // The other variant is written in Gateway API objects, which are a later issue's.
    let cases = data["cases"].as_array().unwrap();
    for case in cases
        .iter()
        .filter(|case| case["variant"] == "virtualservice")
    {
        rows += 1;
        let mut mesh = Mesh::with_domains(MeshConfig::default(), "", "cluster.local");
        mesh.apply(data["services"].as_str().unwrap());
        mesh.apply(case["config"].as_str().unwrap());
        let snapshot = mesh.snapshot();
        let view = view(&json!({"namespace": case["proxyNamespace"]}), &snapshot);
        let name = case["routeConfig"].as_str().unwrap();
        let names = BTreeSet::from([name.to_owned()]);
        let tables = decode(&generate(
            &snapshot,
            &view,
            ResourceType::Route,
            Some(&names),
        ));
        let got = routes::clusters_by_domain(tables.first());
        for (domain, want) in case["expectVirtualHostClusters"].as_object().unwrap() {
            let want: Option<BTreeSet<String>> = want.as_array().map(|list| {
                list.iter()
                    .map(|value| value.as_str().unwrap().to_owned())
                    .collect()
            });
            if got.get(domain) != want.as_ref() {
                failed.push(format!("{}: {domain} {:?}", case["name"], got.get(domain)));
            }
        }
    }
    assert!(rows > 5 && failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn inbound_clusters() {
    use envoy_api::cluster::Cluster;
    let Some(file) = testdata("istio/cases/simulation/inbound-clusters.yaml") else {
        return;
    };
    let data = yaml::read(&std::fs::read_to_string(file).unwrap()).remove(0);
    let services = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
        metadata: {name: NAME}\nspec:\n  hosts: [NAME.default.svc.cluster.local]\n  \
        addresses: [ADDRESS]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  ports:\n  \
        - {name: default, number: 80, protocol: HTTP, targetPort: 8080}\n  \
        - {name: other, number: 81, protocol: HTTP, targetPort: 8081}\n  \
        endpoints: [{address: 1.2.3.4}]\n";
    for case in data["cases"].as_array().unwrap() {
        let config = match &case["meshConfig"] {
            Value::Null => MeshConfig::default(),
            value => MeshConfig::parse("mesh", &value.to_string()).unwrap(),
        };
        let mut mesh = Mesh::new(config, "cluster.local");
        for (name, address) in [("backend", "1.1.1.1"), ("backend-alt", "1.1.1.2")] {
            if case["services"].is_array() {
                mesh.apply(&services.replace("NAME", name).replace("ADDRESS", address));
            }
        }
        if case["sidecar"].is_object() {
            let object = json!({"apiVersion": "networking.istio.io/v1", "kind": "Sidecar",
                "metadata": {"name": "sidecar"}, "spec": case["sidecar"]});
            mesh.apply(&object.to_string());
        }
        let snapshot = mesh.snapshot();
        let view = load::view(&json!({"ip": "1.2.3.4"}), &snapshot);
        let clusters: Vec<Cluster> =
            decode(&generate(&snapshot, &view, ResourceType::Cluster, None));
        let got: BTreeMap<String, Vec<String>> = clusters
            .iter()
            .filter(|cluster| cluster.name.starts_with("inbound"))
            .map(|cluster| (cluster.name.clone(), routes::static_addresses(cluster)))
            .collect();
        let want: BTreeMap<String, Vec<String>> = case["expectClusters"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, list)| (name.clone(), strings(list)))
            .collect();
        assert_eq!(got, want, "{}", case["name"]);
        for (name, hosts) in case["expectTelemetryServices"]
            .as_object()
            .into_iter()
            .flatten()
        {
            let cluster = clusters
                .iter()
                .find(|cluster| cluster.name == *name)
                .unwrap();
            assert_eq!(
                routes::service_hosts(cluster),
                strings(hosts),
                "{}",
                case["name"]
            );
        }
    }
}

fn strings(list: &Value) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}
