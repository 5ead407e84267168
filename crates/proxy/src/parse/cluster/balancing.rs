//! The load balancing policy, from either of Envoy's two places.

use std::time::Duration;

use envoy_api::cluster::{self, cluster as inner};
use envoy_api::envoy::extensions::load_balancing_policies as policies;
use policies::common::v3 as common;

use crate::parse::Context;
use crate::parse::compat::Message as _;

#[derive(Debug, Clone, PartialEq)]
pub struct LoadBalancing {
    pub policy: Policy,
    /// Percent of healthy hosts below which health is ignored; 50 unless set, 0 = never.
    pub panic_threshold: f64,
    pub locality: LocalityMode,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Policy {
    RoundRobin {
        slow_start: Option<SlowStart>,
    },
    LeastRequest {
        choices: u32,
        active_request_bias: f64,
        slow_start: Option<SlowStart>,
    },
    Random,
    RingHash {
        minimum: u64,
        maximum: u64,
        function: HashFunction,
        use_hostname: bool,
        /// Percent of the average load that a host may have; `None` = unbounded.
        balance_factor: Option<u32>,
    },
    Maglev {
        table_size: u64,
        use_hostname: bool,
        balance_factor: Option<u32>,
    },
    /// The cluster knows its host (ORIGINAL_DST).
    ClusterProvided,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashFunction {
    XxHash,
    Murmur2,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SlowStart {
    pub window: Duration,
    pub aggression: f64,
    /// Percent.
    pub min_weight: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LocalityMode {
    /// All hosts of a priority are one pool.
    None,
    /// Localities by weight, then a host in it.
    Weighted,
}

fields! {
    inner::CommonLbConfig {
        read: healthy_panic_threshold, consistent_hashing_lb_config, locality_config_specifier;
        reject: close_connections_on_host_set_change, ignore_new_hosts_until_first_hc,
            override_host_status;
        ignore: update_merge_window = "updates are applied at once";
    }
    inner::common_lb_config::ConsistentHashingLbConfig {
        read: use_hostname_for_hashing, hash_balance_factor;
    }
    inner::SlowStartConfig { read: slow_start_window, aggression, min_weight_percent; }
    inner::RoundRobinLbConfig { read: slow_start_config; }
    inner::LeastRequestLbConfig { read: choice_count, active_request_bias, slow_start_config; }
    inner::RingHashLbConfig { read: minimum_ring_size, hash_function, maximum_ring_size; }
    inner::MaglevLbConfig { read: table_size; }
    policies::round_robin::v3::RoundRobin { read: slow_start_config, locality_lb_config; }
    policies::least_request::v3::LeastRequest {
        read: choice_count, active_request_bias, slow_start_config, locality_lb_config;
        reject: enable_full_scan, selection_method;
    }
    policies::random::v3::Random { read: locality_lb_config; }
    policies::ring_hash::v3::RingHash {
        read: hash_function, minimum_ring_size, maximum_ring_size, use_hostname_for_hashing,
            hash_balance_factor, consistent_hashing_lb_config, locality_weighted_lb_config;
    }
    policies::maglev::v3::Maglev {
        read: table_size, consistent_hashing_lb_config, locality_weighted_lb_config;
    }
    common::ConsistentHashingLbConfig {
        read: use_hostname_for_hashing, hash_balance_factor;
        reject: hash_policy;
    }
    common::SlowStartConfig { read: slow_start_window, aggression, min_weight_percent; }
    common::LocalityLbConfig { read: locality_config_specifier; }
}

const DEFAULT_MINIMUM_RING: u64 = 1024;
const MAX_RING: u64 = 8 * 1024 * 1024;
const DEFAULT_MAGLEV: u64 = 65_537;
const MAX_MAGLEV: u64 = 5_000_011;

pub fn parse(context: &mut Context, message: &cluster::Cluster) -> LoadBalancing {
    let default = inner::CommonLbConfig::default();
    let given = message.common_lb_config.as_ref().unwrap_or(&default);
    let mut balancing = LoadBalancing {
        policy: Policy::RoundRobin { slow_start: None },
        panic_threshold: 50.0,
        locality: LocalityMode::None,
    };
    context.field("common_lb_config", |context| {
        given.check(context);
        if let Some(percent) = &given.healthy_panic_threshold {
            if !(0.0..=100.0).contains(&percent.value) {
                context.error_at("healthy_panic_threshold", "must be between 0 and 100");
            }
            balancing.panic_threshold = percent.value;
        }
        balancing.locality = locality_mode(context, given);
    });
    balancing.policy = match &message.load_balancing_policy {
        Some(policy) => context.field("load_balancing_policy", |context| {
            extension(context, policy, &mut balancing.locality)
        }),
        None => legacy(context, message),
    };
    balancing
}

fn locality_mode(context: &mut Context, message: &inner::CommonLbConfig) -> LocalityMode {
    use inner::common_lb_config::LocalityConfigSpecifier;
    match &message.locality_config_specifier {
        None => LocalityMode::None,
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => LocalityMode::Weighted,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(_)) => {
            context.error_at("zone_aware_lb_config", "is not supported");
            LocalityMode::None
        }
    }
}

/// Settings of another policy than the one in force are named, not passed over.
fn foreign_settings(context: &mut Context, message: &cluster::Cluster) {
    use inner::{LbConfig, LbPolicy};
    let policy = LbPolicy::try_from(message.lb_policy).ok();
    let place = match (&message.lb_config, policy) {
        (Some(LbConfig::RingHashLbConfig(_)), Some(LbPolicy::RingHash))
        | (Some(LbConfig::MaglevLbConfig(_)), Some(LbPolicy::Maglev))
        | (Some(LbConfig::OriginalDstLbConfig(_)), Some(LbPolicy::ClusterProvided))
        | (Some(LbConfig::LeastRequestLbConfig(_)), Some(LbPolicy::LeastRequest))
        | (Some(LbConfig::RoundRobinLbConfig(_)), Some(LbPolicy::RoundRobin))
        | (None, _) => return,
        (Some(LbConfig::LeastRequestLbConfig(one)), _) if one.slow_start_config.is_some() => {
            "least_request_lb_config.slow_start_config"
        }
        (Some(LbConfig::RoundRobinLbConfig(one)), _) if one.slow_start_config.is_some() => {
            "round_robin_lb_config.slow_start_config"
        }
        (Some(_), _) => return,
    };
    context.error_at(place, "does not go with this lb_policy");
}

// tidy: long function: one arm for each policy.
fn legacy(context: &mut Context, message: &cluster::Cluster) -> Policy {
    use inner::{LbConfig, LbPolicy};
    foreign_settings(context, message);
    let hashing = message.common_lb_config.as_ref();
    let hashing = hashing
        .and_then(|one| one.consistent_hashing_lb_config)
        .unwrap_or_default();
    let use_hostname = hashing.use_hostname_for_hashing;
    let balance_factor = balance_factor(context, hashing.hash_balance_factor);
    let config = &message.lb_config;
    match context.enumeration("lb_policy", message.lb_policy) {
        None | Some(LbPolicy::RoundRobin) => Policy::RoundRobin {
            slow_start: match config {
                Some(LbConfig::RoundRobinLbConfig(one)) => {
                    one.check(context);
                    slow_start(context, one.slow_start_config.as_ref())
                }
                _ => None,
            },
        },
        Some(LbPolicy::LeastRequest) => match config {
            Some(LbConfig::LeastRequestLbConfig(one)) => {
                one.check(context);
                let bias = one.active_request_bias.as_ref();
                let choices = one.choice_count.unwrap_or(2);
                let slow_start = slow_start(context, one.slow_start_config.as_ref());
                least_request(
                    context,
                    choices,
                    bias.map(|bias| bias.default_value),
                    slow_start,
                )
            }
            _ => least_request(context, 2, None, None),
        },
        Some(LbPolicy::Random) => Policy::Random,
        Some(LbPolicy::RingHash) => {
            let (minimum, maximum, function) = match config {
                Some(LbConfig::RingHashLbConfig(one)) => {
                    one.check(context);
                    let murmur = one.hash_function == 1;
                    let function = if murmur {
                        HashFunction::Murmur2
                    } else {
                        HashFunction::XxHash
                    };
                    (one.minimum_ring_size, one.maximum_ring_size, function)
                }
                _ => (None, None, HashFunction::XxHash),
            };
            let (minimum, maximum) = ring_sizes(context, minimum, maximum);
            Policy::RingHash {
                minimum,
                maximum,
                function,
                use_hostname,
                balance_factor,
            }
        }
        Some(LbPolicy::Maglev) => {
            let size = match config {
                Some(LbConfig::MaglevLbConfig(one)) => one.table_size,
                _ => None,
            };
            let table_size = maglev_size(context, size);
            Policy::Maglev {
                table_size,
                use_hostname,
                balance_factor,
            }
        }
        Some(LbPolicy::ClusterProvided) => Policy::ClusterProvided,
        Some(LbPolicy::LoadBalancingPolicyConfig) => {
            context.error_at("load_balancing_policy", "is required");
            Policy::Random
        }
    }
}

fn least_request(
    context: &mut Context,
    choices: u32,
    bias: Option<f64>,
    slow_start: Option<SlowStart>,
) -> Policy {
    if choices < 2 {
        context.error_at("choice_count", "must be at least 2");
    }
    let active_request_bias = bias.unwrap_or(1.0);
    if active_request_bias < 0.0 {
        context.error_at("active_request_bias", "must not be negative");
    }
    Policy::LeastRequest {
        choices,
        active_request_bias,
        slow_start,
    }
}

fn balance_factor(context: &mut Context, value: Option<u32>) -> Option<u32> {
    if value.is_some() {
        context.error_at("hash_balance_factor", "is not supported");
    }
    None
}

fn ring_sizes(context: &mut Context, minimum: Option<u64>, maximum: Option<u64>) -> (u64, u64) {
    let minimum = minimum.unwrap_or(DEFAULT_MINIMUM_RING);
    let maximum = maximum.unwrap_or(MAX_RING);
    if minimum > maximum || maximum > MAX_RING {
        context.error_at(
            "ring_hash_lb_config",
            format!("minimum_ring_size ({minimum}) > maximum_ring_size ({maximum})"),
        );
        return (DEFAULT_MINIMUM_RING, MAX_RING);
    }
    (minimum, maximum)
}

fn maglev_size(context: &mut Context, size: Option<u64>) -> u64 {
    let size = size.unwrap_or(DEFAULT_MAGLEV);
    let prime = size >= 2
        && (2..)
            .take_while(|d| d * d <= size)
            .all(|d| !size.is_multiple_of(d));
    if size > MAX_MAGLEV || !prime {
        context.error_at(
            "maglev_lb_config.table_size",
            format!("must be a prime of at most {MAX_MAGLEV}"),
        );
        return DEFAULT_MAGLEV;
    }
    size
}

fn slow_start(
    context: &mut Context,
    message: Option<&inner::SlowStartConfig>,
) -> Option<SlowStart> {
    context.optional("slow_start_config", message, |context, message| {
        message.check(context);
        let window = context.duration("slow_start_window", message.slow_start_window.as_ref())?;
        Some(SlowStart {
            window,
            aggression: message
                .aggression
                .as_ref()
                .map_or(1.0, |one| one.default_value),
            min_weight: message
                .min_weight_percent
                .as_ref()
                .map_or(10.0, |one| one.value),
        })
    })
}

fn slow_start_of(
    context: &mut Context,
    message: Option<&common::SlowStartConfig>,
) -> Option<SlowStart> {
    context.optional("slow_start_config", message, |context, message| {
        message.check(context);
        let window = context.duration("slow_start_window", message.slow_start_window.as_ref())?;
        Some(SlowStart {
            window,
            aggression: message
                .aggression
                .as_ref()
                .map_or(1.0, |one| one.default_value),
            min_weight: message
                .min_weight_percent
                .as_ref()
                .map_or(10.0, |one| one.value),
        })
    })
}

/// The first policy of the list that we know, as Envoy chooses.
// tidy: long function: one arm for each policy.
fn extension(
    context: &mut Context,
    message: &cluster::LoadBalancingPolicy,
    locality: &mut LocalityMode,
) -> Policy {
    use crate::parse::network_filter::config_name;
    for (index, policy) in message.policies.iter().enumerate() {
        let Some(any) = policy
            .typed_extension_config
            .as_ref()
            .and_then(|one| one.typed_config.as_ref())
        else {
            continue;
        };
        let parsed = context.field(
            &format!("policies[{index}].typed_extension_config"),
            |context| match config_name(any).rsplit('.').next() {
                Some("RoundRobin") => {
                    let one = context.open::<policies::round_robin::v3::RoundRobin>(any)?;
                    one.check(context);
                    set_locality(context, one.locality_lb_config.as_ref(), locality);
                    let slow_start = slow_start_of(context, one.slow_start_config.as_ref());
                    Some(Policy::RoundRobin { slow_start })
                }
                Some("LeastRequest") => {
                    let one = context.open::<policies::least_request::v3::LeastRequest>(any)?;
                    one.check(context);
                    set_locality(context, one.locality_lb_config.as_ref(), locality);
                    let bias = one
                        .active_request_bias
                        .as_ref()
                        .map(|bias| bias.default_value);
                    let slow_start = slow_start_of(context, one.slow_start_config.as_ref());
                    let choices = one.choice_count.unwrap_or(2);
                    Some(least_request(context, choices, bias, slow_start))
                }
                Some("Random") => {
                    let one = context.open::<policies::random::v3::Random>(any)?;
                    one.check(context);
                    set_locality(context, one.locality_lb_config.as_ref(), locality);
                    Some(Policy::Random)
                }
                Some("RingHash") => {
                    let one = context.open::<policies::ring_hash::v3::RingHash>(any)?;
                    ring_hash(context, &one, locality)
                }
                Some("Maglev") => {
                    let one = context.open::<policies::maglev::v3::Maglev>(any)?;
                    one.check(context);
                    if one.locality_weighted_lb_config.is_some() {
                        *locality = LocalityMode::Weighted;
                    }
                    let hashing = one.consistent_hashing_lb_config.unwrap_or_default();
                    hashing.check(context);
                    Some(Policy::Maglev {
                        table_size: maglev_size(context, one.table_size),
                        use_hostname: hashing.use_hostname_for_hashing,
                        balance_factor: balance_factor(context, hashing.hash_balance_factor),
                    })
                }
                Some("ClusterProvided") => Some(Policy::ClusterProvided),
                _ => None,
            },
        );
        if let Some(policy) = parsed {
            return policy;
        }
    }
    context.error("no supported load balancing policy in the list");
    Policy::Random
}

fn ring_hash(
    context: &mut Context,
    one: &policies::ring_hash::v3::RingHash,
    locality: &mut LocalityMode,
) -> Option<Policy> {
    one.check(context);
    if one.locality_weighted_lb_config.is_some() {
        *locality = LocalityMode::Weighted;
    }
    let (minimum, maximum) = ring_sizes(context, one.minimum_ring_size, one.maximum_ring_size);
    let hashing = one.consistent_hashing_lb_config.clone().unwrap_or_default();
    hashing.check(context);
    let function = if one.hash_function == 2 {
        HashFunction::Murmur2
    } else {
        HashFunction::XxHash
    };
    let factor = hashing.hash_balance_factor.or(one.hash_balance_factor);
    Some(Policy::RingHash {
        minimum,
        maximum,
        function,
        use_hostname: one.use_hostname_for_hashing || hashing.use_hostname_for_hashing,
        balance_factor: balance_factor(context, factor),
    })
}

fn set_locality(
    context: &mut Context,
    message: Option<&common::LocalityLbConfig>,
    locality: &mut LocalityMode,
) {
    use common::locality_lb_config::LocalityConfigSpecifier;
    match message.and_then(|one| one.locality_config_specifier.as_ref()) {
        None => {}
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => {
            *locality = LocalityMode::Weighted;
        }
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(_)) => {
            let name = "locality_lb_config.zone_aware_lb_config";
            context.error_at(name, "is not supported");
        }
    }
}
