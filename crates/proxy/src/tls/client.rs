//! A cluster's side of TLS: one context per transport socket, replaced in place when secrets
//! change.
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio_rustls::{TlsConnector, client};

use super::peer::{LocalCertificate, describe};
use super::{Secrets, TlsError, build, verify};
use crate::network::transport::Socket;
use crate::parse::tls::UpstreamTls;
use crate::stream_info::TlsPeer;

#[derive(Debug)]
struct Current {
    config: Arc<ClientConfig>,
    verifies: bool,
    local: LocalCertificate,
}

#[derive(Debug)]
pub struct ClientContext {
    parsed: Arc<UpstreamTls>,
    /// The cluster asks for `auto_san_validation`.
    validate_name: bool,
    current: ArcSwapOption<Current>,
}

/// What one connection asks of the handshake.
#[derive(Clone, Debug, Default)]
pub struct Request<'a> {
    /// SNI instead of the context's.
    pub server_name: Option<&'a str>,
    /// Used as the name where there is no SNI; never sent.
    pub address: Option<IpAddr>,
    pub alpn: Option<&'a [Vec<u8>]>,
}

/// Why an upstream handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("TLS secrets have not arrived")]
    NoSecret,
    #[error("'{0}' is not a server name")]
    BadName(String),
    #[error("{0}")]
    Handshake(#[from] std::io::Error),
}

impl ClientContext {
    pub fn new(parsed: Arc<UpstreamTls>, validate_name: bool) -> ClientContext {
        ClientContext {
            parsed,
            validate_name,
            current: ArcSwapOption::empty(),
        }
    }

    pub fn parsed(&self) -> &Arc<UpstreamTls> {
        &self.parsed
    }

    pub fn is_ready(&self) -> bool {
        self.current.load().is_some()
    }

    /// The configuration in force, for clients other than pools.
    pub fn rustls_config(&self) -> Option<Arc<ClientConfig>> {
        self.current
            .load()
            .as_ref()
            .map(|current| current.config.clone())
    }

    /// Builds the configuration anew; the old one stays in force if that fails.
    pub fn refresh(&self, secrets: &Secrets) -> Result<(), TlsError> {
        let context = &self.parsed.context;
        let provider = build::provider(context)?;
        let keys = build::certificates(context, secrets, &provider)?;
        let validation = build::validation(&context.validation, secrets)?;
        let verifies = validation
            .as_ref()
            .is_some_and(|one| one.trusted_ca.is_some() || one.system_roots);
        let by_name = (self.validate_name || self.parsed.auto_sni_san_validation)
            && validation
                .as_ref()
                .is_none_or(|one| one.match_sans.is_empty());
        let verifier = verify::server_verifier(validation, by_name)?;
        let local = LocalCertificate::of(keys.first().and_then(|key| key.cert.first()));
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&build::versions(context))
            .map_err(build::invalid)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match keys.into_iter().next() {
            Some(key) => builder.with_client_cert_resolver(Arc::new(Always(key))),
            None => builder.with_no_client_auth(),
        };
        config.key_log = build::key_log(context.key_log.as_ref())?;
        config.alpn_protocols = context.alpn.clone();
        // Resumption would skip the verification of a peer whose identity was revoked meanwhile.
        config.resumption = rustls::client::Resumption::disabled();
        let config = Arc::new(config);
        self.current.store(Some(Arc::new(Current {
            config,
            verifies,
            local,
        })));
        Ok(())
    }

    /// The handshake over a connected socket.
    pub async fn connect(
        &self,
        socket: Socket,
        request: Request<'_>,
    ) -> Result<(client::TlsStream<Socket>, Arc<TlsPeer>), ConnectError> {
        let current = self.current.load_full().ok_or(ConnectError::NoSecret)?;
        let name = match request.server_name {
            Some(name) => name,
            None => &self.parsed.sni,
        };
        let server_name = match (name, request.address) {
            ("", Some(address)) => ServerName::IpAddress(address.into()),
            ("", None) => ServerName::IpAddress(IpAddr::from([127, 0, 0, 1]).into()),
            (name, _) => ServerName::try_from(name.to_owned())
                .map_err(|_| ConnectError::BadName(name.to_owned()))?,
        };
        let connector = TlsConnector::from(current.config.clone());
        let stream = match request.alpn {
            Some(alpn) => {
                connector
                    .with_alpn(alpn.to_vec())
                    .connect(server_name, socket)
                    .await?
            }
            None => connector.connect(server_name, socket).await?,
        };
        let peer = describe(stream.get_ref().1, current.verifies, &current.local);
        Ok((stream, peer))
    }
}

#[derive(Debug)]
struct Always(Arc<rustls::sign::CertifiedKey>);

impl rustls::client::ResolvesClientCert for Always {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
