//! Certificates and discovery through the agent's sockets, from a small control plane over TLS.

#![allow(clippy::unwrap_used)]

#[path = "toy/control.rs"]
mod control;

use std::sync::Arc;
use std::time::Duration;

use agent::control_plane::ControlPlane;
use agent::identity::{self, IdentityWatch, Renewal};
use agent::options::Server;
use agent::sds;
use agent::xds_relay::Relay;
use control::{NAME, Toy, resource};
use daemon::drain::Drain;
use daemon::metrics::Registry;
use daemon::tasks::Tasks;
use envoy_api::ResourceType;
use envoy_api::cluster::Cluster;
use envoy_api::core::{Node, data_source::Specifier};
use envoy_api::istio::NameTable;
use envoy_api::tls::{Secret, secret};
use pki::rotation::Schedule;
use prost::Message;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use xds::grpc::client::{Event, Handle, Update, spawn};
use xds::grpc::transport::Target;
use xds::{Interest, Mode, Service};

const LIMIT: Duration = Duration::from_secs(20);

fn control_plane(toy: &Toy) -> ControlPlane {
    ControlPlane {
        server: Server {
            address: toy.address.to_string(),
            name: NAME.to_string(),
        },
        root_certificate: toy.folder.join("root-cert.pem"),
        token: toy.folder.join("token"),
        cluster_id: "Kubernetes".to_string(),
    }
}

fn renewal(toy: &Toy, ttl: u64) -> Renewal {
    Renewal {
        authority: control_plane(toy),
        id: toy.id.clone(),
        ttl: Duration::from_secs(ttl),
        schedule: Schedule::default(),
    }
}

fn client(path: &std::path::Path, mode: Mode, service: Service) -> (Handle, mpsc::Receiver<Event>) {
    let node = Node {
        id: "sidecar~1.1.1.1~a.default~x".into(),
        ..Default::default()
    };
    spawn(
        Target::unix(path),
        xds::client::Client::new(node, mode, service),
    )
}

async fn update(events: &mut mpsc::Receiver<Event>) -> Update {
    loop {
        let event = tokio::time::timeout(LIMIT, events.recv())
            .await
            .expect("an event in time");
        match event.expect("the stream goes on") {
            Event::Update(update) => return update,
            Event::Connected => {}
            Event::Disconnected { reason } => panic!("disconnected: {reason}"),
        }
    }
}

async fn issued(identity: &mut IdentityWatch) {
    let wait = identity.wait_for(Option::is_some);
    tokio::time::timeout(LIMIT, wait)
        .await
        .expect("a certificate in time")
        .unwrap();
}

#[tokio::test]
async fn secrets_are_served_and_renewed() {
    let folder = tempfile::tempdir().unwrap();
    let toy = Toy::start(folder.path(), Vec::new()).await;
    let (drain, services) = Drain::new();
    let tasks = Tasks::new();
    let (publisher, identity) = identity::channel();
    let path = folder.path().join("sds");
    let listener = UnixListener::bind(&path).unwrap();
    tasks.spawn("sds", sds::serve(listener, identity, services.clone()));
    let mut serials = Vec::new();
    let mut clients = Vec::new();
    for mode in [Mode::Delta, Mode::StateOfTheWorld] {
        let (handle, events) = client(&path, mode, Service::Secrets);
        let names = ["default".to_string(), "ROOTCA".to_string()];
        handle.subscribe(ResourceType::Secret, Interest::Names(names.into()));
        clients.push((mode, handle, events));
    }
    // A life of one second is due at once: the clients must see several certificates.
    tasks.spawn("renewal", renewal(&toy, 1).run(publisher, services));
    for (mode, handle, events) in &mut clients {
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < 3 {
            let update = update(events).await;
            for received in &update.added {
                let secret = Secret::decode(received.body.clone()).unwrap();
                assert_eq!(secret.name, received.name);
                if let Some(secret::Type::TlsCertificate(pair)) = secret.r#type {
                    seen.insert(check_pair(&toy, pair));
                }
            }
            handle.accept(&update);
        }
        serials.push((*mode, seen));
    }
    drain.start();
    tasks.join_within(LIMIT).await.unwrap();
}

/// Certificate and key belong together and are the pod's; gives the serial number.
fn check_pair(toy: &Toy, pair: envoy_api::tls::TlsCertificate) -> String {
    let text = |source: Option<envoy_api::core::DataSource>| match source.unwrap().specifier {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("inline bytes are expected, not {other:?}"),
    };
    let chain = text(pair.certificate_chain);
    let pair = pki::tls::Identity::from_pem(&chain, &text(pair.private_key)).unwrap();
    pair.certified_key().expect("they belong together");
    let leaf = pki::Certificate::parse_pem(&chain).unwrap();
    assert_eq!(leaf.spiffe_id().as_ref(), Some(&toy.id));
    leaf.serial
}

