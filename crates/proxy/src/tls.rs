//! TLS: rustls configurations from Envoy's contexts and secrets, handshakes, what a peer showed.
mod build;
pub mod client;
mod peer;
pub mod server;
mod verify;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use client::ClientContext;
pub use server::ServerContext;

use crate::parse::tls::{SdsSource, Secret};

/// Why a context cannot be built; the text goes into a NACK or a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A secret that the context names has not arrived: not an error of the context.
    #[error("secret '{0}' has not arrived")]
    Missing(Arc<str>),
    #[error("{0}")]
    Invalid(String),
}

/// The secrets at hand, by name. Names are unique over sources, as the agent serves them.
#[derive(Clone, Debug, Default)]
pub struct Secrets(BTreeMap<Arc<str>, Arc<Secret>>);

impl Secrets {
    pub fn insert(&mut self, secret: Arc<Secret>) {
        self.0.insert(secret.name.clone(), secret);
    }

    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub fn get(&self, source: &SdsSource) -> Result<&Arc<Secret>, TlsError> {
        self.0
            .get(&source.name)
            .ok_or_else(|| TlsError::Missing(source.name.clone()))
    }

    pub fn by_name(&self, name: &str) -> Option<&Arc<Secret>> {
        self.0.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Secret>> {
        self.0.values()
    }
}
