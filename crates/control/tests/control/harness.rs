//! A control plane in a directory of its own, and what talks to it: an admin client, a sidecar.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use control::registry::local::{ContainerPort, NamespaceEntry, PodEntry, RegistryFile};
use control::{Control, Options};
use envoy_api::ResourceType;
use envoy_api::core::Node;
use envoy_api::istio::{IstioCertificateRequest, IstioCertificateResponse};
use pki::tls::Identity;
use pki::verify::{Expected, MeshServerVerifier};
use pki::{Key, SpiffeId, TrustBundle};
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use rustls_pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use xds::grpc::Status;
use xds::grpc::client::{Client, Event, Handle, Interest, Mode, Service, Target, Update, spawn};
use xds::grpc::transport::Connection;

pub const PRODUCTPAGE_TOKEN: &str = "productpage-token";
pub const REVIEWS_TOKEN: &str = "reviews-token";
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Mesh {
    pub directory: tempfile::TempDir,
    pub options: Options,
    pub control: Control,
}

fn sha256(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

pub fn pod(app: &str, number: u8, token: &str) -> PodEntry {
    let labels = [
        ("app", app),
        ("version", "v1"),
        ("security.istio.io/tlsMode", "istio"),
    ];
    PodEntry {
        namespace: "default".into(),
        name: format!("{app}-{number}"),
        uid: format!("{app}-{number}"),
        ip: format!("10.0.{}.{number}", app.len()),
        labels: labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        service_account: format!("bookinfo-{app}"),
        ready: true,
        workload_name: format!("{app}-v1"),
        ports: vec![ContainerPort {
            name: "http".into(),
            container_port: 9080,
        }],
        token_sha256: sha256(&format!("{token}-{number}")),
        ..PodEntry::default()
    }
}

pub fn service(app: &str, address: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": app, "namespace": "default"},
        "spec": {
            "clusterIP": address, "selector": {"app": app},
            "ports": [{"name": "http", "port": 9080, "targetPort": "http"}],
        },
    })
}

pub fn registry() -> RegistryFile {
    RegistryFile {
        services: vec![
            service("reviews", "10.1.0.1"),
            service("productpage", "10.1.0.2"),
        ],
        pods: vec![
            pod("reviews", 1, REVIEWS_TOKEN),
            pod("reviews", 2, REVIEWS_TOKEN),
            pod("productpage", 1, PRODUCTPAGE_TOKEN),
        ],
        namespaces: vec![NamespaceEntry {
            name: "default".into(),
            labels: BTreeMap::new(),
        }],
    }
}

impl Mesh {
    pub async fn start() -> Mesh {
        Mesh::start_with(None).await
    }

    pub async fn start_with(mesh_config: Option<&str>) -> Mesh {
        let directory = tempfile::tempdir().expect("a directory");
        let mut options = Options::new(directory.path().join("state"));
        options.registry = Some(directory.path().join("registry.json"));
        options.xds_address = ([127, 0, 0, 1], 0).into();
        options.monitoring_address = ([127, 0, 0, 1], 0).into();
        if let Some(text) = mesh_config {
            let path = directory.path().join("mesh.yaml");
            std::fs::write(&path, text).expect("writes");
            options.mesh_config = Some(path);
        }
        write_registry(directory.path(), &registry());
        let control = started(&options).await;
        Mesh {
            directory,
            options,
            control,
        }
    }

    /// Stops the control plane and starts another one on the same directory and address.
    pub async fn restart(self) -> Mesh {
        let Mesh {
            directory,
            mut options,
            control,
        } = self;
        options.xds_address = control.xds_address;
        control.stop().await.expect("stops");
        let control = started(&options).await;
        Mesh {
            directory,
            options,
            control,
        }
    }

    pub fn set_registry(&self, file: &RegistryFile) {
        write_registry(self.directory.path(), file);
    }

    pub async fn get(&self, path: &str) -> (u16, serde_json::Value) {
        call(&self.options.admin_socket, "GET", path, "").await
    }

    pub async fn post(&self, path: &str, body: serde_json::Value) -> (u16, serde_json::Value) {
        call(&self.options.admin_socket, "POST", path, &body.to_string()).await
    }

    pub async fn apply(&self, text: &str) -> (u16, serde_json::Value) {
        let files = json!([{"name": "rules.yaml", "text": text}]);
        self.post("/v1/apply", json!({"files": files, "namespace": "default"}))
            .await
    }

    pub fn target(&self, token: Option<&str>, identity: Option<&Identity>) -> Target {
        let roots = std::fs::read_to_string(self.options.state_dir.join("root-cert.pem"));
        let roots = TrustBundle::from_pem(&roots.expect("published")).expect("a root");
        let verifier = MeshServerVerifier::new(roots, Expected::ServerName);
        let config = pki::tls::client_config(verifier, identity, &[b"h2"]).expect("a config");
        let name = ServerName::try_from("istiod.istio-system.svc").expect("a name");
        let target = Target::tls(self.control.xds_address, name, config);
        match token {
            Some(token) => target.with_metadata("authorization", &format!("Bearer {token}")),
            None => target,
        }
    }

