//! A workload: one pod or one WorkloadEntry, with what proxies and policies ask about it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use super::{Health, Labels, Locality};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadKey {
    pub namespace: String,
    pub name: String,
}

impl WorkloadKey {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    pub key: WorkloadKey,
    pub addresses: Vec<IpAddr>,
    pub labels: Labels,
    pub annotations: Labels,
    pub service_account: String,
    /// Named container ports.
    pub ports: BTreeMap<String, u16>,
    /// Deployment (or the pod itself): the name in telemetry.
    pub workload_name: String,
    pub hostname: Option<String>,
    pub subdomain: Option<String>,
    pub locality: Locality,
    pub network: String,
    pub node: String,
    pub health: Health,
    /// Unix seconds.
    pub created: Option<i64>,
}

impl Workload {
    pub fn new(key: WorkloadKey, addresses: Vec<IpAddr>) -> Self {
        Self {
            workload_name: key.name.clone(),
            key,
            addresses,
            labels: Labels::new(),
            annotations: Labels::new(),
            service_account: "default".to_owned(),
            ports: BTreeMap::new(),
            hostname: None,
            subdomain: None,
            locality: Locality::default(),
            network: String::new(),
            node: String::new(),
            health: Health::Healthy,
            created: None,
        }
    }
}
