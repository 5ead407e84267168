//! A whole agent with a real Envoy under it, and with our proxy: certificate, configuration,
//! traffic, a dead control plane, metrics, DNS, drain.

#![allow(clippy::unwrap_used)]

#[path = "toy/control.rs"]
mod control;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::{Options, Role};
use control::{NAME, Toy, resource};
use daemon::drain::Drain;
use envoy_api::ResourceType;
use envoy_api::cluster::Cluster;
use envoy_api::istio::{NameTable, name_table::NameInfo};
use envoy_api::listener::Listener;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

const LIMIT: Duration = Duration::from_secs(30);

fn envoy() -> Option<PathBuf> {
    let cache = std::env::var("HOME").unwrap_or_default() + "/.cache/stolos/envoy-venv/bin/envoy";
    let candidates = [
        std::env::var("STOLOS_ENVOY_PATH").unwrap_or_default(),
        cache,
    ];
    let found = candidates.iter().map(Path::new).find(|path| path.is_file());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "no Envoy found");
        println!("not run: no Envoy found");
    }
    found.map(Path::to_path_buf)
}

/// Free at this moment; each test has its own.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

struct Ports {
    admin: u16,
    status: u16,
    readiness: u16,
    prometheus: u16,
    dns: u16,
    traffic: u16,
    tls: u16,
}

fn options(toy: &Toy, engine: &Path, ports: &Ports) -> Options {
    let Ports {
        admin,
        status,
        readiness,
        prometheus,
        dns,
        ..
    } = ports;
    let config = format!(
        r#"{{"proxyAdminPort":{admin},"statusPort":{status},"concurrency":1,
            "terminationDrainDuration":"100ms"}}"#
    );
    let environment = [
        ("POD_NAME", "reviews-v1-1"),
        ("POD_NAMESPACE", "default"),
        ("INSTANCE_IP", "127.0.0.1"),
        ("SERVICE_ACCOUNT", "reviews"),
        ("PROXY_CONFIG", &config),
        ("CA_ADDR", &toy.address.to_string()),
        ("DISCOVERY_ADDRESS", &toy.address.to_string()),
        ("ENVOY_STATUS_PORT", &readiness.to_string()),
        ("ENVOY_PROMETHEUS_PORT", &prometheus.to_string()),
        ("ISTIO_META_DNS_CAPTURE", "true"),
        ("DNS_PROXY_ADDR", &format!("127.0.0.1:{dns}")),
        (
            "STOLOS_PROXY",
            if engine.as_os_str().is_empty() {
                "stolos"
            } else {
                "envoy"
            },
        ),
        ("STOLOS_ENVOY_PATH", &engine.display().to_string()),
    ]
    .map(|(name, value)| (name.to_string(), value.to_string()));
    let folder = toy.folder.display();
    let arguments = [
        format!("--configPath={folder}"),
        format!("--token={folder}/token"),
        format!("--rootCert={folder}/root-cert.pem"),
        format!("--sdsSocket={folder}/sds"),
        format!("--discoverySan={NAME}"),
    ];
    Options::parse(Role::Sidecar, &arguments, &BTreeMap::from(environment)).unwrap()
}

fn listener(
    name: &str,
    port: u16,
    body: &str,
    tls: Option<serde_json::Value>,
) -> envoy_api::Resource {
    let mut listener = serde_json::json!({
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network\
                          .http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": name,
                "route_config": {"name": "r", "virtual_hosts": [{
                    "name": "v", "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"},
                        "direct_response": {"status": 200, "body": {"inline_string": body}}}],
                }]},
                "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                }}],
            },
        }]}],
    });
    if let Some(tls) = tls {
        listener["filter_chains"][0]["transport_socket"] = tls;
    }
    let message: Listener = envoy_api::json::from_json(listener).unwrap();
    resource(ResourceType::Listener, name, body, &message)
}

/// Certificate and roots from the agent, as pilot writes it.
fn mutual_tls() -> serde_json::Value {
    let secret = |name: &str| {
        serde_json::json!({"name": name, "sds_config": {
            "resource_api_version": "V3",
            "api_config_source": {"api_type": "GRPC", "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}]},
        }})
    };
    serde_json::json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3\
                  .DownstreamTlsContext",
        "require_client_certificate": true,
        "common_tls_context": {
            "tls_certificate_sds_secret_configs": [secret("default")],
            "validation_context_sds_secret_config": secret("ROOTCA"),
        },
    }})
}

fn world(ports: &Ports, body: &str) -> Vec<envoy_api::Resource> {
    let entry = NameInfo {
        ips: vec!["10.9.8.7".into()],
        registry: "External".into(),
        ..Default::default()
    };
    let table = NameTable {
        table: [("reviews.example".to_string(), entry)].into(),
    };
    let cluster = Cluster {
        name: "c".into(),
        ..Default::default()
    };
    vec![
        listener("plain", ports.traffic, body, None),
        listener("mutual", ports.tls, body, Some(mutual_tls())),
        resource(ResourceType::Cluster, "c", "1", &cluster),
        resource(ResourceType::NameTable, "", "1", &table),
    ]
}

