//! Configuration over ADS: warming in order, updates without a lost connection, refusals by name.
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use envoy_api::discovery::{DiscoveryRequest, DiscoveryResponse};
use envoy_api::{ResourceType, cluster, endpoint, listener, route};
use prost::Message;
use proxy::state::Notice;
use serde_json::{Value, json};
use xds::grpc::server::{self, Call, Limits};

use crate::harness::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// A state-of-the-world server whose resources the test sets.
pub struct Server {
    resources: tokio::sync::watch::Sender<BTreeMap<ResourceType, Vec<prost_types::Any>>>,
    /// Errors that the proxy reported.
    refused: Receiver<String>,
    /// Type and version of each acknowledgement.
    accepted: Receiver<(String, String)>,
    path: std::path::PathBuf,
    _folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Server {
    pub fn start() -> Server {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("xds.sock");
        let (resources, watch) = tokio::sync::watch::channel(BTreeMap::new());
        let (refuse, refused) = channel();
        let (accept, accepted) = channel();
        let senders = Arc::new(Mutex::new((refuse, accept)));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let guard = runtime.enter();
        let socket = tokio::net::UnixListener::bind(&path).unwrap();
        drop(guard);
        runtime.spawn(server::serve_unix(
            socket,
            move |call| serve(call, watch.clone(), senders.clone()),
            Limits::default(),
            std::future::pending(),
        ));
        Server {
            resources,
            refused,
            accepted,
            path,
            _folder: folder,
            runtime,
        }
    }

    pub fn set<M: Message + prost::Name + Default>(&self, kind: ResourceType, values: Vec<Value>) {
        let packed = values
            .into_iter()
            .map(|value| envoy_api::any::pack(&envoy_api::json::from_json::<M>(value).unwrap()))
            .collect();
        self.resources.send_modify(|all| {
            all.insert(kind, packed);
        });
    }

    fn set_routes(&self, body: &str) {
        self.set::<route::RouteConfiguration>(
            ResourceType::Route,
            vec![json!({
            "name": "routes", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                {"match": {"prefix": "/direct"}, "direct_response": {
                    "status": 200, "body": {"inline_string": body}}},
                {"match": {"prefix": "/"}, "route": {"cluster": "up"}}]}]})],
        );
    }

    fn set_listener(&self, more: Value) {
        let mut config = json!({"route_config": null, "rds": {
            "route_config_name": "routes",
            "config_source": {"ads": {}, "resource_api_version": "V3"}}});
        merge(&mut config, more);
        let mut filter = hcm(json!([]), config);
        filter["typed_config"]
            .as_object_mut()
            .unwrap()
            .remove("route_config");
        self.set::<listener::Listener>(
            ResourceType::Listener,
            vec![json!({
            "name": "http", "address": any_port(), "filter_chains": [{"filters": [filter]}]})],
        );
    }

    fn set_upstream(&self, upstream: SocketAddr) {
        self.set::<endpoint::ClusterLoadAssignment>(
            ResourceType::Endpoint,
            vec![json!({
            "cluster_name": "up", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": address(upstream)}}]}]})],
        );
    }

    fn set_clusters(&self, more: Value) {
        let mut up = json!({"name": "up", "type": "EDS", "eds_cluster_config": {
            "eds_config": {"ads": {}, "resource_api_version": "V3"}}});
        merge(&mut up, more);
        self.set::<cluster::Cluster>(ResourceType::Cluster, vec![up]);
    }

    /// Waits for an acknowledgement of this type that is newer than all seen before.
    pub fn wait_accepted(&self, kind: ResourceType) {
        let generation = format!("{}", self.generation());
        loop {
            let (type_url, version) = self.accepted.recv_timeout(PATIENCE).expect("no ACK");
            if type_url == kind.type_url() && version == generation {
                return;
            }
        }
    }

    pub fn end(self) {
        self.runtime.shutdown_background();
    }

    fn generation(&self) -> usize {
        hash(&self.resources.borrow())
    }
}

fn hash(all: &BTreeMap<ResourceType, Vec<prost_types::Any>>) -> usize {
    let bytes: Vec<u8> = all
        .values()
        .flatten()
        .flat_map(|any| any.value.clone())
        .collect();
    xxhash_rust::xxh64::xxh64(&bytes, 0) as usize
}

type Watch = tokio::sync::watch::Receiver<BTreeMap<ResourceType, Vec<prost_types::Any>>>;
type Senders = Arc<
    Mutex<(
        std::sync::mpsc::Sender<String>,
        std::sync::mpsc::Sender<(String, String)>,
    )>,
>;

async fn serve(
    mut call: Call,
    mut watch: Watch,
    senders: Senders,
) -> Result<(), xds::grpc::Status> {
    let mut subscribed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut sent: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    loop {
        tokio::select! {
            request = call.requests.message::<DiscoveryRequest>() => {
                let Some(request) = request? else { return Ok(()) };
                if let Some(error) = &request.error_detail {
                    let _ = senders.lock().unwrap().0.send(error.message.clone());
                } else if !request.response_nonce.is_empty() {
                    let ack = (request.type_url.clone(), request.version_info.clone());
                    let _ = senders.lock().unwrap().1.send(ack);
                }
                let names = request.resource_names.clone();
                if subscribed.insert(request.type_url.clone(), names.clone()) != Some(names) {
                    sent.remove(&request.type_url);
                }
            }
            changed = watch.changed() => changed.unwrap(),
        }
        let all = watch.borrow_and_update().clone();
        let version = hash(&all).to_string();
        for type_url in subscribed.keys() {
            let kind = ResourceType::from_type_url(type_url).unwrap();
            let Some(resources) = all.get(&kind) else {
                continue;
            };
            let response = DiscoveryResponse {
                version_info: version.clone(),
                nonce: version.clone(),
                type_url: type_url.clone(),
                resources: resources.clone(),
                ..DiscoveryResponse::default()
            };
            let bytes: Vec<u8> = resources.iter().flat_map(|any| any.value.clone()).collect();
            if sent.get(type_url) != Some(&bytes) {
                sent.insert(type_url.clone(), bytes);
                call.responses.message(&response).await?;
            }
        }
    }
}

type Started = (
    SocketAddr,
    daemon::drain::Drain,
    std::thread::JoinHandle<()>,
);

/// A proxy of this server, ready; the address is that of its listener.
pub fn start(server: &Server, drain_time: Duration) -> Started {
    let bootstrap = json!({
        "node": {"id": "test", "cluster": "test"},
        "dynamic_resources": {
            "ads_config": {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [
                {"envoy_grpc": {"cluster_name": "xds"}}]},
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
            "lds_config": {"ads": {}, "resource_api_version": "V3"}},
        "static_resources": {"clusters": [{
            "name": "xds", "type": "STATIC",
            "typed_extension_protocol_options": http2()["typed_extension_protocol_options"],
            "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": {"pipe": {"path": server.path}}}}]}]}}]},
    });
    let bootstrap = envoy_api::json::from_json(bootstrap).unwrap();
    let (sender, notices) = channel();
    let sender = Mutex::new(sender);
    let options = proxy::Options {
        concurrency: Some(2),
        drain_time,
        observer: Some(Arc::new(move |notice| {
            let _ = sender.lock().unwrap().send(notice);
        })),
        ..proxy::Options::default()
    };
    let (drain, watch) = daemon::drain::Drain::new();
    let thread = std::thread::spawn(move || proxy::run(bootstrap, options, watch).unwrap());
    let mut address = None;
    loop {
        match notices
            .recv_timeout(PATIENCE)
            .expect("the proxy does not become ready")
        {
            Notice::Listening { address: at, .. } => address = Some(at),
            Notice::Ready => return (address.unwrap(), drain, thread),
            Notice::Admin(_) => {}
        }
    }
}

