//! The proxy that asks: who it is, where it stands and what it announces to understand.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use envoy_api::core::Node;
use pki::SpiffeId;
use prost_types::{Struct, value::Kind as ValueKind};

use super::{Labels, Locality, Workload, WorkloadKey};
use crate::Snapshot;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Sidecar,
    Router,
}

/// How the pod's traffic reaches the proxy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Interception {
    #[default]
    Redirect,
    Tproxy,
    None,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NodeError {
    #[error("missing node information")]
    Missing,
    #[error("node id `{0}` is not TYPE~IP~NAME.NAMESPACE~DOMAIN")]
    Id(String),
    #[error("node type `{0}` is not supported (allowed: sidecar, router)")]
    Type(String),
    #[error("node `{0}` has no valid IP address")]
    Address(String),
    #[error("identity {identity} may not speak for {claimed}")]
    Identity { identity: String, claimed: String },
}

/// What the node announced; pilot emits nothing that is not in here.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capabilities {
    /// `istio.metadata_exchange` as HTTP and network filter.
    pub metadata_exchange: bool,
    pub alpn: bool,
    pub stats: bool,
    /// Virtual hosts one by one (discovery.md 6).
    pub vhds: bool,
    /// Everything the node listed; empty when it listed nothing.
    extensions: Arc<BTreeSet<String>>,
}

impl Capabilities {
    /// Reads the announced extensions and client features.
    pub fn from_node(node: &Node) -> Self {
        let extensions: BTreeSet<String> = node
            .extensions
            .iter()
            .map(|extension| extension.name.clone())
            .collect();
        let any = |names: &[&str]| names.iter().any(|name| extensions.contains(*name));
        Self {
            metadata_exchange: any(&["istio.metadata_exchange"]),
            alpn: any(&["istio.alpn"]),
            stats: any(&["istio.stats"]),
            vhds: node
                .client_features
                .iter()
                .any(|feature| feature == "stolos.vhds"),
            extensions: Arc::new(extensions),
        }
    }

    /// Whether one of Envoy's own extensions may be used. A node that lists nothing at all
    /// (tests, hand-written clients) is taken for a full Envoy.
    pub fn has(&self, extension: &str) -> bool {
        self.extensions.is_empty() || self.extensions.contains(extension)
    }
}

/// Everything about one proxy that translation may look at.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyView {
    pub id: String,
    pub role: Role,
    pub namespace: String,
    pub name: String,
    /// The deployment, as telemetry shows it.
    pub workload_name: String,
    pub addresses: Vec<IpAddr>,
    pub labels: Labels,
    pub service_account: String,
    pub dns_domain: String,
    pub locality: Locality,
    pub network: String,
    pub cluster: String,
    pub interception: Interception,
    pub http10: bool,
    /// May not bind ports below 1024.
    pub unprivileged: bool,
    pub idle_timeout_ms: Option<u64>,
    pub capabilities: Capabilities,
    /// The registry's record of the same workload, when it is known.
    pub workload: Option<Arc<Workload>>,
}

impl ProxyView {
    /// Builds the view of a connected node. With an identity, the claimed namespace and service
    /// account must be its own.
    pub fn from_node(
        node: &Node,
        identity: Option<&SpiffeId>,
        snapshot: &Snapshot,
    ) -> Result<Self, NodeError> {
        if node.id.is_empty() {
            return Err(NodeError::Missing);
        }
        let parts: Vec<&str> = node.id.split('~').collect();
        let &[kind, address, full_name, dns_domain] = parts.as_slice() else {
            return Err(NodeError::Id(node.id.clone()));
        };
        let role = match kind {
            "sidecar" => Role::Sidecar,
            "router" => Role::Router,
            other => return Err(NodeError::Type(other.to_owned())),
        };
        let metadata = Metadata(node.metadata.as_ref());
        let (name, id_namespace) = full_name.split_once('.').unwrap_or((full_name, ""));
        let namespace = metadata
            .text("NAMESPACE")
            .unwrap_or_else(|| id_namespace.to_owned());
        let addresses = addresses(metadata.text("INSTANCE_IPS").as_deref(), address);
        if addresses.is_empty() {
            return Err(NodeError::Address(node.id.clone()));
        }
        let claimed = metadata.text("SERVICE_ACCOUNT");
        check_identity(identity, &namespace, claimed.as_deref())?;
        let workload = snapshot.workload(&WorkloadKey::new(&namespace, name), &addresses);
        let labels = match &workload {
            Some(workload) => workload.labels.clone(),
            None => metadata.labels("LABELS"),
        };
        let service_account = claimed
            .or_else(|| identity.map(|identity| identity.service_account().to_owned()))
            .unwrap_or_default();
        let workload_name = metadata
            .text("WORKLOAD_NAME")
            .or_else(|| {
                workload
                    .as_ref()
                    .map(|workload| workload.workload_name.clone())
            })
            .unwrap_or_else(|| name.to_owned());
        let locality = locality(node, workload.as_deref());
        Ok(Self {
            id: node.id.clone(),
            role,
            name: name.to_owned(),
            workload_name,
            namespace,
            addresses,
            labels,
            service_account,
            dns_domain: dns_domain.to_owned(),
            locality,
            network: metadata.text("NETWORK").unwrap_or_default(),
            cluster: metadata.text("CLUSTER_ID").unwrap_or_default(),
            interception: interception(metadata.text("INTERCEPTION_MODE").as_deref()),
            http10: metadata.text("HTTP10").is_some_and(|value| value == "1"),
            unprivileged: metadata
                .text("UNPRIVILEGED_POD")
                .is_some_and(|value| value == "true"),
            idle_timeout_ms: metadata
                .text("IDLE_TIMEOUT")
                .and_then(|text| duration_ms(&text)),
            capabilities: Capabilities::from_node(node),
            workload,
        })
    }

