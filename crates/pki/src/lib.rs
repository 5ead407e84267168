//! SPIFFE ids, certificates, CSRs, the signing authority, bundles, rotation schedule.
//! No IO and no clock: time, randomness of schedules and bytes come from the caller.

pub mod authority;
pub mod bundle;
pub mod certificate;
pub mod csr;
pub mod key;
pub mod pem;
pub mod rotation;
mod signature;
pub mod spiffe;
pub mod tls;
pub mod trust_domain;
pub mod verify;

use std::sync::Arc;

pub use authority::{Authority, AuthorityError};
pub use bundle::TrustBundle;
pub use certificate::Certificate;
pub use key::Key;
pub use spiffe::SpiffeId;
pub use trust_domain::TrustDomain;

/// The one cryptographic provider of the product: aws-lc-rs, post-quantum key exchange first.
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// What is wrong with bytes that claim to be a key, certificate, request or name.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("trust domain {text:?}: {reason}")]
    TrustDomain { text: String, reason: &'static str },
    #[error("SPIFFE id {text:?}: {reason}")]
    SpiffeId { text: String, reason: &'static str },
    #[error("PEM: {0}")]
    Pem(String),
    #[error("private key: {0}")]
    Key(String),
    #[error("certificate: {0}")]
    Certificate(String),
    #[error("certificate request: {0}")]
    Request(String),
    #[error("TLS configuration: {0}")]
    Tls(String),
}
