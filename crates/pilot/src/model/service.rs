//! A service: a host name with ports, found by a registry or written as a ServiceEntry.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Labels, Port};

/// Identity of a service: one host name may exist in several namespaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    pub hostname: String,
    pub namespace: String,
}

impl ServiceKey {
    pub fn new(hostname: impl Into<String>, namespace: impl Into<String>) -> Self {
        Self {
            hostname: hostname.into(),
            namespace: namespace.into(),
        }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.hostname)
    }
}

/// Who knows the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Registry {
    Kubernetes,
    /// ServiceEntry, Consul, Nomad …
    External,
}

/// How a client finds the endpoints (istio.md 6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resolution {
    /// Endpoints are sent to the client (EDS).
    ClientSide,
    /// All addresses that DNS answers.
    Dns,
    /// One address at a time that DNS answers.
    DnsRoundRobin,
    /// The address the application asked for (headless, resolution NONE).
    Passthrough,
    /// Another name for `external_name`.
    Alias,
}

/// One service with its ports.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    pub key: ServiceKey,
    /// The object's name: what telemetry shows and Kubernetes' short names use.
    pub name: String,
    pub registry: Registry,
    pub ports: Vec<Port>,
    pub resolution: Resolution,
    /// Virtual addresses; several single addresses or ranges.
    pub addresses: Vec<IpNet>,
    /// The address given by Stolos when none was written (DNS answers, listeners).
    pub auto_address: Option<IpAddr>,
    /// Outside the mesh: no mutual TLS by itself.
    pub external: bool,
    /// Empty: the mesh's default; else `*`, `.`, `~` or namespaces.
    pub export_to: Vec<String>,
    pub labels: Labels,
    /// Workloads of the same namespace that serve it; empty means none by selector.
    pub selector: Labels,
    /// Identities that clients accept beside those of the endpoints.
    pub subject_alt_names: Vec<String>,
    pub external_name: Option<String>,
    pub publish_not_ready: bool,
    /// Unix seconds; the older one wins conflicts.
    pub created: Option<i64>,
    /// The ServiceEntry it came from, `kind/namespace/name` for statuses.
    pub origin: Option<mesh_api::ObjectKey>,
}

impl Service {
    /// A service with nothing but its identity; callers fill in what they know.
    pub fn new(key: ServiceKey, registry: Registry, resolution: Resolution) -> Self {
        Self {
            name: key.hostname.clone(),
            key,
            registry,
            ports: Vec::new(),
            resolution,
            addresses: Vec::new(),
            auto_address: None,
            external: false,
            export_to: Vec::new(),
            labels: Labels::new(),
            selector: Labels::new(),
            subject_alt_names: Vec::new(),
            external_name: None,
            publish_not_ready: false,
            created: None,
            origin: None,
        }
    }

    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number)
    }

    pub fn port_named(&self, name: &str) -> Option<&Port> {
        self.ports.iter().find(|port| port.name == name)
    }

    /// A Kubernetes service without a virtual address.
    pub fn is_headless(&self) -> bool {
        self.registry == Registry::Kubernetes && self.resolution == Resolution::Passthrough
    }

    /// The single virtual addresses and ranges on which clients reach it, written or given.
    pub fn virtual_addresses(&self) -> Vec<IpNet> {
        if self.addresses.is_empty() {
            return self.auto_address.map(IpNet::from).into_iter().collect();
        }
        self.addresses.clone()
    }
}
