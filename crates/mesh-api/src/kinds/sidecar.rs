//! Sidecar: what a workload's proxy listens on and what it can reach.

use super::connection_pool::ConnectionPoolSettings;
use super::destination::Destination;
use super::port::Port;
use super::selector::LabelSelector;
use super::tls_settings::ServerTlsSettings;

message! {
    pub struct Sidecar {
        workload_selector: Option<LabelSelector>,
        ingress: Vec<IstioIngressListener>,
        egress: Vec<IstioEgressListener>,
        outbound_traffic_policy: Option<OutboundTrafficPolicy>,
        inbound_connection_pool: Option<ConnectionPoolSettings>,
    }
}

message! {
    pub struct IstioIngressListener {
        port: Option<Port>,
        bind: String,
        capture_mode: CaptureMode,
        default_endpoint: String,
        tls: Option<ServerTlsSettings>,
        connection_pool: Option<ConnectionPoolSettings>,
    }
}

message! {
    pub struct IstioEgressListener {
        port: Option<Port>,
        bind: String,
        capture_mode: CaptureMode,
        hosts: Vec<String>,
    }
}

enumeration! {
    pub enum CaptureMode { Default = "DEFAULT", Iptables = "IPTABLES", None = "NONE" }
}

message! {
    pub struct OutboundTrafficPolicy {
        mode: OutboundTrafficPolicyMode,
        egress_proxy: Option<Destination>,
    }
}

enumeration! {
    pub enum OutboundTrafficPolicyMode {
        RegistryOnly = "REGISTRY_ONLY",
        AllowAny = "ALLOW_ANY",
    }
}