    /// A certificate as an agent gets it.
    pub async fn certificate(&self, token: &str) -> Result<(Identity, SpiffeId), Status> {
        let key = Key::generate().expect("a key");
        // What the request claims is not what counts.
        let claimed: SpiffeId = "spiffe://cluster.local/ns/other/sa/admin"
            .parse()
            .expect("an id");
        let csr = pki::csr::create(&key, &claimed).expect("a request");
        let request = IstioCertificateRequest {
            csr,
            validity_duration: 3600,
            ..Default::default()
        };
        let mut connection = Connection::connect(&self.target(Some(token), None)).await?;
        let path = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
        let response: IstioCertificateResponse = connection.unary(path, &request).await?;
        assert!(response.cert_chain.len() >= 2, "leaf and root");
        let chain = &response.cert_chain[..response.cert_chain.len() - 1];
        let leaf = pki::Certificate::parse_pem(&chain[0]).expect("a certificate");
        let id = leaf.spiffe_id().expect("an id");
        let identity = Identity::from_pem(&chain.concat(), key.to_pem().expose());
        Ok((identity.expect("fits"), id))
    }
}

async fn started(options: &Options) -> Control {
    let control = control::start(options.clone()).await.expect("starts");
    tokio::time::timeout(PATIENCE, control.ready())
        .await
        .expect("becomes ready");
    control
}

fn write_registry(directory: &Path, file: &RegistryFile) {
    let path = directory.join("registry.json.new");
    std::fs::write(&path, serde_json::to_string(file).expect("writes")).expect("writes");
    std::fs::rename(path, directory.join("registry.json")).expect("renames");
}

async fn call(socket: &PathBuf, method: &str, path: &str, body: &str) -> (u16, serde_json::Value) {
    let mut stream = UnixStream::connect(socket)
        .await
        .expect("the admin socket answers");
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: control\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("reads");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("a status");
    let value = serde_json::from_str(body).unwrap_or_else(|_| json!(body));
    (status, value)
}

pub fn node(app: &str, namespace: &str) -> Node {
    let text = |text: &str| Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    };
    let fields = [
        ("NAMESPACE".to_owned(), text(namespace)),
        (
            "SERVICE_ACCOUNT".to_owned(),
            text(&format!("bookinfo-{app}")),
        ),
    ];
    Node {
        id: format!(
            "sidecar~10.0.{}.1~{app}-1.{namespace}~{namespace}.svc.cluster.local",
            app.len()
        ),
        cluster: format!("{app}.{namespace}"),
        metadata: Some(Struct {
            fields: fields.into(),
        }),
        ..Node::default()
    }
}

/// A sidecar that accepts what it gets, unless told otherwise.
pub struct Sidecar {
    pub handle: Handle,
    pub events: mpsc::Receiver<Event>,
    /// By type and name: the accepted body.
    pub held: BTreeMap<(ResourceType, String), bytes::Bytes>,
}

impl Sidecar {
    pub fn connect(target: Target, node: Node, mode: Mode) -> Sidecar {
        let client = Client::new(node, mode, Service::Aggregated);
        let (handle, events) = spawn(target, client);
        Sidecar {
            handle,
            events,
            held: BTreeMap::new(),
        }
    }

    pub fn subscribe_to_all(&self, names: &[&str]) {
        self.handle
            .subscribe(ResourceType::Cluster, Interest::Wildcard);
        self.handle
            .subscribe(ResourceType::Listener, Interest::Wildcard);
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        self.handle
            .subscribe(ResourceType::Route, Interest::Names(names));
    }

    /// The next update, not yet answered.
    pub async fn update(&mut self) -> Update {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
            if let Event::Update(update) = event.expect("in time").expect("the task lives") {
                return update;
            }
        }
    }

    /// The reason of the next disconnect.
    pub async fn refusal(&mut self) -> String {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
            match event.expect("in time").expect("the task lives") {
                Event::Disconnected { reason } => return reason,
                Event::Connected => {}
                Event::Update(update) => panic!("an update: {:?}", update.kind),
            }
        }
    }

    pub fn accept(&mut self, update: &Update) {
        for resource in &update.added {
            self.held
                .insert((update.kind, resource.name.clone()), resource.body.clone());
        }
        for name in &update.removed {
            self.held.remove(&(update.kind, name.clone()));
        }
        if update.kind == ResourceType::Cluster {
            let names = self.held.iter().filter(|((kind, _), body)| {
                *kind == ResourceType::Cluster && xds::wire::is_eds_cluster(body)
            });
            let names = names.map(|((_, name), _)| name.clone()).collect();
            self.handle
                .subscribe(ResourceType::Endpoint, Interest::Names(names));
        }
        self.handle.accept(update);
    }

    /// Accepts updates until the condition holds.
    pub async fn until(&mut self, condition: impl Fn(&Sidecar) -> bool) {
        while !condition(self) {
            let update = self.update().await;
            self.accept(&update);
        }
    }

    pub fn has(&self, kind: ResourceType, name: &str) -> bool {
        self.held.contains_key(&(kind, name.to_owned()))
    }

    pub fn message<M: prost::Message + Default>(&self, kind: ResourceType, name: &str) -> M {
        let body = self.held.get(&(kind, name.to_owned())).expect("held");
        M::decode(body.clone()).expect("decodes")
    }
}
