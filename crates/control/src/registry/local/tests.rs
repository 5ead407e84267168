//! Registry files and the events that lead from one to the next.

use super::*;
use serde_json::json;

fn pod(name: &str, ip: &str, ready: bool) -> serde_json::Value {
    json!({
        "namespace": "default", "name": name, "uid": name, "ip": ip,
        "labels": {"app": "reviews", "security.istio.io/tlsMode": "istio"},
        "serviceAccount": "reviews", "ready": ready, "workloadName": "reviews-v1",
        "ports": [{"name": "http", "containerPort": 9080}],
        "tokenSha256": "00", "createdAt": "2026-01-01T00:00:00Z",
    })
}

fn service(spec: serde_json::Value) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "reviews", "namespace": "default"}, "spec": spec,
    })
}

fn read(services: serde_json::Value, pods: serde_json::Value) -> (Contents, Vec<String>) {
    let namespaces = json!([{"name": "default", "labels": {"a": "b"}}]);
    let text = json!({"services": services, "pods": pods, "namespaces": namespaces}).to_string();
    let file = RegistryFile::parse(&text).expect("a good file");
    let trust_domain = pki::TrustDomain::new("td").expect("a good domain");
    convert::contents(&file, "cluster.local", &trust_domain)
}

fn addresses(contents: &Contents) -> Vec<String> {
    let all = contents.endpoints.values().flatten();
    all.map(|e| format!("{}:{}={}", e.address, e.port, e.service_port))
        .collect()
}

#[test]
fn endpoints_are_selected_ready_pods() {
    let pods = json!([
        pod("a", "10.0.0.1", true),
        pod("b", "10.0.0.2", false),
        pod("c", "", true),
        pod("d", "10.0.0.4", true),
    ]);
    let mut pods = pods;
    pods[3]["terminating"] = json!(true);
    let selector = json!({"app": "reviews"});
    let port =
        |target: serde_json::Value| json!([{"name": "http", "port": 80, "targetPort": target}]);
    for (spec, want, why) in [
        (
            json!({"selector": selector, "clusterIP": "10.1.0.1", "ports": port(json!("http"))}),
            vec!["10.0.0.1:9080=http"],
            "a target by name; the others are not ready, without address, terminating",
        ),
        (
            json!({"selector": selector, "clusterIP": "None", "ports": port(json!(81)),
                   "publishNotReadyAddresses": true}),
            vec!["10.0.0.1:81=http", "10.0.0.2:81=http"],
            "not ready, but published",
        ),
        (
            json!({"selector": selector, "ports": [{"port": 80}]}),
            vec!["10.0.0.1:80="],
            "no target: the same port",
        ),
        (
            json!({"selector": {"app": "other"}, "ports": port(json!(81))}),
            vec![],
            "nothing is selected",
        ),
        (
            json!({"type": "ExternalName", "externalName": "example.com", "selector": selector}),
            vec![],
            "another name has no endpoints",
        ),
        (
            json!({"selector": selector, "ports": port(json!("nothing"))}),
            vec![],
            "an unknown target name",
        ),
    ] {
        let (contents, problems) = read(json!([service(spec)]), pods.clone());
        assert_eq!(addresses(&contents), want, "{why}");
        assert_eq!(problems, Vec::<String>::new(), "{why}");
        assert_eq!(contents.services.len(), 1, "{why}");
    }
    let (contents, _) = read(json!([]), pods);
    let workloads: Vec<_> = contents
        .workloads
        .keys()
        .map(|key| key.name.as_str())
        .collect();
    assert_eq!(
        workloads,
        ["a", "b", "d"],
        "a workload without address is not one yet"
    );
}

#[test]
fn bad_entries_are_left_out_alone() {
    let good = service(json!({"clusterIP": "10.1.0.1", "ports": [{"port": 80}]}));
    let bad = service(json!({"clusterIP": "x", "ports": [{"port": 70000}]}));
    let unknown = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "x"}, "y": 1});
    let (contents, problems) = read(json!([bad, unknown, good]), json!([pod("a", "x", true)]));
    assert_eq!(contents.services.len(), 1);
    assert!(contents.workloads.is_empty());
    assert!(problems.len() >= 3, "{problems:?}");
    assert!(
        RegistryFile::parse(r#"{"podz": []}"#).is_err(),
        "an unknown field"
    );
}

#[test]
fn only_differences_become_events() {
    let spec =
        json!({"selector": {"app": "reviews"}, "clusterIP": "10.1.0.1", "ports": [{"port": 80}]});
    let (old, _) = read(json!([service(spec)]), json!([pod("a", "10.0.0.1", true)]));
    let names = |events: Vec<Event>| -> Vec<&'static str> {
        events
            .iter()
            .map(|event| match event {
                Event::Object(_) => "object",
                Event::ObjectRemoved(_) => "-object",
                Event::Service(_) => "service",
                Event::ServiceRemoved(_) => "-service",
                Event::Workload(_) => "workload",
                Event::WorkloadRemoved(_) => "-workload",
                Event::Endpoints { endpoints, .. } if endpoints.is_empty() => "-endpoints",
                Event::Endpoints { .. } => "endpoints",
                Event::MeshConfig(_) => "mesh",
            })
            .collect()
    };
    let nothing = Contents::default();
    assert_eq!(
        names(differences(&nothing, &old)),
        ["object", "service", "workload", "endpoints"]
    );
    assert!(differences(&old, &old).is_empty());
    let gone = ["-endpoints", "-workload", "-service", "-object"];
    assert_eq!(names(differences(&old, &nothing)), gone);
}