fn cluster(name: &str, version: &str) -> envoy_api::Resource {
    let message = Cluster {
        name: name.to_string(),
        ..Default::default()
    };
    resource(ResourceType::Cluster, name, version, &message)
}

fn names(host: &str) -> envoy_api::Resource {
    let table = NameTable {
        table: [(host.to_string(), Default::default())].into(),
    };
    resource(ResourceType::NameTable, "", host, &table)
}

async fn restart_is_invisible(mode: Mode) {
    let folder = tempfile::tempdir().unwrap();
    let first = vec![cluster("a", "1"), cluster("b", "1"), names("one")];
    let mut toy = Toy::start(folder.path(), first).await;
    let (drain, services) = Drain::new();
    let tasks = Tasks::new();
    let (publisher, mut identity) = identity::channel();
    tasks.spawn(
        "renewal",
        renewal(&toy, 3600).run(publisher, services.clone()),
    );
    issued(&mut identity).await;
    let (table, mut table_watch) = watch::channel(None);
    let path = folder.path().join("XDS");
    let listener = UnixListener::bind(&path).unwrap();
    let relay = Relay::new(
        control_plane(&toy),
        identity,
        Some(Arc::new(table)),
        &Registry::new(),
    );
    tasks.spawn("relay", relay.serve(listener, services));
    let (handle, mut events) = client(&path, mode, Service::Aggregated);
    handle.subscribe(ResourceType::Cluster, Interest::Wildcard);
    let got = update(&mut events).await;
    assert_eq!(got.added.len(), 2, "{mode:?}: both clusters");
    handle.accept(&got);
    let mut table_has = async |host: &str| {
        let wait = table_watch.wait_for(|table: &Option<Arc<NameTable>>| {
            table
                .as_ref()
                .is_some_and(|table| table.table.contains_key(host))
        });
        tokio::time::timeout(LIMIT, wait)
            .await
            .expect("the name table in time")
            .unwrap();
    };
    table_has("one").await;
    toy.publish(vec![cluster("a", "1"), cluster("b", "2"), names("two")]);
    let got = update(&mut events).await;
    handle.accept(&got);
    table_has("two").await;
    toy.kill().await;
    toy.publish(vec![cluster("a", "1"), cluster("c", "1"), names("three")]);
    toy.listen().await;
    // update() fails on a disconnect: the proxy's stream has gone on.
    let got = update(&mut events).await;
    let added: Vec<&str> = got
        .added
        .iter()
        .map(|received| received.name.as_str())
        .collect();
    match mode {
        Mode::Delta => assert_eq!((added, got.removed.len()), (vec!["c"], 0), "what is new"),
        Mode::StateOfTheWorld => assert_eq!((added, got.removed.len()), (vec!["a", "c"], 1)),
    }
    handle.accept(&got);
    if mode == Mode::Delta {
        let got = update(&mut events).await;
        assert_eq!(got.removed, ["b"], "and what is gone");
    }
    table_has("three").await;
    let callers = toy.callers.lock().unwrap().clone();
    assert!(
        callers.iter().all(|caller| *caller == "certificate"),
        "mutual TLS: {callers:?}"
    );
    drain.start();
    tasks.join_within(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_restart_of_the_control_plane_is_invisible_delta() {
    restart_is_invisible(Mode::Delta).await;
}

#[tokio::test]
async fn a_restart_of_the_control_plane_is_invisible_full() {
    restart_is_invisible(Mode::StateOfTheWorld).await;
}

#[tokio::test]
async fn before_the_first_certificate_the_token_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let toy = Toy::start(folder.path(), vec![cluster("a", "1")]).await;
    let (drain, services) = Drain::new();
    let tasks = Tasks::new();
    let (_publisher, identity) = identity::channel();
    let path = folder.path().join("XDS");
    let listener = UnixListener::bind(&path).unwrap();
    let relay = Relay::new(control_plane(&toy), identity, None, &Registry::new());
    tasks.spawn("relay", relay.serve(listener, services));
    let (handle, mut events) = client(&path, Mode::Delta, Service::Aggregated);
    handle.subscribe(ResourceType::Cluster, Interest::Wildcard);
    update(&mut events).await;
    assert_eq!(*toy.callers.lock().unwrap(), ["token"]);
    drain.start();
    tasks.join_within(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_control_plane_with_another_root_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let toy = Toy::start(folder.path(), Vec::new()).await;
    let domain = pki::TrustDomain::new("cluster.local").unwrap();
    let other = pki::Authority::create(&domain, jiff::Timestamp::now()).unwrap();
    std::fs::write(folder.path().join("root-cert.pem"), other.roots_pem()).unwrap();
    let error =
        agent::ca_client::issue(&control_plane(&toy), &toy.id, Duration::from_secs(60), None)
            .await
            .unwrap_err();
    assert!(error.to_string().contains("BadSignature"), "{error}");
}
