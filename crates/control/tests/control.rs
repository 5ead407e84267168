//! A whole control plane over its real sockets: certificates, discovery, apply, wait, restart.

#[path = "control/harness.rs"]
mod harness;

use envoy_api::ResourceType;
use envoy_api::endpoint::ClusterLoadAssignment;
use envoy_api::route::RouteConfiguration;
use harness::{Mesh, PRODUCTPAGE_TOKEN, Sidecar, node, pod, registry};
use serde_json::{Value, json};
use xds::grpc::Code;
use xds::grpc::client::Mode;

const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";

fn token(number: u8) -> String {
    format!("{PRODUCTPAGE_TOKEN}-{number}")
}

fn rule(name: &str, header: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
         metadata: {{name: {name}}}\nspec:\n  hosts: [reviews]\n  http:\n\
         \x20 - headers: {{request: {{set: {{x-rule: {header}}}}}}}\n\
         \x20   route:\n    - destination: {{host: reviews}}\n"
    )
}

async fn sidecar(mesh: &Mesh, mode: Mode) -> Sidecar {
    let (identity, id) = mesh.certificate(&token(1)).await.expect("a certificate");
    assert_eq!(
        id.to_string(),
        "spiffe://cluster.local/ns/default/sa/bookinfo-productpage"
    );
    let target = mesh.target(None, Some(&identity));
    let sidecar = Sidecar::connect(target, node("productpage", "default"), mode);
    sidecar.subscribe_to_all(&["9080"]);
    sidecar
}

fn route_text(sidecar: &Sidecar) -> String {
    match sidecar.has(ResourceType::Route, "9080") {
        true => format!(
            "{:?}",
            sidecar.message::<RouteConfiguration>(ResourceType::Route, "9080")
        ),
        false => String::new(),
    }
}

fn endpoints(sidecar: &Sidecar) -> usize {
    if !sidecar.has(ResourceType::Endpoint, REVIEWS) {
        return 0;
    }
    let set: ClusterLoadAssignment = sidecar.message(ResourceType::Endpoint, REVIEWS);
    set.endpoints
        .iter()
        .map(|locality| locality.lb_endpoints.len())
        .sum()
}

async fn wait(mesh: &Mesh, generation: &Value) -> Value {
    let (status, answer) = mesh
        .get(&format!("/v1/wait?generation={generation}&timeout=20s"))
        .await;
    assert_eq!(status, 200, "{answer}");
    answer
}

/// Keeps accepting while something else is awaited.
async fn while_accepting<T>(sidecar: &mut Sidecar, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = work.as_mut() => return done,
            update = sidecar.update() => sidecar.accept(&update),
        }
    }
}

#[tokio::test]
async fn a_change_reaches_the_proxy_and_is_waited_for() {
    for mode in [Mode::Delta, Mode::StateOfTheWorld] {
        let mesh = Mesh::start().await;
        let mut sidecar = sidecar(&mesh, mode).await;
        sidecar
            .until(|s| endpoints(s) == 2 && !route_text(s).is_empty())
            .await;
        sidecar
            .until(|s| s.has(ResourceType::Listener, "virtualOutbound"))
            .await;

        let (status, answer) = mesh.apply(&rule("reviews", "one")).await;
        assert_eq!(
            (status, &answer["results"][0]["action"]),
            (200, &json!("created")),
            "{answer}"
        );
        assert_eq!(answer["errors"], json!([]));
        let waited = while_accepting(&mut sidecar, wait(&mesh, &answer["generation"])).await;
        assert_eq!(waited["done"], true, "{waited}");
        assert_eq!(
            waited["proxies"][0]["id"], "productpage-1.default",
            "{waited}"
        );
        assert!(
            route_text(&sidecar).contains("x-rule"),
            "the route has changed"
        );

        let (_, again) = mesh.apply(&rule("reviews", "one")).await;
        assert_eq!(again["results"][0]["action"], "unchanged", "{again}");
        assert_eq!(again["generation"], answer["generation"], "nothing changed");

        let mut file = registry();
        file.pods.push(pod("reviews", 3, "x"));
        mesh.set_registry(&file);
        sidecar.until(|s| endpoints(s) == 3).await;
        mesh.control.stop().await.expect("stops");
    }
}