async fn get<S>(stream: S, path: &str) -> Result<(u16, String), String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let request = http::Request::get(path)
        .header("host", "x")
        .body(Empty::<bytes::Bytes>::new());
    let response = sender
        .send_request(request.unwrap())
        .await
        .map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(|error| error.to_string())?;
    Ok((
        status,
        String::from_utf8_lossy(&body.to_bytes()).into_owned(),
    ))
}

async fn fetch(port: u16, path: &str) -> Result<(u16, String), String> {
    let stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .map_err(|e| e.to_string())?;
    get(stream, path).await
}

/// Asks until the answer is the wanted one.
async fn eventually(port: u16, path: &str, want: &str) {
    let mut last = Err("not asked".to_string());
    let asking = async {
        loop {
            last = fetch(port, path).await;
            if last
                .as_ref()
                .is_ok_and(|(status, body)| *status == 200 && body.contains(want))
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(LIMIT, asking).await.is_err() {
        panic!("port {port} {path}: wanted {want:?}, last {last:?}");
    }
}

async fn scenario(engine: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let [admin, status, readiness, prometheus, dns, traffic, tls] = [(); 7].map(|()| free_port());
    let ports = Ports {
        admin,
        status,
        readiness,
        prometheus,
        dns,
        traffic,
        tls,
    };
    let mut toy = Toy::start(folder.path(), world(&ports, "one")).await;
    let (drain, watch) = Drain::new();
    let running = tokio::spawn({
        let options = options(&toy, engine, &ports);
        agent::run(options, watch)
    });
    eventually(readiness, "/healthz/ready", "").await;
    eventually(status, "/healthz/ready", "").await;
    eventually(traffic, "/", "one").await;
    assert_eq!(
        mutual(&toy, &ports).await.unwrap().1,
        "one",
        "mutual TLS with the pod's identity"
    );
    let plain = fetch(ports.tls, "/").await;
    assert!(
        plain.is_err() || plain.is_ok_and(|(code, _)| code != 200),
        "no plain text there"
    );
    let files: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok())
        .collect();
    assert!(
        !files.iter().any(|text| text.contains("PRIVATE KEY")),
        "no key on the disk"
    );
    eventually(status, "/stats/prometheus", "istio_agent_xds_connected 1").await;
    let page = fetch(status, "/stats/prometheus").await.unwrap().1;
    let own = r#"{cluster_name="xds-grpc"}"#;
    assert!(page.contains(own), "the proxy's metrics: {page}");
    eventually(status, "/debug/ndsz", "reviews.example").await;
    resolves(dns).await;
    toy.kill().await;
    assert_eq!(
        fetch(traffic, "/").await.unwrap().1,
        "one",
        "without a control plane"
    );
    toy.publish(world(&ports, "two"));
    toy.listen().await;
    eventually(traffic, "/", "two").await;
    drain.start();
    let ended = tokio::time::timeout(LIMIT, running)
        .await
        .expect("an end in time");
    ended.unwrap().unwrap();
    assert!(
        fetch(traffic, "/").await.is_err(),
        "nobody listens any more"
    );
}

async fn mutual(toy: &Toy, ports: &Ports) -> Result<(u16, String), String> {
    use pki::verify::{Expected, MeshServerVerifier};
    let client: pki::SpiffeId = "spiffe://cluster.local/ns/default/sa/client"
        .parse()
        .unwrap();
    let ttl = Duration::from_secs(600);
    let own = toy
        .authority
        .issue_server(&[], &[client], ttl, jiff::Timestamp::now())
        .unwrap();
    let roots = pki::TrustBundle::from_pem(toy.authority.roots_pem()).unwrap();
    let verifier = MeshServerVerifier::new(roots, Expected::ids([&toy.id]));
    let config = pki::tls::client_config(verifier, Some(&own), &[b"http/1.1"]).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], ports.tls));
    let stream = TcpStream::connect(address)
        .await
        .map_err(|e| e.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(config);
    let stream = connector
        .connect("x".try_into().unwrap(), stream)
        .await
        .map_err(|error| error.to_string())?;
    get(stream, "/").await
}

async fn resolves(dns: u16) {
    use hickory_proto::op::{Message, Query};
    use hickory_proto::rr::{Name, RecordType};
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut query = Message::query();
    let name = Name::from_ascii("reviews.example.").unwrap();
    query.add_query(Query::query(name, RecordType::A));
    socket
        .send_to(&query.to_vec().unwrap(), ("127.0.0.1", dns))
        .await
        .unwrap();
    let mut buffer = [0; 512];
    let receive = socket.recv(&mut buffer);
    let length = tokio::time::timeout(LIMIT, receive)
        .await
        .expect("an answer")
        .unwrap();
    let reply = Message::from_vec(&buffer[..length]).unwrap();
    let ip = reply.answers[0].data.ip_addr().unwrap();
    assert_eq!(ip.to_string(), "10.9.8.7");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_runs_envoy() {
    let Some(envoy) = envoy() else { return };
    scenario(&envoy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_runs_our_proxy() {
    scenario(Path::new("")).await;
}
