//! Who gets what: secrets by namespace and role, views by identity, names of headless services,
//! and what authors are told about their objects.

use std::collections::BTreeSet;

use envoy_api::ResourceType;
use envoy_api::istio::NameTable;
use envoy_api::tls::{Secret, secret};
use mesh_api::mesh_config::MeshConfig;
use pilot::snapshot::statuses::Reason;
use pilot::{NodeError, ProxyView, generate};
use pki::{SpiffeId, TrustDomain};
use serde_json::json;

use super::envoy::decode;
use super::load::{Mesh, node, view};

const SECRETS: &str = "apiVersion: v1
kind: Secret
metadata: {name: site, namespace: istio-system}
type: kubernetes.io/tls
data: {tls.crt: Y2VydA==, tls.key: a2V5, ca.crt: Y2E=}
---
apiVersion: v1
kind: Secret
metadata: {name: other, namespace: default}
data: {cert: Y2VydA==, key: a2V5}
";

#[test]
fn secrets_are_for_gateways_of_their_namespace() {
    let mut mesh = Mesh::new(MeshConfig::default(), "cluster.local");
    mesh.apply(SECRETS);
    let snapshot = mesh.snapshot();
    let gateway = json!({"type": "router", "namespace": "istio-system"});
    let sidecar = json!({"namespace": "default"});
    for (proxy, name, want, why) in [
        (&gateway, "kubernetes://site", true, "its own namespace"),
        (
            &gateway,
            "kubernetes://site-cacert",
            true,
            "the roots stand in the same secret",
        ),
        (
            &gateway,
            "kubernetes://default/other",
            false,
            "another namespace",
        ),
        (&gateway, "kubernetes://missing", false, "there is none"),
        (&gateway, "invalid://site", false, "an unknown sort"),
        (
            &sidecar,
            "kubernetes://other",
            false,
            "a sidecar never reads secrets",
        ),
    ] {
        let names = BTreeSet::from([name.to_owned()]);
        let view = view(proxy, &snapshot);
        let got = generate(&snapshot, &view, ResourceType::Secret, Some(&names));
        assert_eq!(!got.is_empty(), want, "{why}");
        for secret in decode::<Secret>(&got) {
            assert_eq!(secret.name, name);
            let roots = matches!(secret.r#type, Some(secret::Type::ValidationContext(_)));
            assert_eq!(roots, name.ends_with("-cacert"), "{why}");
        }
    }
}

#[test]
fn a_node_speaks_only_for_its_identity() {
    let snapshot = Mesh::new(MeshConfig::default(), "cluster.local").snapshot();
    let domain: TrustDomain = "cluster.local".parse().unwrap();
    let id = SpiffeId::new(domain, "default", "reviews").unwrap();
    for (namespace, account, want, why) in [
        ("default", "reviews", true, "its own"),
        ("default", "ratings", false, "another account"),
        ("other", "reviews", false, "another namespace"),
    ] {
        let claimed = json!({"namespace": namespace, "metadata": {"SERVICE_ACCOUNT": account}});
        let got = ProxyView::from_node(&node(&claimed), Some(&id), &snapshot);
        assert_eq!(got.is_ok(), want, "{why}");
        if !want {
            assert!(matches!(got, Err(NodeError::Identity { .. })), "{why}");
        }
    }
    let mut bad = node(&json!({}));
    bad.id = "ztunnel~1.1.1.1~a.b~c".to_owned();
    let got = ProxyView::from_node(&bad, None, &snapshot);
    assert_eq!(got, Err(NodeError::Type("ztunnel".to_owned())));
}

#[test]
fn names_of_headless_services_are_their_pods() {
    let mut mesh = Mesh::new(MeshConfig::default(), "cluster.local");
    mesh.apply(
        "apiVersion: v1
kind: Service
metadata: {name: db, namespace: default}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: tcp, port: 9000}]}
---
kind: Workload
metadata: {name: db-0, labels: {app: db}}
address: 10.0.0.1
hostname: db-0
subdomain: db
---
kind: Workload
metadata: {name: db-1, labels: {app: db}}
address: 10.0.0.2
",
    );
    let snapshot = mesh.snapshot();
    let view = view(&json!({}), &snapshot);
    let got = generate(&snapshot, &view, ResourceType::NameTable, None);
    let table = decode::<NameTable>(&got).remove(0).table;
    let all = &table["db.default.svc.cluster.local"];
    assert_eq!(all.ips, ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(
        (all.shortname.as_str(), all.namespace.as_str()),
        ("db", "default")
    );
    assert_eq!(table["db-0.db.default.svc.cluster.local"].ips, ["10.0.0.1"]);
    assert_eq!(
        table.len(),
        2,
        "a pod without a host name has no name of its own"
    );
}

#[test]
fn authors_are_told() {
    let mut mesh = Mesh::new(MeshConfig::default(), "cluster.local");
    mesh.apply(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: first}
spec: {hosts: [a], http: [{route: [{destination: {host: nothing}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: second}
spec: {hosts: [a], gateways: [mesh, none], http: [{route: [{destination: {host: nothing}}]}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g1}
spec: {selector: {a: b}, servers: [{port: {number: 80, name: h, protocol: HTTP}, hosts: ['*']}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g2}
spec: {selector: {a: b}, servers: [{port: {number: 80, name: t, protocol: TCP}, hosts: ['*']}]}
",
    );
    let snapshot = mesh.snapshot();
    let told: Vec<(String, Reason)> = snapshot
        .statuses()
        .problems()
        .map(|(key, problem)| (key.to_string(), problem.reason))
        .collect();
    for (key, reason) in [
        ("VirtualService/default/first", Reason::MissingReference),
        ("VirtualService/default/second", Reason::MissingReference),
        ("VirtualService/default/second", Reason::Conflict),
        ("Gateway/default/g2", Reason::Conflict),
    ] {
        assert!(
            told.contains(&(key.to_owned(), reason)),
            "{key} {reason:?} in {told:?}"
        );
    }
    assert!(
        !told.contains(&("Gateway/default/g1".to_owned(), Reason::Conflict)),
        "the older"
    );
}
