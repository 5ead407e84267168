//! The traffic policy in force for one cluster: a rule's top level, port level and subset, over
//! the mesh's defaults (istio.md 1.4).

use mesh_api::kinds::connection_pool::ConnectionPoolSettings;
use mesh_api::kinds::destination_rule::{DestinationRule, Subset};
use mesh_api::kinds::load_balancer::LoadBalancerSettings;
use mesh_api::kinds::outlier_detection::OutlierDetection;
use mesh_api::kinds::tls_settings::ClientTlsSettings;
use mesh_api::kinds::traffic_policy::{ProxyProtocol, RetryBudget, TrafficPolicy, TunnelSettings};
use mesh_api::mesh_config::MeshConfig;

/// The parts that shape a cluster, each from the level that decides it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Policy {
    pub load_balancer: Option<LoadBalancerSettings>,
    pub connection_pool: Option<ConnectionPoolSettings>,
    pub outlier_detection: Option<OutlierDetection>,
    pub tls: Option<ClientTlsSettings>,
    pub tunnel: Option<TunnelSettings>,
    pub proxy_protocol: Option<ProxyProtocol>,
    pub retry_budget: Option<RetryBudget>,
}

impl Policy {
    /// The policy of `port` (service port) and `subset` under `rule`.
    pub fn resolve(
        rule: Option<&DestinationRule>,
        subset: Option<&Subset>,
        port: u16,
        mesh: &MeshConfig,
    ) -> Self {
        let top = rule.and_then(|rule| rule.traffic_policy.as_ref());
        let mut policy = top
            .map(|policy| Self::at_port(policy, port))
            .unwrap_or_default();
        if let Some(more) = subset.and_then(|subset| subset.traffic_policy.as_ref()) {
            policy.override_with(Self::at_port(more, port));
        }
        if let Some(defaults) = &mesh.default_traffic_policy {
            policy.connection_pool = policy
                .connection_pool
                .or_else(|| defaults.connection_pool.clone());
            policy.outlier_detection = policy
                .outlier_detection
                .or_else(|| defaults.outlier_detection.clone());
        }
        policy
    }

    /// A port's settings replace the four of the top level wholesale.
    fn at_port(policy: &TrafficPolicy, port: u16) -> Self {
        let own = policy.port_level_settings.iter().find(|settings| {
            settings
                .port
                .as_ref()
                .is_some_and(|selector| selector.number == u32::from(port))
        });
        let mut resolved = Self {
            load_balancer: policy.load_balancer.clone(),
            connection_pool: policy.connection_pool.clone(),
            outlier_detection: policy.outlier_detection.clone(),
            tls: policy.tls.clone(),
            tunnel: policy.tunnel.clone(),
            proxy_protocol: policy.proxy_protocol.clone(),
            retry_budget: policy.retry_budget.clone(),
        };
        if let Some(own) = own {
            resolved.load_balancer.clone_from(&own.load_balancer);
            resolved.connection_pool.clone_from(&own.connection_pool);
            resolved
                .outlier_detection
                .clone_from(&own.outlier_detection);
            resolved.tls.clone_from(&own.tls);
        }
        resolved
    }

    fn override_with(&mut self, more: Self) {
        fn take<T>(own: &mut Option<T>, more: Option<T>) {
            if more.is_some() {
                *own = more;
            }
        }
        take(&mut self.load_balancer, more.load_balancer);
        take(&mut self.connection_pool, more.connection_pool);
        take(&mut self.outlier_detection, more.outlier_detection);
        take(&mut self.tls, more.tls);
        take(&mut self.tunnel, more.tunnel);
        take(&mut self.proxy_protocol, more.proxy_protocol);
        take(&mut self.retry_budget, more.retry_budget);
    }
}
