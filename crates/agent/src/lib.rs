//! Bootstrap, identity, SDS, xDS relay, DNS, capture, probes; runs our proxy or a real Envoy.
//! The same unix sockets serve both, so that either takes the other's place.

pub mod app_probes;
pub mod bootstrap;
pub mod ca_client;
pub mod capture;
pub mod control_plane;
pub mod dns;
mod engine;
mod envoy_process;
mod http_client;
pub mod identity;
pub mod metrics_merge;
pub mod options;
pub mod run;
pub mod sds;
pub mod status_server;
pub mod wait;
pub mod xds_relay;

pub use options::{Engine, Options, Role};
pub use run::run;

/// Why an agent cannot start or go on; says whose mistake it is.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("{name}: {reason}")]
    Setting { name: String, reason: String },
    #[error("not supported: {0}")]
    NotSupported(String),
    #[error("{what}: {source}")]
    Io {
        what: String,
        source: std::io::Error,
    },
    #[error(transparent)]
    Pki(#[from] pki::PkiError),
    #[error("the proxy: {0}")]
    Proxy(String),
}

impl AgentError {
    pub(crate) fn setting(name: &str, reason: impl Into<String>) -> AgentError {
        AgentError::Setting {
            name: name.to_string(),
            reason: reason.into(),
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> AgentError {
        let what = what.into();
        move |source| AgentError::Io { what, source }
    }
}
