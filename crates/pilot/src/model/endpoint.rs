//! An endpoint: one address and port behind one service port.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Labels, Locality};

/// Where an endpoint listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointAddress {
    Ip(IpAddr),
    /// A name to resolve; only services resolved by DNS have such endpoints.
    Hostname(String),
    /// A unix socket's path.
    Pipe(String),
}

impl EndpointAddress {
    /// Reads what a WorkloadEntry may write.
    pub fn parse(text: &str) -> Self {
        if let Some(path) = text.strip_prefix("unix://") {
            return Self::Pipe(path.to_owned());
        }
        text.parse()
            .map_or_else(|_| Self::Hostname(text.to_owned()), Self::Ip)
    }
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Hostname(name) => f.write_str(name),
            Self::Pipe(path) => write!(f, "unix://{path}"),
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    #[default]
    Healthy,
    Unhealthy,
    Draining,
    /// Never sent.
    Terminating,
}

/// Whether a sidecar in front of the endpoint takes mutual TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsMode {
    #[default]
    Disabled,
    Istio,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    pub address: EndpointAddress,
    pub port: u16,
    /// Name of the service port it serves.
    pub service_port: String,
    pub labels: Arc<Labels>,
    pub locality: Locality,
    pub network: String,
    pub weight: u32,
    /// SPIFFE id, or empty.
    pub identity: String,
    pub tls_mode: TlsMode,
    pub workload: String,
    pub namespace: String,
    pub hostname: Option<String>,
    pub subdomain: Option<String>,
    pub node: String,
    pub health: Health,
}

impl Endpoint {
    pub fn new(address: EndpointAddress, port: u16, service_port: impl Into<String>) -> Self {
        Self {
            address,
            port,
            service_port: service_port.into(),
            labels: Arc::new(Labels::new()),
            locality: Locality::default(),
            network: String::new(),
            weight: 1,
            identity: String::new(),
            tls_mode: TlsMode::Disabled,
            workload: String::new(),
            namespace: String::new(),
            hostname: None,
            subdomain: None,
            node: String::new(),
            health: Health::Healthy,
        }
    }
}
