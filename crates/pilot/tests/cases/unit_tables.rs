//! Tables of Istio's unit tests that are pure data.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::decode::from_json;
use mesh_api::kinds::sidecar::{IstioEgressListener, Sidecar};
use mesh_api::kinds::virtual_service::HttpMatchRequest;
use mesh_api::mesh_config::MeshConfig;
use pilot::Event;
use pilot::model::{Port, Protocol, Registry, Resolution, Service, ServiceKey, TargetPort};
use pilot::snapshot::merge_delegates;
use pilot::translate::domains::{self, ClientNames};
use serde_json::Value;

use super::load::{Mesh, testdata, view};

fn table(file: &str, test: &str) -> Option<Vec<Value>> {
    let path = testdata(&format!("istio/cases/unit/{file}.json"))?;
    let all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let tables = all["tables"].as_array().unwrap();
    let found = tables
        .iter()
        .find(|table| table["test"] == test)
        .expect("the table exists");
    Some(found["cases"].as_array().unwrap().clone())
}

#[test]
fn virtual_host_domains() {
    let Some(rows) = table("vhost-domains", "TestGenerateVirtualHostDomains") else {
        return;
    };
    for row in rows {
        let written = &row["service"];
        // Several clusters and aliases inside the service are modelled elsewhere.
        if written["Attributes"]["Aliases"].is_array() || row["enableDualStack"] == true {
            continue;
        }
        let host = written["Hostname"].as_str().unwrap();
        let headless = written["Resolution"] == "Passthrough";
        let resolution = if headless {
            Resolution::Passthrough
        } else {
            Resolution::ClientSide
        };
        let registry = if headless {
            Registry::Kubernetes
        } else {
            Registry::External
        };
        let mut service = Service::new(ServiceKey::new(host, "ns"), registry, resolution);
        let vips = written["ClusterVIPs"]["Addresses"]["cluster-1"].as_array();
        service.addresses = vips
            .into_iter()
            .flatten()
            .map(|vip| vip.as_str().unwrap().parse::<IpAddr>().unwrap().into())
            .collect();
        let node = &row["node"];
        let ips: Vec<IpAddr> = node["IPAddresses"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|ip| ip.as_str().unwrap().parse().unwrap())
            .collect();
        let client = ClientNames {
            dns_domain: node["DNSDomain"].as_str().unwrap(),
            ipv4: ips.is_empty() || ips.iter().any(IpAddr::is_ipv4),
            ipv6: ips.iter().any(IpAddr::is_ipv6),
        };
        let want: Vec<&str> = row["want"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert_eq!(
            domains::of_service(&service, &client),
            want,
            "{}",
            row["name"]
        );
    }
}

#[test]
fn delegate_conflicts() {
    let Some(rows) = table("virtualservice-merge", "TestHasConflict") else {
        return;
    };
    for row in rows {
        let read = |key: &str| from_json::<HttpMatchRequest>(row[key].clone()).unwrap();
        let got = merge_delegates::conflicts(&read("root"), &read("leaf"));
        assert_eq!(got, row["expected"] == true, "{}", row["name"]);
    }
}

#[test]
fn sidecar_imports() {
    let Some(rows) = table("sidecar-scope", "TestIstioEgressListenerWrapper") else {
        return;
    };
    for row in rows {
        let namespace = row["namespace"].as_str().unwrap();
        let mut mesh = Mesh::new(MeshConfig::default(), "cluster.local");
        let mut services: BTreeMap<ServiceKey, Service> = BTreeMap::new();
        for written in row["services"].as_array().unwrap() {
            let key = service_key(written);
            let new = || Service::new(key.clone(), Registry::External, Resolution::ClientSide);
            let service = services.entry(key.clone()).or_insert_with(new);
            let port = &written["Ports"][0];
            let number = port["Port"].as_u64().unwrap() as u16;
            service.ports.push(Port {
                name: port["Name"].as_str().unwrap().to_owned(),
                number,
                protocol: Protocol::Http,
                target: TargetPort::Same,
            });
        }
        for service in services.into_values() {
            mesh.state.apply(Event::Service(Arc::new(service)));
        }
        let mut hosts = Vec::new();
        for (from, lists) in row["listenerHosts"].as_object().unwrap() {
            for host in lists["allHosts"].as_array().into_iter().flatten() {
                hosts.push(format!("{from}/{}", host.as_str().unwrap()));
            }
            for host in lists["excludedHosts"].as_array().into_iter().flatten() {
                let from = if from == "*" { "" } else { from };
                hosts.push(format!("~{from}/{}", host.as_str().unwrap()));
            }
        }
        // Applied as a source would hand it over: the table has lists no parser would take.
        let sidecar = Sidecar {
            egress: vec![IstioEgressListener {
                hosts,
                ..Default::default()
            }],
            ..Default::default()
        };
        let scope = imported(&mut mesh, namespace, sidecar);
        let want: BTreeSet<ServiceKey> = row["expected"]
            .as_array()
            .into_iter()
            .flatten()
            .map(service_key)
            .collect();
        assert_eq!(scope, want, "{}", row["name"]);
    }
}

fn service_key(written: &Value) -> ServiceKey {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    ServiceKey::new(
        text(&written["Hostname"]),
        text(&written["Attributes"]["Namespace"]),
    )
}

fn imported(mesh: &mut Mesh, namespace: &str, sidecar: Sidecar) -> BTreeSet<ServiceKey> {
    let meta = mesh_api::Metadata::new(mesh_api::Kind::Sidecar, namespace, "default");
    mesh.state
        .apply(Event::Object(Arc::new(mesh_api::Object::new(
            meta,
            sidecar.into(),
        ))));
    let snapshot = mesh.snapshot();
    let view = view(&serde_json::json!({"namespace": namespace}), &snapshot);
    let scope = snapshot.scope(&view);
    assert!(
        scope.sidecar.is_some(),
        "the Sidecar is in force: {:?}",
        snapshot.statuses()
    );
    scope
        .services
        .iter()
        .map(|entry| entry.service.key.clone())
        .collect()
}