fn get(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    exchange(address, request.as_bytes())
}

#[test]
fn warms_updates_and_refuses() {
    let server = Server::start();
    let (first, second) = (
        echo_upstream(),
        upstream(|mut stream, _| {
            while read_request(&mut stream).is_some() {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond")
                    .unwrap();
            }
        }),
    );
    server.set_clusters(json!({}));
    server.set_upstream(first);
    server.set_routes("one");
    server.set_listener(json!({}));
    let (address, drain, thread) = start(&server, Duration::from_millis(300));
    assert!(get(address, "/x").contains("#0\nGET /x"));
    assert!(get(address, "/direct").ends_with("one"));

    // An idle connection outlives route and endpoint updates and sees them.
    let mut kept = connect(address);
    let mut ask = |path: &str, end: &str| {
        kept.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
            .unwrap();
        read_until(&mut kept, end)
    };
    ask("/direct", "one");
    server.set_routes("two");
    server.wait_accepted(ResourceType::Route);
    ask("/direct", "two");
    server.set_upstream(second);
    server.wait_accepted(ResourceType::Endpoint);
    ask("/x", "second");

    // A replaced filter chain: the next request on an open connection gets the new settings.
    let denied = json!({"http_filters": [
        {"name": "rbac", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": {"action": "DENY", "policies": {"all": {
                "permissions": [{"any": true}], "principals": [{"any": true}]}}}}},
        {"name": "router", "typed_config": {"@type":
            "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]});
    server.set_listener(denied);
    server.wait_accepted(ResourceType::Listener);
    let answer = ask("/x", "RBAC: access denied");
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    server.set_listener(json!({}));
    server.wait_accepted(ResourceType::Listener);

    // What is refused is named, and what was in force stays.
    server.set_clusters(json!({"lrs_server": {"ads": {}}}));
    let refused = server.refused.recv_timeout(PATIENCE).unwrap();
    assert!(
        refused.contains("cluster 'up'") && refused.contains("lrs_server"),
        "{refused}"
    );
    assert!(get(address, "/x").ends_with("second"));

    // A removed listener closes its port.
    server.set::<listener::Listener>(ResourceType::Listener, vec![]);
    server.wait_accepted(ResourceType::Listener);
    let mut rest = String::new();
    let gone = std::net::TcpStream::connect(address)
        .and_then(|mut stream| stream.read_to_string(&mut rest));
    assert!(gone.is_err() || rest.is_empty(), "{rest}");
    drain.start();
    thread.join().unwrap();
    server.end();
}

#[test]
fn secrets_come_over_their_own_stream_and_are_replaced_in_place() {
    use crate::tls::Certificates;
    let server = Server::start();
    let (old, new) = (Certificates::new(), Certificates::new());
    let secrets = |certificates: &Certificates| {
        let context = certificates.context("server", json!([]), json!(["http/1.1"]));
        server.set::<envoy_api::tls::Secret>(
            ResourceType::Secret,
            vec![
                json!({"name": "default", "tls_certificate": context["tls_certificates"][0]}),
                json!({"name": "ROOTCA", "validation_context": {
                "trusted_ca": context["validation_context"]["trusted_ca"]}}),
            ],
        );
    };
    secrets(&old);
    let sds = |name: &str| {
        json!({"name": name, "sds_config": {
        "resource_api_version": "V3", "initial_fetch_timeout": "0s",
        "api_config_source": {"api_type": "GRPC", "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}]}}})
    };
    let listener = json!({"name": "https", "address": any_port(), "filter_chains": [{
        "filters": [hcm(json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]),
            json!({}))],
        "transport_socket": {"name": "tls", "typed_config": {
            "@type": any("transport_sockets.tls.v3.DownstreamTlsContext"),
            "require_client_certificate": true,
            "common_tls_context": {
                "tls_certificate_sds_secret_configs": [sds("default")],
                "combined_validation_context": {"default_validation_context": {},
                    "validation_context_sds_secret_config": sds("ROOTCA")}}}}}]});
    let sds_cluster = json!({"name": "sds-grpc",
        "typed_extension_protocol_options": http2()["typed_extension_protocol_options"],
        "load_assignment": {"cluster_name": "sds-grpc", "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": {"pipe": {"path": server.path}}}}]}]}});
    let proxy = Proxy::start(
        json!({"listeners": [listener], "clusters": [sds_cluster]}),
        1,
    );
    let ask = |certificates: &Certificates| {
        let context = certificates.context("client", json!([]), json!(["http/1.1"]));
        let up = cluster(
            "up",
            proxy.address("https"),
            json!({"transport_socket": {
            "name": "tls", "typed_config": {
                "@type": any("transport_sockets.tls.v3.UpstreamTlsContext"),
                "common_tls_context": context}}}),
        );
        let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "up"}}]);
        let listener = http_listener(routes, json!({}));
        let client = Proxy::start(json!({"listeners": [listener], "clusters": [up]}), 1);
        get(client.address("http"), "/")
    };
    assert!(ask(&old).starts_with("HTTP/1.1 200"), "the first secrets");
    assert!(ask(&new).starts_with("HTTP/1.1 503"), "another authority");
    secrets(&new);
    server.wait_accepted(ResourceType::Secret);
    assert!(
        ask(&new).starts_with("HTTP/1.1 200"),
        "the new secrets, without a new listener"
    );
    assert!(
        ask(&old).starts_with("HTTP/1.1 503"),
        "the old authority is gone"
    );
    drop(proxy);
    server.end();
}