#[tokio::test]
async fn nothing_that_was_acknowledged_is_lost() {
    let mesh = Mesh::start().await;
    let mut sidecar = sidecar(&mesh, Mode::Delta).await;
    sidecar.until(|s| !route_text(s).is_empty()).await;
    let (_, answer) = mesh.apply(&rule("reviews", "kept")).await;
    assert_eq!(answer["errors"], json!([]), "{answer}");
    sidecar.until(|s| route_text(s).contains("kept")).await;
    let before = sidecar.held.clone();
    let root = std::fs::read(mesh.options.state_dir.join("root-cert.pem")).expect("published");

    let mesh = mesh.restart().await;
    let (_, list) = mesh.get("/v1/objects?kind=vs&namespace=default").await;
    assert_eq!(list["items"][0]["metadata"]["name"], "reviews", "{list}");
    let again = std::fs::read(mesh.options.state_dir.join("root-cert.pem")).expect("published");
    assert_eq!(root, again, "the same root");

    // The client returns with what it holds, and only what differs may come.
    let (_, answer) = while_accepting(&mut sidecar, mesh.apply(&rule("reviews", "new"))).await;
    let waited = while_accepting(&mut sidecar, wait(&mesh, &answer["generation"])).await;
    assert_eq!(waited["done"], true, "{waited}");
    sidecar.until(|s| route_text(s).contains("new")).await;
    let same = |kind: ResourceType| {
        let of = |held: &std::collections::BTreeMap<_, _>| -> Vec<_> {
            held.iter()
                .filter(|((k, _), _)| *k == kind)
                .map(|(key, _)| key.clone())
                .collect()
        };
        of(&before) == of(&sidecar.held)
    };
    assert!(same(ResourceType::Cluster) && same(ResourceType::Listener));

    let body =
        json!({"objects": [{"kind": "VirtualService", "namespace": "default", "name": "reviews"}]});
    let (status, answer) = while_accepting(&mut sidecar, mesh.post("/v1/delete", body)).await;
    assert_eq!(
        (status, &answer["results"][0]["action"]),
        (200, &json!("deleted")),
        "{answer}"
    );
    sidecar.until(|s| !route_text(s).contains("x-rule")).await;
    mesh.control.stop().await.expect("stops");
}

#[tokio::test]
async fn strangers_are_refused() {
    let mesh = Mesh::start().await;
    let error = mesh
        .certificate("wrong")
        .await
        .expect_err("an unknown token");
    assert_eq!(
        (error.code, &*error.message),
        (Code::Unauthenticated, "request authenticate failure")
    );
    for (token, app, namespace, want, why) in [
        (
            Some("wrong".to_owned()),
            "productpage",
            "default",
            "UNAUTHENTICATED",
            "a wrong token",
        ),
        (None, "productpage", "default", "UNAUTHENTICATED", "nothing"),
        (
            Some(token(1)),
            "productpage",
            "other",
            "PERMISSION_DENIED",
            "another namespace",
        ),
        (
            Some(token(1)),
            "reviews",
            "default",
            "PERMISSION_DENIED",
            "another account",
        ),
    ] {
        let target = mesh.target(token.as_deref(), None);
        let mut sidecar = Sidecar::connect(target, node(app, namespace), Mode::Delta);
        sidecar.subscribe_to_all(&[]);
        let reason = sidecar.refusal().await;
        assert!(reason.starts_with(want), "{why}: {reason}");
    }
    let target = mesh.target(Some(&token(1)), None);
    let mut unnamed = node("productpage", "default");
    unnamed.id.clear();
    let mut sidecar = Sidecar::connect(target, unnamed, Mode::Delta);
    sidecar.subscribe_to_all(&[]);
    let reason = sidecar.refusal().await;
    assert_eq!(reason, "INVALID_ARGUMENT: missing node information");
    mesh.control.stop().await.expect("stops");
}

