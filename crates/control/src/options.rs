//! The settings of a control plane, plain enough to be filled from a command line.

use std::net::SocketAddr;
use std::path::PathBuf;

/// What `stolos control` takes.
#[derive(Debug, Clone)]
pub struct Options {
    /// Holds the authority, the applied objects and the published root.
    pub state_dir: PathBuf,
    /// A directory of YAML or JSON that is watched; its objects win over applied ones.
    pub config_dir: Option<PathBuf>,
    /// The registry file of the local platform, watched.
    pub registry: Option<PathBuf>,
    /// A MeshConfig, watched.
    pub mesh_config: Option<PathBuf>,
    /// TLS: discovery and certificates. Port 0 takes a free one.
    pub xds_address: SocketAddr,
    /// Plain HTTP: metrics, readiness, debug (from this machine).
    pub monitoring_address: SocketAddr,
    /// The HTTP API of `stolos apply` and its kin.
    pub admin_socket: PathBuf,
    /// A plugged-in authority: signing certificate and what leads to its root.
    pub ca_cert: Option<PathBuf>,
    /// The plugged-in authority's key.
    pub ca_key: Option<PathBuf>,
    /// Its roots; the last certificate of `ca_cert` where not given.
    pub root_cert: Option<PathBuf>,
    /// Names and addresses under which proxies reach this server, for its certificate.
    pub discovery_names: Vec<String>,
    /// What the platform's service names end with.
    pub domain: String,
    /// Discovery connections at once.
    pub max_connections: usize,
}

impl Options {
    /// Istio's defaults, all state and the admin socket below one directory.
    pub fn new(state_dir: impl Into<PathBuf>) -> Options {
        let state_dir = state_dir.into();
        Options {
            admin_socket: state_dir.join("control.sock"),
            state_dir,
            config_dir: None,
            registry: None,
            mesh_config: None,
            xds_address: SocketAddr::from(([127, 0, 0, 1], 15012)),
            monitoring_address: SocketAddr::from(([127, 0, 0, 1], 15014)),
            ca_cert: None,
            ca_key: None,
            root_cert: None,
            discovery_names: vec!["istiod.istio-system.svc".to_owned()],
            domain: "cluster.local".to_owned(),
            max_connections: 10_000,
        }
    }
}

/// Why the control plane cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A file or socket of ours.
    #[error("{what}: {source}")]
    Io {
        /// The path or address.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The store of applied objects.
    #[error("{0}")]
    Store(#[from] crate::store::objects::StoreError),
    /// A certificate or key.
    #[error("certificate authority: {0}")]
    Authority(String),
    /// The mesh configuration at the start; later a bad one is only reported.
    #[error("mesh configuration: {0}")]
    MeshConfig(String),
    /// The task that owns the state ended by itself.
    #[error("the pipeline failed: {0}")]
    Pipeline(String),
}

impl ControlError {
    pub(crate) fn io(what: impl ToString) -> impl FnOnce(std::io::Error) -> ControlError {
        let what = what.to_string();
        move |source| ControlError::Io { what, source }
    }
}
