//! Both ends over a real Unix socket: subscribe, ACK, NACK, and a server that goes away.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use envoy_api::cluster::Cluster;
use envoy_api::core::Node;
use envoy_api::discovery::DeltaDiscoveryRequest;
use envoy_api::{Resource, ResourceType};
use prost::Message;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use xds::client::Client;
use xds::grpc::client::{Event, Target, Update, spawn};
use xds::grpc::server::{Call, Limits, serve_unix};
use xds::grpc::{Code, Status};
use xds::server::{Meaning, Source, Stream};
use xds::{Interest, Mode, Service};

struct OneCluster;

impl Source for OneCluster {
    fn generation(&self) -> u64 {
        1
    }

    fn generate(&mut self, kind: ResourceType, _: Option<&BTreeSet<String>>) -> Vec<Resource> {
        let cluster = Cluster {
            name: "a".into(),
            alt_stat_name: "x".repeat(3 << 20),
            ..Cluster::default()
        };
        let body = cluster.encode_to_vec().into();
        vec![Resource {
            kind,
            name: "a".into(),
            version: "v".into(),
            body,
        }]
    }
}

async fn serve(call: Call, meanings: mpsc::Sender<Meaning>) -> Result<(), Status> {
    let Some((Service::Aggregated, Mode::Delta)) = Service::from_path(&call.path) else {
        return Err(Status::new(Code::Unimplemented, "no such method: näh"));
    };
    let Call {
        mut requests,
        responses,
        ..
    } = call;
    let mut stream = Stream::new(Mode::Delta, "t");
    while let Some(request) = requests.message::<DeltaDiscoveryRequest>().await? {
        let meaning = stream.delta_request(&request, Instant::now());
        if meanings.send(meaning).await.is_err() {
            return Ok(());
        }
        while let Some(response) = stream.next_response(&mut OneCluster, Instant::now()) {
            responses.send(response.encode()).await?;
        }
    }
    Ok(())
}

async fn update(events: &mut mpsc::Receiver<Event>) -> Update {
    loop {
        match events.recv().await.expect("the task lives") {
            Event::Update(update) => return update,
            Event::Connected | Event::Disconnected { .. } => {}
        }
    }
}

#[tokio::test]
async fn a_stream_lives_over_a_restart_of_its_server() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("XDS");
    let (sender, mut meanings) = mpsc::channel(64);
    let start = || {
        let listener = UnixListener::bind(&path).expect("binds");
        let (stop, stopped) = oneshot::channel::<()>();
        let sender = sender.clone();
        let handler = move |call| serve(call, sender.clone());
        let stopped = async move { drop(stopped.await) };
        (
            stop,
            tokio::spawn(serve_unix(listener, handler, Limits::default(), stopped)),
        )
    };
    let (stop, server) = start();

    let node = Node {
        id: "n".into(),
        ..Default::default()
    };
    let client = Client::new(node, Mode::Delta, Service::Aggregated);
    let (handle, mut events) = spawn(Target::unix(&path), client);
    handle.subscribe(ResourceType::Cluster, Interest::Wildcard);
    assert_eq!(events.recv().await, Some(Event::Connected));
    let first = update(&mut events).await;
    assert_eq!(
        (
            first.added[0].name.as_str(),
            first.added[0].body.len() > 3 << 20
        ),
        ("a", true)
    );
    handle.reject(&first, "no".into());
    assert_eq!(
        meanings.recv().await,
        Some(Meaning::Opened(ResourceType::Cluster))
    );
    let rejected = Meaning::Rejected(ResourceType::Cluster, "no".into());
    assert_eq!(meanings.recv().await, Some(rejected));

    drop(stop);
    server.await.expect("ends though a call is open");
    std::fs::remove_file(&path).expect("removes");
    let disconnected = events.recv().await;
    assert!(
        matches!(disconnected, Some(Event::Disconnected { .. })),
        "{disconnected:?}"
    );
    let (_stop, _server) = start();
    let again = update(&mut events).await;
    handle.accept(&again);
    assert_eq!(
        meanings.recv().await,
        Some(Meaning::Opened(ResourceType::Cluster))
    );
    assert_eq!(
        meanings.recv().await,
        Some(Meaning::Acknowledged(ResourceType::Cluster))
    );

    drop(handle);
    let closed = tokio::time::timeout(Duration::from_secs(10), async {
        while events.recv().await.is_some() {}
    });
    closed.await.expect("the task ends with its last handle");
}

#[tokio::test]
async fn a_refused_call_says_why() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("XDS");
    let (sender, _meanings) = mpsc::channel(64);
    let listener = UnixListener::bind(&path).expect("binds");
    let handler = move |call| serve(call, sender.clone());
    tokio::spawn(serve_unix(
        listener,
        handler,
        Limits::default(),
        std::future::pending(),
    ));

    let seen = Arc::new(Mutex::new(0));
    let count = seen.clone();
    let target = Target::unix(&path).with_metadata_source(Arc::new(move || {
        *count.lock().expect("not poisoned") += 1;
        vec![("authorization".into(), "Bearer x".into())]
    }));
    let client = Client::new(Node::default(), Mode::Delta, Service::Secrets);
    let (_handle, mut events) = spawn(target, client);
    let reasons = async {
        loop {
            if let Some(Event::Disconnected { reason }) = events.recv().await {
                return reason;
            }
        }
    };
    assert_eq!(reasons.await, "UNIMPLEMENTED: no such method: näh");
    assert!(
        *seen.lock().expect("not poisoned") >= 1,
        "metadata is asked for"
    );
}