#[tokio::test]
async fn a_refusal_by_a_proxy_is_in_the_status() {
    let mesh = Mesh::start().await;
    let mut sidecar = sidecar(&mesh, Mode::Delta).await;
    sidecar.until(|s| !route_text(s).is_empty()).await;
    let (_, idle) = mesh.get("/v1/proxies").await;
    let waited = while_accepting(&mut sidecar, wait(&mesh, &idle["generation"])).await;
    assert_eq!(waited["done"], true, "{waited}");

    let (_, answer) = mesh.apply(&rule("reviews", "bad")).await;
    let update = sidecar.update().await;
    assert_eq!(update.kind, ResourceType::Route);
    sidecar
        .handle
        .reject(&update, "route 9080: I do not like it".to_owned());
    let waited = wait(&mesh, &answer["generation"]).await;
    assert_eq!(waited["done"], false, "{waited}");
    assert_eq!(
        waited["waiting"],
        json!(["productpage-1.default"]),
        "{waited}"
    );
    assert_eq!(
        waited["rejected"][0]["message"], "route 9080: I do not like it",
        "{waited}"
    );
    let (_, list) = mesh
        .get("/v1/objects?kind=VirtualService&name=reviews")
        .await;
    let conditions = list["items"][0]["status"]["conditions"]
        .as_array()
        .expect("conditions");
    let programmed = conditions
        .iter()
        .find(|c| c["type"] == "Programmed")
        .expect("there");
    assert_eq!(
        (&programmed["status"], &programmed["reason"]),
        (&json!("False"), &json!("Rejected"))
    );
    let (_, metrics) = mesh.get("/metrics").await;
    let metrics = metrics.as_str().expect("text");
    let line = "pilot_total_xds_rejects{type=\"type.googleapis.com/\
                envoy.config.route.v3.RouteConfiguration\"} 1";
    assert!(metrics.contains(line), "{metrics}");

    let (_, answer) = mesh.apply(&rule("reviews", "good")).await;
    let waited = while_accepting(&mut sidecar, wait(&mesh, &answer["generation"])).await;
    assert_eq!(waited["done"], true, "withdrawn: {waited}");
    mesh.control.stop().await.expect("stops");
}

#[tokio::test]
async fn bad_input_changes_nothing_and_is_explained() {
    let mesh = Mesh::start().await;
    let two = format!(
        "{}---\n{}",
        rule("good", "one"),
        rule("bad", "two").replace("http:", "htpp:")
    );
    let (status, answer) = mesh.apply(&two).await;
    assert_eq!(status, 422, "{answer}");
    assert_eq!(answer["errors"][0]["line"], json!(16), "{answer}");
    let (_, list) = mesh.get("/v1/objects").await;
    let kinds: Vec<&Value> = list["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|i| &i["kind"])
        .collect();
    assert_eq!(kinds, ["Namespace"], "nothing of it was applied");

    let pod = "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: 80}]}\n";
    let (status, answer) = mesh.apply(pod).await;
    assert_eq!(status, 422, "{answer}");
    let message = answer["errors"][0]["message"].as_str().expect("a message");
    assert!(message.contains("platform"), "{message}");

    let (status, answer) = mesh
        .apply(&format!("{}---\n{}", rule("a", "one"), rule("a", "two")))
        .await;
    assert_eq!(status, 422, "the same object twice: {answer}");

    mesh.apply(&rule("first", "one")).await;
    let files = json!([{"name": "second.yaml", "text": rule("second", "two")}]);
    let body = json!({"files": files, "namespace": "default", "dryRun": true});
    let (status, answer) = mesh.post("/v1/apply", body).await;
    assert_eq!(
        (status, &answer["results"][0]["action"]),
        (200, &json!("created")),
        "{answer}"
    );
    let warnings = answer["warnings"].to_string();
    assert!(
        warnings.contains("first"),
        "the clash names the other: {warnings}"
    );
    let (_, list) = mesh.get("/v1/objects?kind=vs").await;
    assert_eq!(
        list["items"].as_array().map(Vec::len),
        Some(1),
        "a dry run keeps nothing: {list}"
    );

    for (path, want) in [
        ("/v1/objects?kind=nonsense", 400),
        ("/v1/wait?generation=x", 400),
        ("/v1/wait?generation=0&timeout=1y", 400),
        ("/debug/nothing", 404),
        ("/debug/list", 200),
        ("/debug/syncz", 200),
        ("/debug/configz", 200),
        ("/debug/registryz", 200),
        ("/debug/endpointz", 200),
        ("/debug/push_status", 200),
        ("/debug/connections", 200),
        ("/debug/mesh", 200),
        ("/ready", 200),
        ("/version", 200),
    ] {
        let (status, answer) = mesh.get(path).await;
        assert_eq!(status, want, "{path}: {answer}");
    }
    mesh.control.stop().await.expect("stops");
}
