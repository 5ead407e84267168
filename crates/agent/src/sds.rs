//! Serves secrets to the proxy on a unix socket: its certificate, the roots, files of the pod.
//! Delta and state of the world; a renewed certificate is pushed at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use daemon::drain::DrainWatch;
use envoy_api::core::{DataSource, data_source::Specifier};
use envoy_api::discovery::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_api::tls::{CertificateValidationContext, Secret, TlsCertificate, secret};
use envoy_api::{Resource, ResourceType};
use prost::Message;
use tokio::net::UnixListener;
use xds::grpc::server::{Call, Limits, serve_unix};
use xds::grpc::{Code, Status};
use xds::server::{Meaning, Scope, Source, Stream};
use xds::{Mode, Service};

use crate::ca_client::Issued;
use crate::identity::IdentityWatch;

/// The names that pilot's configuration refers to.
pub const CERTIFICATE: &str = "default";
pub const ROOTS: &str = "ROOTCA";
const FILE_CERTIFICATE: &str = "file-cert:";
const FILE_ROOTS: &str = "file-root:";
/// How often files are looked at; Kubernetes swaps a whole folder by a symlink.
const FILE_INTERVAL: Duration = Duration::from_secs(1);
const LONGEST_FILE: u64 = 1 << 20;

/// Serves until the drain starts.
pub async fn serve(listener: UnixListener, identity: IdentityWatch, drain: DrainWatch) {
    let streams = Arc::new(AtomicU64::new(0));
    let shutdown = {
        let drain = drain.clone();
        async move { drain.started().await }
    };
    let handler = move |call: Call| {
        let number = streams.fetch_add(1, Ordering::Relaxed);
        stream(call, identity.clone(), number)
    };
    serve_unix(listener, handler, Limits::default(), shutdown).await;
}

async fn stream(call: Call, mut identity: IdentityWatch, number: u64) -> Result<(), Status> {
    let Some((Service::Secrets, mode)) = Service::from_path(&call.path) else {
        return Err(Status::new(
            Code::Unimplemented,
            "only secrets are served here",
        ));
    };
    let Call {
        mut requests,
        responses,
        ..
    } = call;
    let mut stream = Stream::new(mode, format!("sds-{number}"));
    let mut source = Secrets::default();
    source.refresh(identity.borrow_and_update().as_deref(), &BTreeSet::new());
    let mut files = tokio::time::interval(FILE_INTERVAL);
    loop {
        let names = stream
            .names(ResourceType::Secret)
            .cloned()
            .unwrap_or_default();
        // Before the first certificate there is no answer, rather than one that says "gone".
        if source.has_all(&names) {
            while let Some(response) = stream.next_response(&mut source, Instant::now()) {
                responses.send(response.encode()).await?;
            }
        }
        tokio::select! {
            request = requests.next() => {
                let Some(bytes) = request? else { return Ok(()) };
                let meaning = match mode {
                    Mode::Delta => {
                        let request =
                            DeltaDiscoveryRequest::decode(bytes).map_err(Status::invalid_argument)?;
                        stream.delta_request(&request, Instant::now())
                    }
                    Mode::StateOfTheWorld => {
                        let request =
                            DiscoveryRequest::decode(bytes).map_err(Status::invalid_argument)?;
                        stream.full_request(&request, Instant::now())
                    }
                };
                note(&meaning);
            }
            changed = identity.changed() => {
                if changed.is_err() {
                    return Err(Status::unavailable("the agent stops"));
                }
            }
            _ = files.tick() => {}
        }
        let names = stream
            .names(ResourceType::Secret)
            .cloned()
            .unwrap_or_default();
        let issued = identity.borrow_and_update().clone();
        if source.refresh(issued.as_deref(), &names) {
            let concerned = BTreeMap::from([(ResourceType::Secret, Scope::All)]);
            stream.changed(source.generation, &concerned);
        }
    }
}

fn note(meaning: &Meaning) {
    match meaning {
        Meaning::Rejected(_, text) => tracing::warn!(text, "the proxy refuses a secret"),
        Meaning::Unknown(type_url) => tracing::warn!(type_url, "SDS asked for another type"),
        meaning => tracing::debug!(?meaning, "SDS request"),
    }
}

/// The newest secrets by name, and a number that counts their changes.
#[derive(Default)]
struct Secrets {
    generation: u64,
    by_name: BTreeMap<String, Resource>,
}

