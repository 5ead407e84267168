//! Real Envoy takes everything that this control plane sends it, over ADS with TLS in delta mode,
//! and becomes ready; its secrets come from a small SDS server with a certificate of ours.

#[path = "control/harness.rs"]
#[allow(dead_code)]
mod harness;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_api::core::{DataSource, data_source::Specifier};
use envoy_api::discovery::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_api::tls::{CertificateValidationContext, Secret, TlsCertificate, secret};
use envoy_api::{Resource, ResourceType};
use harness::{Mesh, PRODUCTPAGE_TOKEN};
use pki::tls::Identity;
use prost::Message;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};
use xds::Mode;
use xds::grpc::Status;
use xds::grpc::server::{Call, Limits, serve_unix};
use xds::server::{Source, Stream};

const PATIENCE: Duration = Duration::from_secs(20);

/// By setting, or in the tests' cache folder.
fn envoy() -> Option<PathBuf> {
    let cache = PathBuf::from(std::env::var_os("HOME")?).join(".cache/stolos/envoy-venv");
    let set = std::env::var_os("STOLOS_ENVOY_PATH").map(PathBuf::from);
    [set, Some(cache.join("bin/envoy"))]
        .into_iter()
        .flatten()
        .find(|path| path.exists())
}

#[derive(Clone)]
struct Secrets(Arc<Vec<Resource>>);

impl Secrets {
    fn new(identity: &Identity, roots: &str) -> Secrets {
        let inline = |text: &str| {
            let specifier = Some(Specifier::InlineBytes(text.as_bytes().to_vec().into()));
            Some(DataSource {
                specifier,
                ..DataSource::default()
            })
        };
        let certificate = TlsCertificate {
            certificate_chain: inline(&identity.chain_pem()),
            private_key: inline(identity.key.to_pem().expose()),
            ..Default::default()
        };
        let context = CertificateValidationContext {
            trusted_ca: inline(roots),
            ..Default::default()
        };
        let resources = [
            ("default", secret::Type::TlsCertificate(certificate)),
            ("ROOTCA", secret::Type::ValidationContext(context)),
        ];
        let resources = resources.map(|(name, content)| {
            let secret = Secret {
                name: name.into(),
                r#type: Some(content),
            };
            let body = secret.encode_to_vec().into();
            Resource {
                kind: ResourceType::Secret,
                name: name.into(),
                version: "1".into(),
                body,
            }
        });
        Secrets(Arc::new(resources.into()))
    }

    async fn serve(mut self, call: Call) -> Result<(), Status> {
        let (_, mode) = xds::Service::from_path(&call.path)
            .ok_or_else(|| Status::invalid_argument(&call.path))?;
        let Call {
            mut requests,
            responses,
            ..
        } = call;
        let mut stream = Stream::new(mode, "sds");
        loop {
            let now = Instant::now();
            match mode {
                Mode::Delta => {
                    let request: Option<DeltaDiscoveryRequest> = requests.message().await?;
                    let Some(request) = request else {
                        return Ok(());
                    };
                    stream.delta_request(&request, now);
                }
                Mode::StateOfTheWorld => {
                    let request: Option<DiscoveryRequest> = requests.message().await?;
                    let Some(request) = request else {
                        return Ok(());
                    };
                    stream.full_request(&request, now);
                }
            }
            while let Some(response) = stream.next_response(&mut self, now) {
                responses.send(response.encode()).await?;
            }
        }
    }
}

impl Source for Secrets {
    fn generation(&self) -> u64 {
        1
    }

    fn generate(&mut self, _: ResourceType, names: Option<&BTreeSet<String>>) -> Vec<Resource> {
        let wanted = |secret: &&Resource| names.is_none_or(|names| names.contains(&secret.name));
        self.0.iter().filter(wanted).cloned().collect()
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    listener.local_addr().expect("bound").port()
}

fn bootstrap(mesh: &Mesh, sds: &Path) -> Value {
    let root = mesh.options.state_dir.join("root-cert.pem");
    let address = mesh.control.xds_address;
    let socket = json!({"socket_address": {
        "address": address.ip().to_string(), "port_value": address.port(),
    }});
    let http2 = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }});
    let endpoints = |name: &str, address: Value| {
        json!({"cluster_name": name, "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": address}}]},
        ]})
    };
    json!({
        "node": {
            "id": "sidecar~10.0.11.1~productpage-1.default~default.svc.cluster.local",
            "cluster": "productpage.default",
            "metadata": {"NAMESPACE": "default", "SERVICE_ACCOUNT": "bookinfo-productpage"},
        },
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{
                    "envoy_grpc": {"cluster_name": "xds-grpc"},
                    "initial_metadata": [{
                        "key": "authorization",
                        "value": format!("Bearer {PRODUCTPAGE_TOKEN}-1"),
                    }],
                }],
            },
        },
        "static_resources": {"clusters": [
            {
                "name": "xds-grpc", "type": "STATIC", "connect_timeout": "1s",
                "typed_extension_protocol_options": http2,
                "load_assignment": endpoints("xds-grpc", socket),
                "transport_socket": {
                    "name": "envoy.transport_sockets.tls",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.\
                                  UpstreamTlsContext",
                        "sni": "istiod.istio-system.svc",
                        "common_tls_context": {
                            "alpn_protocols": ["h2"],
                            "validation_context": {
                                "trusted_ca": {"filename": root},
                                "match_typed_subject_alt_names": [{
                                    "san_type": "DNS",
                                    "matcher": {"exact": "istiod.istio-system.svc"},
                                }],
                            },
                        },
                    },
                },
            },
            {
                "name": "sds-grpc", "type": "STATIC", "connect_timeout": "1s",
                "typed_extension_protocol_options": http2,
                "load_assignment": endpoints("sds-grpc", json!({"pipe": {"path": sds}})),
            },
        ]},
    })
}

