//! ClusterLoadAssignment.

use std::sync::Arc;

use envoy_api::endpoint::{cluster_load_assignment, lb_endpoint, locality_lb_endpoints};
use envoy_api::{core, endpoint};

use super::address::Address;
use super::compat::Message as _;
use super::{ConfigError, Context};
use crate::cluster::shared::{HostHealth, Locality};

/// A cluster's endpoints as configured; addresses may still be names.
#[derive(Debug, Clone, Default)]
pub struct LoadAssignment {
    pub cluster_name: Arc<str>,
    pub localities: Vec<LocalityEndpoints>,
    /// Percent; 140 unless set.
    pub overprovisioning_factor: u32,
}

#[derive(Debug, Clone)]
pub struct LocalityEndpoints {
    pub locality: Arc<Locality>,
    pub priority: u32,
    /// 0 where it was not given.
    pub weight: u32,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone)]
pub struct Endpoint {
    pub address: Address,
    pub hostname: Arc<str>,
    pub weight: u32,
    pub health: HostHealth,
    pub metadata: Option<Arc<core::Metadata>>,
}

fields! {
    endpoint::ClusterLoadAssignment {
        read: cluster_name, endpoints, policy;
        reject: named_endpoints;
    }
    cluster_load_assignment::Policy {
        read: overprovisioning_factor;
        reject: drop_overloads, weighted_priority_health, endpoint_stale_after;
    }
    endpoint::LocalityLbEndpoints {
        read: locality, lb_endpoints, load_balancing_weight, priority, lb_config;
        reject: proximity;
        ignore: metadata = "nothing selects by a locality's metadata";
    }
    endpoint::LbEndpoint {
        read: health_status, metadata, load_balancing_weight, host_identifier;
    }
    endpoint::Endpoint {
        read: address, hostname;
        reject: additional_addresses, observability_name;
        ignore: health_check_config = "health_checks are refused";
    }
    core::Locality { read: region, zone, sub_zone; }
}

/// An endpoint resource.
pub fn load_assignment(
    message: &endpoint::ClusterLoadAssignment,
) -> Result<LoadAssignment, ConfigError> {
    let mut context = Context::new();
    context.non_empty("cluster_name", &message.cluster_name);
    let parsed = parse(&mut context, message);
    context.finish(format!("endpoints '{}'", message.cluster_name), parsed)
}

/// A load assignment inside a cluster or on its own.
pub fn parse(
    context: &mut Context,
    message: &endpoint::ClusterLoadAssignment,
) -> Option<LoadAssignment> {
    message.check(context);
    let mut parsed = LoadAssignment {
        cluster_name: message.cluster_name.as_str().into(),
        overprovisioning_factor: 140,
        ..LoadAssignment::default()
    };
    parsed.localities = context.each("endpoints", &message.endpoints, locality);
    let mut total: u64 = 0;
    for one in &parsed.localities {
        total += u64::from(one.weight);
    }
    if total > u64::from(u32::MAX) {
        context.error_at(
            "endpoints",
            "the sum of locality weights exceeds 4294967295",
        );
    }
    priorities_without_gap(context, &parsed.localities);
    context.optional("policy", message.policy.as_ref(), |context, policy| {
        policy.check(context);
        if let Some(factor) = policy.overprovisioning_factor {
            if factor == 0 {
                context.error_at("overprovisioning_factor", "must be greater than 0");
            }
            parsed.overprovisioning_factor = factor;
        }
        Some(())
    });
    Some(parsed)
}

/// Envoy wants priorities 0..=N each with an entry.
fn priorities_without_gap(context: &mut Context, localities: &[LocalityEndpoints]) {
    let Some(highest) = localities.iter().map(|one| one.priority).max() else {
        return;
    };
    for wanted in 0..=highest.min(128) {
        if !localities.iter().any(|one| one.priority == wanted) {
            context.error_at("endpoints", format!("no endpoints for priority {wanted}"));
            return;
        }
    }
}

fn locality(
    context: &mut Context,
    message: &endpoint::LocalityLbEndpoints,
) -> Option<LocalityEndpoints> {
    use locality_lb_endpoints::LbConfig;
    message.check(context);
    if message.priority > 128 {
        context.error_at("priority", "must be at most 128");
        return None;
    }
    if message.load_balancing_weight == Some(0) {
        context.error_at("load_balancing_weight", "must be at least 1");
    }
    let endpoints = match &message.lb_config {
        None => context.each("lb_endpoints", &message.lb_endpoints, endpoint_of),
        Some(LbConfig::LoadBalancerEndpoints(list)) => context.each(
            "load_balancer_endpoints.lb_endpoints",
            &list.lb_endpoints,
            endpoint_of,
        ),
        Some(LbConfig::LedsClusterLocalityConfig(_)) => {
            context.error_at("leds_cluster_locality_config", "is not supported");
            Vec::new()
        }
    };
    let default = core::Locality::default();
    let given = message.locality.as_ref().unwrap_or(&default);
    let core::Locality {
        region,
        zone,
        sub_zone,
    } = given.clone();
    Some(LocalityEndpoints {
        locality: Arc::new(Locality {
            region,
            zone,
            sub_zone,
        }),
        priority: message.priority,
        weight: message.load_balancing_weight.unwrap_or(0),
        endpoints,
    })
}

fn endpoint_of(context: &mut Context, message: &endpoint::LbEndpoint) -> Option<Endpoint> {
    message.check(context);
    let weight = message.load_balancing_weight.unwrap_or(1);
    if weight == 0 {
        context.error_at("load_balancing_weight", "must be at least 1");
    }
    let health = match context.enumeration("health_status", message.health_status)? {
        core::HealthStatus::Unknown => HostHealth::Unknown,
        core::HealthStatus::Healthy => HostHealth::Healthy,
        core::HealthStatus::Unhealthy => HostHealth::Unhealthy,
        core::HealthStatus::Draining => HostHealth::Draining,
        core::HealthStatus::Timeout => HostHealth::Timeout,
        core::HealthStatus::Degraded => HostHealth::Degraded,
    };
    let inner = match &message.host_identifier {
        Some(lb_endpoint::HostIdentifier::Endpoint(inner)) => inner,
        Some(lb_endpoint::HostIdentifier::EndpointName(_)) => {
            context.error_at("endpoint_name", "is not supported");
            return None;
        }
        None => {
            context.error_at("endpoint", "is required");
            return None;
        }
    };
    context.field("endpoint", |context| {
        inner.check(context);
        let address = context.required("address", inner.address.as_ref(), super::address::parse)?;
        Some(Endpoint {
            address,
            hostname: inner.hostname.as_str().into(),
            weight,
            health,
            metadata: message.metadata.clone().map(Arc::new),
        })
    })
}
