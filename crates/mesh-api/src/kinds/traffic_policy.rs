//! The policy a client applies to a destination: the union of the blocks beside this file.

use std::time::Duration;

use super::connection_pool::ConnectionPoolSettings;
use super::load_balancer::LoadBalancerSettings;
use super::outlier_detection::OutlierDetection;
use super::port::PortSelector;
use super::tls_settings::ClientTlsSettings;

message! {
    pub struct TrafficPolicy {
        load_balancer: Option<LoadBalancerSettings>,
        connection_pool: Option<ConnectionPoolSettings>,
        outlier_detection: Option<OutlierDetection>,
        tls: Option<ClientTlsSettings>,
        port_level_settings: Vec<PortTrafficPolicy>,
        tunnel: Option<TunnelSettings>,
        proxy_protocol: Option<ProxyProtocol>,
        retry_budget: Option<RetryBudget>,
    }
}

message! {
    pub struct PortTrafficPolicy {
        port: Option<PortSelector>,
        load_balancer: Option<LoadBalancerSettings>,
        connection_pool: Option<ConnectionPoolSettings>,
        outlier_detection: Option<OutlierDetection>,
        tls: Option<ClientTlsSettings>,
    }
}

message! {
    pub struct TunnelSettings {
        /// `CONNECT` (also when empty) or `POST`.
        protocol: String,
        target_host: String,
        target_port: u32,
    }
}

message! {
    pub struct ProxyProtocol {
        version: ProxyProtocolVersion,
    }
}

enumeration! {
    pub enum ProxyProtocolVersion { V1 = "V1", V2 = "V2" }
}

message! {
    pub struct RetryBudget {
        /// Unset: 20.
        percent: Option<f64>,
        /// 0: 3.
        min_retry_concurrency: u32,
        budget_interval: Option<Duration>,
    }
}
