//! Tables of Istio's unit tests that are pure data.

use std::net::IpAddr;

use mesh_api::decode::from_json;
use mesh_api::kinds::virtual_service::HttpMatchRequest;
use pilot::model::{Registry, Resolution, Service, ServiceKey};
use pilot::snapshot::merge_delegates;
use pilot::translate::domains::{self, ClientNames};
use serde_json::Value;

use super::load::testdata;

fn table(file: &str, test: &str) -> Option<Vec<Value>> {
    let path = testdata(&format!("istio/cases/unit/{file}.json"))?;
    let all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let tables = all["tables"].as_array().unwrap();
    let found = tables.iter().find(|table| table["test"] == test).expect("the table exists");
    Some(found["cases"].as_array().unwrap().clone())
}

#[test]
fn virtual_host_domains() {
    let Some(rows) = table("vhost-domains", "TestGenerateVirtualHostDomains") else { return };
    for row in rows {
        let written = &row["service"];
        // Several clusters and aliases inside the service are modelled elsewhere.
        if written["Attributes"]["Aliases"].is_array() || row["enableDualStack"] == true {
            continue;
        }
        let host = written["Hostname"].as_str().unwrap();
        let headless = written["Resolution"] == "Passthrough";
        let resolution =
            if headless { Resolution::Passthrough } else { Resolution::ClientSide };
        let registry = if headless { Registry::Kubernetes } else { Registry::External };
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
        let want: Vec<&str> =
            row["want"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(domains::of_service(&service, &client), want, "{}", row["name"]);
    }
}

#[test]
fn delegate_conflicts() {
    let Some(rows) = table("virtualservice-merge", "TestHasConflict") else { return };
    for row in rows {
        let read = |key: &str| from_json::<HttpMatchRequest>(row[key].clone()).unwrap();
        let got = merge_delegates::conflicts(&read("root"), &read("leaf"));
        assert_eq!(got, row["expected"] == true, "{}", row["name"]);
    }
}
