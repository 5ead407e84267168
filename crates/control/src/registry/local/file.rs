//! The shape of the registry file. The local platform writes it with these types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// All that the platform runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RegistryFile {
    /// Kubernetes' Service objects; `spec.clusterIP` is an address or `None`.
    pub services: Vec<serde_json::Value>,
    /// The pods, ready or not.
    pub pods: Vec<PodEntry>,
    /// The namespaces with their labels.
    pub namespaces: Vec<NamespaceEntry>,
}

/// One pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PodEntry {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Empty until it has one.
    pub ip: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub service_account: String,
    pub ready: bool,
    pub terminating: bool,
    /// The Deployment, or the pod itself: the name in telemetry.
    pub workload_name: String,
    pub hostname: String,
    pub subdomain: String,
    pub ports: Vec<ContainerPort>,
    /// SHA-256 of the pod's token, hexadecimal: the token itself is only in the pod.
    #[serde(rename = "tokenSha256")]
    pub token_sha256: String,
    /// RFC 3339, or empty.
    pub created_at: String,
}

/// A container port with a name that services may target.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ContainerPort {
    pub name: String,
    pub container_port: u16,
}

/// A namespace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NamespaceEntry {
    pub name: String,
    pub labels: BTreeMap<String, String>,
}

impl RegistryFile {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Result<RegistryFile, serde_json::Error> {
        serde_json::from_str(text)
    }
}
