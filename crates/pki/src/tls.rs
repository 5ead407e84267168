//! rustls configurations from identities and verifiers: TLS 1.2 and 1.3, our one provider.

use std::sync::Arc;

use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::CertificateDer;

use crate::verify::{MeshClientVerifier, MeshServerVerifier};
use crate::{Key, PkiError, pem, provider};

/// A certificate chain (leaf first, no root) and its key.
#[derive(Debug)]
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: Key,
}

impl Identity {
    pub fn from_pem(chain_pem: &str, key_pem: &str) -> Result<Identity, PkiError> {
        Ok(Identity {
            chain: pem::certificates(chain_pem)?,
            key: Key::from_pem(key_pem)?,
        })
    }

    pub fn chain_pem(&self) -> String {
        pem::encode_certificates(&self.chain)
    }

    /// For rustls; fails if key and certificate do not belong together.
    pub fn certified_key(&self) -> Result<Arc<CertifiedKey>, PkiError> {
        let key = CertifiedKey::from_der(self.chain.clone(), self.key.to_der(), &provider())
            .map_err(tls)?;
        Ok(Arc::new(key))
    }
}

pub fn client_config(
    verifier: Arc<MeshServerVerifier>,
    identity: Option<&Identity>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, PkiError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(tls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(identity) => builder
            .with_client_auth_cert(identity.chain.clone(), identity.key.to_der())
            .map_err(tls)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// `certificate` may hand out another one for each connection, so rotation needs no new listener.
pub fn server_config(
    verifier: Arc<MeshClientVerifier>,
    certificate: Arc<dyn ResolvesServerCert>,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, PkiError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(tls)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

fn tls(error: rustls::Error) -> PkiError {
    PkiError::Tls(error.to_string())
}