impl Secrets {
    /// Whether all that the agent makes itself is there; files may be missing.
    fn has_all(&self, names: &BTreeSet<String>) -> bool {
        let own = names
            .iter()
            .filter(|name| matches!(name.as_str(), CERTIFICATE | ROOTS));
        own.into_iter().all(|name| self.by_name.contains_key(name))
    }

    /// True if anything is new.
    fn refresh(&mut self, issued: Option<&Issued>, names: &BTreeSet<String>) -> bool {
        let mut now = BTreeMap::new();
        if let Some(issued) = issued {
            let Issued {
                chain_pem,
                key_pem,
                roots_pem,
                leaf,
                ..
            } = issued;
            // The serial number stands for the content: no hash of a key as a version.
            let secret = certificate(CERTIFICATE, chain_pem, key_pem.expose());
            now.insert(
                CERTIFICATE.to_string(),
                resource(CERTIFICATE, &leaf.serial, secret),
            );
            let secret = validation(ROOTS, inline(roots_pem));
            now.insert(
                ROOTS.to_string(),
                resource(ROOTS, &fingerprint(roots_pem), secret),
            );
        }
        for name in names {
            if let Some(resource) = from_files(name) {
                now.insert(name.clone(), resource);
            }
        }
        let is_new = now != self.by_name;
        if is_new {
            self.by_name = now;
            self.generation += 1;
        }
        is_new
    }
}

impl Source for Secrets {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn generate(&mut self, kind: ResourceType, names: Option<&BTreeSet<String>>) -> Vec<Resource> {
        // There is no "all secrets": a wildcard would hand out what was not asked for.
        let Some(names) = names.filter(|_| kind == ResourceType::Secret) else {
            return Vec::new();
        };
        names
            .iter()
            .filter_map(|name| self.by_name.get(name))
            .cloned()
            .collect()
    }
}

fn from_files(name: &str) -> Option<Resource> {
    if let Some(paths) = name.strip_prefix(FILE_CERTIFICATE) {
        let (chain, key) = paths.split_once('~')?;
        let (chain, key) = (read(chain)?, read(key)?);
        let pair = pki::tls::Identity::from_pem(&chain, &key);
        // A pair in the middle of its replacement is not sent; the next look sees both new.
        if let Err(error) = pair.and_then(|pair| pair.certified_key()) {
            tracing::warn!(%error, name, "SDS: certificate and key from files");
            return None;
        }
        let secret = certificate(name, &chain, &key);
        return Some(resource(name, &fingerprint(&chain), secret));
    }
    match name.strip_prefix(FILE_ROOTS)? {
        "system" => {
            let path = "/etc/ssl/certs/ca-certificates.crt".to_string();
            let secret = validation(
                name,
                DataSource {
                    specifier: Some(Specifier::Filename(path)),
                    ..Default::default()
                },
            );
            Some(resource(name, "system", secret))
        }
        path => {
            let roots = read(path)?;
            Some(resource(
                name,
                &fingerprint(&roots),
                validation(name, inline(&roots)),
            ))
        }
    }
}

fn read(path: &str) -> Option<String> {
    let length = std::fs::metadata(path).ok()?.len();
    if length > LONGEST_FILE {
        tracing::warn!(path, "SDS: the file is too long");
        return None;
    }
    std::fs::read_to_string(path).ok()
}

fn certificate(name: &str, chain_pem: &str, key_pem: &str) -> Secret {
    Secret {
        name: name.to_string(),
        r#type: Some(secret::Type::TlsCertificate(TlsCertificate {
            certificate_chain: Some(inline(chain_pem)),
            private_key: Some(inline(key_pem)),
            ..Default::default()
        })),
    }
}

fn validation(name: &str, trusted: DataSource) -> Secret {
    Secret {
        name: name.to_string(),
        r#type: Some(secret::Type::ValidationContext(
            CertificateValidationContext {
                trusted_ca: Some(trusted),
                ..Default::default()
            },
        )),
    }
}

fn inline(text: &str) -> DataSource {
    let bytes = Specifier::InlineBytes(text.as_bytes().to_vec().into());
    DataSource {
        specifier: Some(bytes),
        ..Default::default()
    }
}

fn resource(name: &str, version: &str, secret: Secret) -> Resource {
    Resource {
        kind: ResourceType::Secret,
        name: name.to_string(),
        version: version.to_string(),
        body: secret.encode_to_vec().into(),
    }
}

fn fingerprint(public_text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, public_text.as_bytes());
    digest.as_ref()[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
