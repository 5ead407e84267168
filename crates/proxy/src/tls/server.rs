//! A listener's side of TLS: one context per filter chain, replaced in place when secrets change.
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::{LazyConfigAcceptor, server};

use super::peer::{LocalCertificate, describe};
use super::{Secrets, TlsError, build, verify};
use crate::network::transport::Socket;
use crate::parse::tls::DownstreamTls;
use crate::stream_info::TlsPeer;

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    /// For clients whose ALPN has nothing in common with ours: Envoy goes on without a protocol.
    without_alpn: Arc<ServerConfig>,
    verifies: bool,
    local: LocalCertificate,
}

#[derive(Debug)]
pub struct ServerContext {
    parsed: Arc<DownstreamTls>,
    current: ArcSwapOption<Current>,
}

/// Why a downstream handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("TLS secrets have not arrived")]
    NoSecret,
    #[error("{0}")]
    Handshake(#[from] std::io::Error),
}

impl ServerContext {
    pub fn new(parsed: Arc<DownstreamTls>) -> ServerContext {
        ServerContext {
            parsed,
            current: ArcSwapOption::empty(),
        }
    }

    pub fn parsed(&self) -> &DownstreamTls {
        &self.parsed
    }

    /// Every secret that this context waits for has arrived.
    pub fn is_ready(&self) -> bool {
        self.current.load().is_some()
    }

    /// Builds the configuration anew; the old one stays in force if that fails.
    pub fn refresh(&self, secrets: &Secrets) -> Result<(), TlsError> {
        let context = &self.parsed.context;
        let provider = build::provider(context)?;
        let keys = build::certificates(context, secrets, &provider)?;
        let validation = build::validation(&context.validation, secrets)?;
        let verifies = validation.as_ref().is_some_and(|one| {
            (one.trusted_ca.is_some() || one.system_roots) && !one.accept_untrusted
        });
        let required = self.parsed.require_client_certificate;
        let verifier = verify::client_verifier(validation, required)?;
        let local = LocalCertificate::of(keys.first().and_then(|key| key.cert.first()));
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&build::versions(context))
            .map_err(build::invalid)?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(BySni(keys)));
        config.key_log = build::key_log(context.key_log.as_ref())?;
        if !self.parsed.stateful_resumption {
            config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        }
        let without_alpn = Arc::new(config.clone());
        config.alpn_protocols = context.alpn.clone();
        let config = Arc::new(config);
        self.current.store(Some(Arc::new(Current {
            config,
            without_alpn,
            verifies,
            local,
        })));
        Ok(())
    }

    /// The handshake with one client.
    pub async fn accept(
        &self,
        socket: Socket,
    ) -> Result<(server::TlsStream<Socket>, Arc<TlsPeer>), AcceptError> {
        let current = self.current.load_full().ok_or(AcceptError::NoSecret)?;
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), socket).await?;
        let config = {
            let hello = start.client_hello();
            if self.parsed.require_sni && hello.server_name().is_none() {
                return Err(std::io::Error::other("no SNI").into());
            }
            let ours = &current.config.alpn_protocols;
            let common = hello
                .alpn()
                .is_none_or(|mut offered| offered.any(|name| ours.iter().any(|own| own == name)));
            if common {
                current.config.clone()
            } else {
                current.without_alpn.clone()
            }
        };
        let stream = start.into_stream(config).await?;
        let peer = describe(stream.get_ref().1, current.verifies, &current.local);
        Ok((stream, peer))
    }
}

/// The certificate whose names match, else the first (as Envoy without full scan).
#[derive(Debug)]
struct BySni(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        if self.0.len() > 1
            && let Some(name) = hello.server_name()
            && let Ok(name) = rustls_pki_types::ServerName::try_from(name)
        {
            let matching = self.0.iter().filter(usable).find(|key| covers(key, &name));
            if let Some(key) = matching {
                return Some(key.clone());
            }
        }
        self.0.iter().find(usable).or(self.0.first()).cloned()
    }
}

fn covers(key: &CertifiedKey, name: &rustls_pki_types::ServerName<'_>) -> bool {
    key.cert
        .first()
        .and_then(|leaf| webpki::EndEntityCert::try_from(leaf).ok())
        .is_some_and(|leaf| leaf.verify_is_valid_for_subject_name(name).is_ok())
}
