//! Keys of cached fragments. A key holds every input of its translation, by revision or by the
//! small projection of the asking proxy that matters; what is not in the key cannot be read.

use std::net::IpAddr;

use crate::model::{Labels, Locality, ServiceKey};
use crate::snapshot::MtlsMode;
use crate::state::Revision;
use crate::translate::route::Selection;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FragmentKey {
    Cluster(Box<ClusterKey>),
    Endpoints(Box<EndpointsKey>),
    VirtualHost(Box<VirtualHostKey>),
    InboundChain(Box<InboundChainKey>),
}

/// What of a proxy shapes clusters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientKey {
    pub router: bool,
    pub ipv4: bool,
    pub ipv6: bool,
    pub alpn: bool,
    pub metadata_exchange: bool,
}

/// One outbound cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClusterKey {
    pub service: ServiceKey,
    pub service_revision: Revision,
    pub port: u16,
    pub subset: String,
    pub rule: Option<Revision>,
    pub mesh: Revision,
    /// Accepted identities, sorted.
    pub identities: std::sync::Arc<std::collections::BTreeSet<String>>,
    /// Endpoints that stand inside the cluster (DNS), and from where they are seen.
    pub inline: Option<EndpointsKey>,
    /// The service's mode as far as clients may assume it.
    pub mtls: MtlsMode,
    /// Under its SNI name, for a gateway that passes mutual TLS through.
    pub sni_dnat: bool,
    pub client: ClientKey,
}

/// The endpoints of one port and subset as one place sees them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointsKey {
    pub cluster: String,
    pub service: ServiceKey,
    pub service_revision: Revision,
    /// Revision of the endpoint set.
    pub endpoints: u64,
    pub rule: Option<Revision>,
    pub mesh: Revision,
    pub locality: Locality,
    pub network: String,
    /// Only filled where failover priorities compare labels.
    pub labels: Labels,
    pub ipv4: bool,
    pub ipv6: bool,
    /// Mutual TLS policies that concern the endpoints.
    pub peers: Revision,
}

/// A service that a route names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DestinationKey {
    pub hostname: String,
    pub service: Option<Revision>,
    pub rule: Option<Revision>,
}

/// One virtual host of one route table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VirtualHostKey {
    pub name: String,
    pub domains: Vec<String>,
    pub port: u16,
    /// Virtual services in order, each with the routes and matches that apply to the proxy.
    pub rules: Vec<(Revision, Selection)>,
    pub destinations: Vec<DestinationKey>,
    pub mesh: Revision,
    pub gateway: bool,
    pub require_tls: bool,
    /// The server terminates TLS: redirects elide port 443.
    pub tls: bool,
}

/// The filter chains of one inbound port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InboundChainKey {
    pub port: u16,
    pub name: String,
    pub cluster: String,
    pub stat_name: String,
    pub service_port: u16,
    pub decorator: String,
    pub protocol: crate::model::Protocol,
    pub mtls: MtlsMode,
    pub policies: Vec<Revision>,
    pub sidecar: Option<Revision>,
    pub mesh: Revision,
    pub capabilities: crate::model::Capabilities,
    pub bind: Option<IpAddr>,
    pub http10: bool,
    pub idle_timeout_ms: Option<u64>,
}
