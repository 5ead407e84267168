//! Load balancing policy of a cluster, and the hash policies that consistent hashing needs on
//! the routes to it.

use envoy_api::cluster::Cluster;
use envoy_api::cluster::cluster::{
    CommonLbConfig, LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig,
    RoundRobinLbConfig, SlowStartConfig, common_lb_config,
};
use envoy_api::core::RuntimeDouble;
use envoy_api::route::route_action::{HashPolicy, hash_policy};
use envoy_api::types::Percent;
use mesh_api::kinds::load_balancer::{
    ConsistentHashLb, HashAlgorithm, HashKey, LbPolicy as Written, LoadBalancerSettings,
    LocalityLbSetting, SimpleLb,
};
use mesh_api::mesh_config::MeshConfig;

use super::message::duration;

const DEFAULT_RING: u64 = 1024;

/// Writes the balancer; the cluster type is known already.
pub fn apply(cluster: &mut Cluster, settings: Option<&LoadBalancerSettings>) {
    let slow_start = settings.and_then(slow_start);
    let policy = settings.and_then(|settings| settings.lb_policy.as_ref());
    let simple = match policy {
        Some(Written::ConsistentHash(hash)) => return consistent(cluster, hash),
        Some(Written::Simple(simple)) => *simple,
        Some(Written::BackendUtilization(_)) | None => SimpleLb::Unspecified,
    };
    match simple {
        SimpleLb::Random => cluster.lb_policy = LbPolicy::Random as i32,
        SimpleLb::Passthrough => cluster.lb_policy = LbPolicy::ClusterProvided as i32,
        SimpleLb::RoundRobin => {
            cluster.lb_policy = LbPolicy::RoundRobin as i32;
            if slow_start.is_some() {
                let config = RoundRobinLbConfig {
                    slow_start_config: slow_start,
                };
                cluster.lb_config = Some(LbConfig::RoundRobinLbConfig(config));
            }
        }
        SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest => {
            cluster.lb_policy = LbPolicy::LeastRequest as i32;
            if slow_start.is_some() {
                let config = LeastRequestLbConfig {
                    slow_start_config: slow_start,
                    ..Default::default()
                };
                cluster.lb_config = Some(LbConfig::LeastRequestLbConfig(config));
            }
        }
    }
}

/// Whether the rule asks for the address the application dialled.
pub fn is_passthrough(settings: Option<&LoadBalancerSettings>) -> bool {
    let policy = settings.and_then(|settings| settings.lb_policy.as_ref());
    matches!(policy, Some(Written::Simple(SimpleLb::Passthrough)))
}

fn slow_start(settings: &LoadBalancerSettings) -> Option<SlowStartConfig> {
    if let Some(warmup) = &settings.warmup {
        return Some(SlowStartConfig {
            slow_start_window: warmup.duration.map(duration),
            aggression: warmup.aggression.map(|value| RuntimeDouble {
                default_value: value,
                runtime_key: String::new(),
            }),
            min_weight_percent: warmup.minimum_percent.map(|value| Percent { value }),
        });
    }
    settings.warmup_duration_secs.map(|window| SlowStartConfig {
        slow_start_window: Some(duration(window)),
        ..Default::default()
    })
}

fn consistent(cluster: &mut Cluster, hash: &ConsistentHashLb) {
    if let Some(HashAlgorithm::Maglev(maglev)) = &hash.hash_algorithm {
        cluster.lb_policy = LbPolicy::Maglev as i32;
        let table_size = (maglev.table_size > 0).then_some(maglev.table_size);
        cluster.lb_config = Some(LbConfig::MaglevLbConfig(MaglevLbConfig { table_size }));
        return;
    }
    let written = match &hash.hash_algorithm {
        Some(HashAlgorithm::RingHash(ring)) => ring.minimum_ring_size,
        _ => hash.minimum_ring_size,
    };
    let size = if written > 0 { written } else { DEFAULT_RING };
    cluster.lb_policy = LbPolicy::RingHash as i32;
    cluster.lb_config = Some(LbConfig::RingHashLbConfig(RingHashLbConfig {
        minimum_ring_size: Some(size),
        ..Default::default()
    }));
}

/// What a route must hash for a cluster with consistent hashing.
pub fn hash_policy(settings: Option<&LoadBalancerSettings>) -> Option<HashPolicy> {
    let Some(Written::ConsistentHash(hash)) = settings?.lb_policy.as_ref() else {
        return None;
    };
    let specifier =
        match hash.hash_key.as_ref()? {
            HashKey::HttpHeaderName(name) => {
                hash_policy::PolicySpecifier::Header(hash_policy::Header {
                    header_name: name.clone(),
                    ..Default::default()
                })
            }
            HashKey::HttpCookie(cookie) => {
                let attributes =
                    cookie
                        .attributes
                        .iter()
                        .map(|attribute| hash_policy::CookieAttribute {
                            name: attribute.name.clone(),
                            value: attribute.value.clone(),
                        });
                hash_policy::PolicySpecifier::Cookie(hash_policy::Cookie {
                    name: cookie.name.clone(),
                    ttl: cookie.ttl.map(duration),
                    path: cookie.path.clone(),
                    attributes: attributes.collect(),
                })
            }
            HashKey::UseSourceIp(true) => hash_policy::PolicySpecifier::ConnectionProperties(
                hash_policy::ConnectionProperties { source_ip: true },
            ),
            HashKey::UseSourceIp(false) => return None,
            HashKey::HttpQueryParameterName(name) => {
                hash_policy::PolicySpecifier::QueryParameter(hash_policy::QueryParameter {
                    name: name.clone(),
                })
            }
        };
    Some(HashPolicy {
        policy_specifier: Some(specifier),
        ..Default::default()
    })
}

/// The locality settings in force, unless they are switched off.
pub fn locality<'a>(
    settings: Option<&'a LoadBalancerSettings>,
    mesh: &'a MeshConfig,
) -> Option<&'a LocalityLbSetting> {
    let own = settings.and_then(|settings| settings.locality_lb_setting.as_ref());
    let chosen = own.or(mesh.locality_lb_setting.as_ref())?;
    let enabled = chosen.enabled.unwrap_or(true);
    enabled.then_some(chosen)
}

/// Weights of localities count where a rule distributes or fails over between them.
pub fn apply_locality(cluster: &mut Cluster, setting: Option<&LocalityLbSetting>, outlier: bool) {
    let Some(setting) = setting else { return };
    let fails_over = !setting.failover.is_empty() || !setting.failover_priority.is_empty();
    if setting.distribute.is_empty() && !(fails_over && outlier) {
        return;
    }
    let common = cluster
        .common_lb_config
        .get_or_insert_with(CommonLbConfig::default);
    common.locality_config_specifier = Some(
        common_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(
            common_lb_config::LocalityWeightedLbConfig {},
        ),
    );
}