    pub fn is_router(&self) -> bool {
        self.role == Role::Router
    }

    /// `svc.cluster.local` for `ns.svc.cluster.local`: what service names end with.
    pub fn service_domain(&self) -> &str {
        self.dns_domain.split_once('.').map_or("", |(_, rest)| rest)
    }

    pub fn supports_ipv4(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv4)
    }

    pub fn supports_ipv6(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv6)
    }

    /// The wildcard address that listeners bind.
    pub fn wildcard(&self) -> &'static str {
        if self.supports_ipv4() {
            "0.0.0.0"
        } else {
            "::"
        }
    }

    /// The loopback address of the application.
    pub fn loopback(&self) -> &'static str {
        if self.supports_ipv4() {
            "127.0.0.1"
        } else {
            "::1"
        }
    }
}

fn interception(mode: Option<&str>) -> Interception {
    match mode {
        Some("TPROXY") => Interception::Tproxy,
        Some("NONE") => Interception::None,
        _ => Interception::Redirect,
    }
}

fn check_identity(
    identity: Option<&SpiffeId>,
    namespace: &str,
    service_account: Option<&str>,
) -> Result<(), NodeError> {
    let Some(identity) = identity else {
        return Ok(());
    };
    let same = identity.namespace() == namespace
        && service_account.is_none_or(|account| account == identity.service_account());
    if same {
        return Ok(());
    }
    let claimed = format!("{namespace}/{}", service_account.unwrap_or("*"));
    Err(NodeError::Identity {
        identity: identity.to_string(),
        claimed,
    })
}

fn addresses(instance: Option<&str>, id: &str) -> Vec<IpAddr> {
    let parse = |text: &str| text.trim().parse::<IpAddr>().ok();
    let listed: Vec<IpAddr> = instance
        .unwrap_or_default()
        .split(',')
        .filter_map(parse)
        .collect();
    if listed.is_empty() {
        parse(id).into_iter().collect()
    } else {
        listed
    }
}

fn locality(node: &Node, workload: Option<&Workload>) -> Locality {
    match (&node.locality, workload) {
        (Some(locality), _) if !locality.region.is_empty() => Locality {
            region: locality.region.clone(),
            zone: locality.zone.clone(),
            subzone: locality.sub_zone.clone(),
        },
        (_, Some(workload)) => workload.locality.clone(),
        _ => Locality::default(),
    }
}

/// Go's duration text as far as agents write it: `10s`, `500ms`, `1h`, `5m`.
fn duration_ms(text: &str) -> Option<u64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(number),
        "s" => Some(number * 1000),
        "m" => Some(number * 60_000),
        "h" => Some(number * 3_600_000),
        _ => None,
    }
}

/// Node metadata, read by key.
struct Metadata<'a>(Option<&'a Struct>);

impl Metadata<'_> {
    fn text(&self, key: &str) -> Option<String> {
        match self.0?.fields.get(key)?.kind.as_ref()? {
            ValueKind::StringValue(text) if !text.is_empty() => Some(text.clone()),
            ValueKind::BoolValue(value) => Some(value.to_string()),
            _ => None,
        }
    }

    fn labels(&self, key: &str) -> Labels {
        let Some(fields) = self.0 else {
            return Labels::new();
        };
        let Some(ValueKind::StructValue(labels)) =
            fields.fields.get(key).and_then(|value| value.kind.as_ref())
        else {
            return Labels::new();
        };
        let pair = |(key, value): (&String, &prost_types::Value)| match &value.kind {
            Some(ValueKind::StringValue(text)) => Some((key.clone(), text.clone())),
            _ => None,
        };
        labels.fields.iter().filter_map(pair).collect()
    }
}