struct Envoy {
    admin: SocketAddr,
    process: tokio::process::Child,
    log: PathBuf,
}

impl Envoy {
    async fn start(binary: &Path, directory: &Path, bootstrap: &Value) -> Envoy {
        let config = directory.join("envoy.json");
        std::fs::write(&config, bootstrap.to_string()).expect("writes");
        let (admin_path, log) = (directory.join("admin"), directory.join("envoy.log"));
        let mut process = tokio::process::Command::new(binary)
            .arg("-c")
            .arg(&config)
            .arg("--admin-address-path")
            .arg(&admin_path)
            .arg("--log-path")
            .arg(&log)
            .args(["--use-dynamic-base-id", "--concurrency", "1", "-l", "info"])
            .kill_on_drop(true)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("Envoy starts");
        let admin = until("the admin address", &log, async || {
            let ended = process.try_wait().expect("ours");
            assert!(ended.is_none(), "Envoy ended: {}", tail(&log));
            std::fs::read_to_string(&admin_path)
                .ok()?
                .trim()
                .parse()
                .ok()
        });
        Envoy {
            admin: admin.await,
            process,
            log,
        }
    }

    async fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.admin).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: envoy\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let is_chunked = head
            .to_ascii_lowercase()
            .contains("transfer-encoding: chunked");
        let body = if is_chunked {
            unchunk(body)
        } else {
            body.to_owned()
        };
        Some((head.split(' ').nth(1)?.parse().ok()?, body))
    }

    async fn stat(&self, name: &str) -> Option<u64> {
        let (_, text) = self.get(&format!("/stats?filter=^{name}$")).await?;
        text.trim().rsplit(": ").next()?.parse().ok()
    }
}

fn unchunk(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        body.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
    body
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// Asks again until there is an answer. Envoy tells nobody when it is ready: it must be asked.
async fn until<T>(what: &str, log: &Path, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let mut pause = tokio::time::interval(Duration::from_millis(50));
    let deadline = Instant::now() + PATIENCE;
    loop {
        pause.tick().await;
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(
            Instant::now() < deadline,
            "{what} did not come: {}",
            tail(log)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_takes_everything_and_is_ready() {
    let Some(binary) = envoy() else {
        assert!(std::env::var_os("CI").is_none(), "Envoy is not installed");
        eprintln!("not run: Envoy is not installed (cargo xtask install)");
        return;
    };
    let (outbound, inbound) = (free_port(), free_port());
    let ports = format!("proxyListenPort: {outbound}\nproxyInboundListenPort: {inbound}\n");
    let mesh = Mesh::start_with(Some(&ports)).await;
    let token = format!("{PRODUCTPAGE_TOKEN}-1");
    let (identity, _) = mesh.certificate(&token).await.expect("a certificate");
    let roots = std::fs::read_to_string(mesh.options.state_dir.join("root-cert.pem"));
    let secrets = Secrets::new(&identity, &roots.expect("published"));
    let sds = mesh.directory.path().join("sds");
    let listener = UnixListener::bind(&sds).expect("binds");
    let handler = move |call| secrets.clone().serve(call);
    let serving = serve_unix(listener, handler, Limits::default(), std::future::pending());
    let serving = tokio::spawn(serving);

    let directory = mesh.directory.path().to_owned();
    let mut envoy = Envoy::start(&binary, &directory, &bootstrap(&mesh, &sds)).await;
    until("readiness", &envoy.log, async || {
        let (status, body) = envoy.get("/ready").await?;
        (status == 200 && body.contains("LIVE")).then_some(())
    })
    .await;
    let synced = until("a synced generation", &envoy.log, async || {
        let (_, answer) = mesh.get("/v1/proxies").await;
        let proxy = &answer["proxies"][0];
        (proxy["state"] == "synced" || proxy["state"] == "rejected").then(|| proxy.clone())
    })
    .await;
    assert_eq!(synced["rejected"], json!([]), "{synced}");
    for name in [
        "listener_manager.lds.update_rejected",
        "cluster_manager.cds.update_rejected",
    ] {
        assert_eq!(
            envoy.stat(name).await,
            Some(0),
            "{name}: {}",
            tail(&envoy.log)
        );
    }
    for (rule, wanted, why) in [
        (
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: r}\n\
             spec:\n  hosts: [reviews]\n  http:\n  - directResponse: {status: 418}\n",
            "418",
            "a route changes",
        ),
        (
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r}\n\
             spec:\n  host: reviews\n  subsets: [{name: v1, labels: {version: v1}}]\n",
            "outbound|9080|v1|reviews",
            "a cluster is added",
        ),
        (
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r}\n\
             spec:\n  host: reviews\n  trafficPolicy:\n\
             \x20   connectionPool: {tcp: {connectTimeout: 3.7s}}\n",
            "3.700s",
            "clusters are replaced, and one is removed",
        ),
    ] {
        let (status, answer) = mesh.apply(rule).await;
        assert_eq!(status, 200, "{why}: {answer}");
        let path = format!("/v1/wait?generation={}&timeout=20s", answer["generation"]);
        let (_, waited) = mesh.get(&path).await;
        assert_eq!(waited["done"], true, "{why}: {waited}");
        let (_, dump) = envoy.get("/config_dump").await.expect("a dump");
        assert!(dump.contains(wanted), "{why}: it has arrived");
    }
    assert_eq!(
        envoy.stat("cluster_manager.warming_clusters").await,
        Some(0),
        "all is live"
    );

    envoy.process.kill().await.expect("ours");
    serving.abort();
    mesh.control.stop().await.expect("stops");
}
