//! A control plane in few lines, over real TLS: signs certificates, serves a set of resources.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use envoy_api::discovery::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_api::istio::{IstioCertificateRequest, IstioCertificateResponse};
use envoy_api::{Resource, ResourceType};
use jiff::Timestamp;
use pki::tls::{Identity, server_config};
use pki::verify::{Expected, MeshClientVerifier};
use pki::{Authority, SpiffeId, TrustBundle, TrustDomain};
use prost::Message;
use rustls::sign::SingleCertAndKey;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use xds::grpc::server::{Call, Limits, serve_connection};
use xds::grpc::{Code, Status};
use xds::server::{Scope, Source, Stream};
use xds::{Mode, Service};

pub const TOKEN: &str = "the pod's token";
pub const NAME: &str = "istiod.istio-system.svc";

pub struct Toy {
    pub authority: Arc<Authority>,
    pub id: SpiffeId,
    pub address: SocketAddr,
    pub folder: PathBuf,
    resources: watch::Sender<Vec<Resource>>,
    /// How callers of discovery showed who they are.
    pub callers: Arc<Mutex<Vec<&'static str>>>,
    running: JoinSet<()>,
}

impl Toy {
    /// Writes roots and token into the folder, as the platform does for a pod.
    pub async fn start(folder: &std::path::Path, resources: Vec<Resource>) -> Toy {
        let domain = TrustDomain::new("cluster.local").unwrap();
        let authority = Arc::new(Authority::create(&domain, Timestamp::now()).unwrap());
        std::fs::write(folder.join("root-cert.pem"), authority.roots_pem()).unwrap();
        std::fs::write(folder.join("token"), format!("{TOKEN}\n")).unwrap();
        let mut toy = Toy {
            authority,
            id: SpiffeId::new(domain, "default", "reviews").unwrap(),
            address: "127.0.0.1:0".parse().unwrap(),
            folder: folder.to_path_buf(),
            resources: watch::channel(resources).0,
            callers: Arc::default(),
            running: JoinSet::new(),
        };
        toy.listen().await;
        toy
    }

    /// Ends every connection at once, as kill -9 does.
    pub async fn kill(&mut self) {
        self.running.shutdown().await;
    }

    /// Listens again on the same address.
    pub async fn listen(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let ttl = Duration::from_secs(3600);
        let own: Identity = self
            .authority
            .issue_server(&[NAME], &[], ttl, Timestamp::now())
            .unwrap();
        let key = SingleCertAndKey::from((*own.certified_key().unwrap()).clone());
        let roots = TrustBundle::from_pem(self.authority.roots_pem()).unwrap();
        let verifier = MeshClientVerifier::optional(roots, Expected::Any);
        let config = server_config(verifier, Arc::new(key), &[b"h2"]).unwrap();
        let acceptor = TlsAcceptor::from(config);
        let service = Calls {
            authority: self.authority.clone(),
            id: self.id.clone(),
            resources: self.resources.subscribe(),
            callers: self.callers.clone(),
        };
        self.running.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, service) = (acceptor.clone(), service.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                    let peer = pki::certificate::peer_identity(chain);
                    let handler = move |call: Call| service.clone().answer(call, peer.clone());
                    let never = std::future::pending();
                    let _ = serve_connection(stream, handler, &Limits::default(), never).await;
                });
            }
        });
    }

    pub fn publish(&self, resources: Vec<Resource>) {
        self.resources.send_replace(resources);
    }
}

#[derive(Clone)]
struct Calls {
    authority: Arc<Authority>,
    id: SpiffeId,
    resources: watch::Receiver<Vec<Resource>>,
    callers: Arc<Mutex<Vec<&'static str>>>,
}

impl Calls {
    async fn answer(self, call: Call, peer: Option<SpiffeId>) -> Result<(), Status> {
        let token = call
            .headers
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        let caller = match (token, peer) {
            (_, Some(peer)) if peer == self.id => "certificate",
            (Some(token), None) if token == format!("Bearer {TOKEN}") => "token",
            other => return Err(Status::new(Code::Unauthenticated, format!("{other:?}"))),
        };
        match Service::from_path(&call.path) {
            Some((Service::Aggregated, mode)) => {
                self.callers.lock().unwrap().push(caller);
                self.discovery(call, mode).await
            }
            _ => self.certify(call).await,
        }
    }

    async fn certify(self, mut call: Call) -> Result<(), Status> {
        let request: IstioCertificateRequest = call
            .requests
            .message()
            .await?
            .ok_or(Status::invalid_argument("nothing asked"))?;
        let ttl = Duration::from_secs(request.validity_duration as u64);
        let cert_chain = self
            .authority
            .sign(&request.csr, &[self.id], ttl, Timestamp::now())
            .map_err(Status::invalid_argument)?;
        call.responses
            .message(&IstioCertificateResponse { cert_chain })
            .await
    }

    async fn discovery(mut self, mut call: Call, mode: Mode) -> Result<(), Status> {
        let mut stream = Stream::new(mode, "toy");
        let mut source = World {
            generation: 1,
            resources: self.resources.borrow().clone(),
        };
        loop {
            while let Some(response) = stream.next_response(&mut source, Instant::now()) {
                call.responses.send(response.encode()).await?;
            }
            let now = Instant::now();
            let deadline = stream
                .deadline(now)
                .unwrap_or(now + Duration::from_secs(3600));
            tokio::select! {
                request = call.requests.next() => {
                    let Some(bytes) = request? else { return Ok(()) };
                    if mode == Mode::Delta {
                        let request = DeltaDiscoveryRequest::decode(bytes).unwrap();
                        stream.delta_request(&request, now);
                    } else {
                        let request = DiscoveryRequest::decode(bytes).unwrap();
                        stream.full_request(&request, now);
                    }
                }
                changed = self.resources.changed() => {
                    if changed.is_err() { return Ok(()) }
                    source.resources = self.resources.borrow_and_update().clone();
                    source.generation += 1;
                    let all = ResourceType::ALL.iter().map(|kind| (*kind, Scope::All));
                    stream.changed(source.generation, &all.collect::<BTreeMap<_, _>>());
                }
                () = tokio::time::sleep_until(deadline.into()) => {}
            }
        }
    }
}

struct World {
    generation: u64,
    resources: Vec<Resource>,
}

impl Source for World {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn generate(&mut self, kind: ResourceType, names: Option<&BTreeSet<String>>) -> Vec<Resource> {
        let is_wanted = |resource: &&Resource| {
            resource.kind == kind && names.is_none_or(|names| names.contains(&resource.name))
        };
        self.resources.iter().filter(is_wanted).cloned().collect()
    }
}

pub fn resource(kind: ResourceType, name: &str, version: &str, message: &impl Message) -> Resource {
    Resource {
        kind,
        name: name.to_string(),
        version: version.to_string(),
        body: message.encode_to_vec().into(),
    }
}
