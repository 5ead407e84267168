//! Choosing a host: priority by health, locality by weight, then the policy. One balancer per
//! worker and cluster; what it knows is rebuilt when endpoints or their health change.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::cluster::shared::{ClusterBlock, Endpoints, Host, PriorityHosts};
use crate::parse::cluster::{LoadBalancing, LocalityMode, Policy};
use crate::retry::RetryPolicy;

mod edf;
mod least_request;
mod maglev;
mod priority;
mod random;
mod ring_hash;
mod round_robin;
mod weights;

use priority::{Loads, Pool};
use weights::Weights;

/// What a choice may depend on.
#[derive(Clone, Copy, Default)]
pub struct Choice<'a> {
    pub hash: Option<u64>,
    /// Any number; draws are derived from it.
    pub random: u64,
    /// Hosts that this request has tried, oldest first.
    pub tried: &'a [Arc<Host>],
    pub retry: Option<&'a RetryPolicy>,
}

#[derive(Debug)]
pub struct LoadBalancer {
    config: LoadBalancing,
    block: Arc<ClusterBlock>,
    endpoints: Arc<Endpoints>,
    /// Of the block when `priorities` was built.
    generation: u64,
    loads: Loads,
    priorities: Vec<Sources>,
}

/// The hosts of one priority as the policy wants them.
#[derive(Debug)]
struct Sources {
    all: Source,
    healthy: Source,
    degraded: Source,
    /// Localities with their effective weight; only where localities are weighted.
    localities: Option<edf::Edf>,
    by_locality: Vec<Source>,
}

/// A list of hosts with the policy's own state.
#[derive(Debug)]
enum Source {
    Empty,
    RoundRobin(round_robin::RoundRobin),
    LeastRequest(least_request::LeastRequest),
    Random(random::Random),
    RingHash(ring_hash::RingHash),
    Maglev(maglev::Maglev),
}

impl Source {
    fn new(policy: &Policy, hosts: &[(Arc<Host>, f64)], seed: u64) -> Source {
        if hosts.is_empty() {
            return Source::Empty;
        }
        match policy {
            Policy::RoundRobin { slow_start } => {
                let weights = Weights::new(hosts, slow_start.as_ref(), seed);
                Source::RoundRobin(round_robin::RoundRobin::new(hosts, weights, seed))
            }
            Policy::LeastRequest {
                choices,
                active_request_bias,
                slow_start,
            } => Source::LeastRequest(least_request::LeastRequest::new(
                hosts,
                (*choices, *active_request_bias),
                Weights::new(hosts, slow_start.as_ref(), seed),
            )),
            Policy::Random | Policy::ClusterProvided => Source::Random(random::Random::new(hosts)),
            Policy::RingHash {
                minimum,
                maximum,
                function,
                use_hostname,
                ..
            } => {
                let sizes = (*minimum, *maximum);
                let keys = (*function, *use_hostname);
                Source::RingHash(ring_hash::RingHash::new(hosts, sizes, keys))
            }
            Policy::Maglev {
                table_size,
                use_hostname,
                ..
            } => Source::Maglev(maglev::Maglev::new(hosts, *table_size, *use_hostname)),
        }
    }

    fn choose(&mut self, hash: Option<u64>, random: u64) -> Option<Arc<Host>> {
        match self {
            Source::Empty => None,
            Source::RoundRobin(one) => Some(one.choose()),
            Source::LeastRequest(one) => Some(one.choose(random)),
            Source::Random(one) => Some(one.choose(random)),
            Source::RingHash(one) => Some(one.choose(hash.unwrap_or(random))),
            Source::Maglev(one) => Some(one.choose(hash.unwrap_or(random))),
        }
    }
}

/// SplitMix64.
pub(crate) fn mix(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl LoadBalancer {
    pub fn new(config: LoadBalancing, block: Arc<ClusterBlock>) -> LoadBalancer {
        LoadBalancer {
            config,
            block,
            endpoints: Arc::default(),
            generation: 0,
            loads: Loads::default(),
            priorities: Vec::new(),
        }
    }

    /// New endpoints; positions start anew at a place that `seed` decides.
    pub fn update(&mut self, endpoints: &Arc<Endpoints>, seed: u64) {
        self.endpoints = endpoints.clone();
        self.rebuild(seed);
    }

    /// A host, or `None` where there is none to be had.
    pub fn choose(&mut self, choice: &Choice<'_>) -> Option<Arc<Host>> {
        if self.block.health_generation.load(Ordering::Acquire) != self.generation {
            self.rebuild(choice.random);
        }
        let attempts = match choice.retry {
            Some(retry) if retry.previous_hosts && !choice.tried.is_empty() => {
                retry.host_selection_max_attempts
            }
            _ => 1,
        };
        let loads = self.loads_for(choice);
        let mut random = mix(choice.random);
        let mut chosen = None;
        for _ in 0..attempts {
            chosen = self.choose_once(&loads, choice.hash, random);
            let again = chosen
                .as_ref()
                .is_some_and(|host| choice.tried.iter().any(|one| same(one, host)));
            if !again {
                break;
            }
            random = mix(random);
        }
        chosen
    }

    /// Priorities without those that were tried, after each `previous_priorities` attempts.
    fn loads_for(&self, choice: &Choice<'_>) -> Loads {
        let frequency = choice.retry.and_then(|retry| retry.previous_priorities);
        let Some(frequency) = frequency.map(|one| one as usize) else {
            return self.loads.clone();
        };
        let complete = choice.tried.len() / frequency.max(1) * frequency.max(1);
        let excluded: Vec<u32> = choice.tried[..complete]
            .iter()
            .map(|one| one.priority)
            .collect();
        if excluded.is_empty() {
            return self.loads.clone();
        }
        let left = self.loads.without(&excluded, &self.endpoints);
        if left.is_empty() {
            self.loads.clone()
        } else {
            left
        }
    }

    fn choose_once(&mut self, loads: &Loads, hash: Option<u64>, random: u64) -> Option<Arc<Host>> {
        // A balancer by hash must send one hash to one priority.
        let by_hash = matches!(
            self.config.policy,
            Policy::RingHash { .. } | Policy::Maglev { .. }
        );
        let point = if by_hash {
            hash.unwrap_or(random)
        } else {
            random
        };
        let (at, pool) = loads.pick(point)?;
        let sources = self.priorities.get_mut(at)?;
        let random = mix(random ^ 0x5bd1_e995);
        match pool {
            Pool::Panic => sources.all.choose(hash, random),
            Pool::Degraded => sources.degraded.choose(hash, random),
            Pool::Healthy => match &mut sources.localities {
                Some(localities) => {
                    let locality = localities.pick(|_, weight| weight);
                    sources.by_locality.get_mut(locality?)?.choose(hash, random)
                }
                None => sources.healthy.choose(hash, random),
            },
        }
    }

    fn rebuild(&mut self, seed: u64) {
        self.generation = self.block.health_generation.load(Ordering::Acquire);
        let endpoints = self.endpoints.clone();
        self.loads = Loads::of(&endpoints, self.config.panic_threshold);
        self.priorities = endpoints
            .priorities
            .iter()
            .enumerate()
            .map(|(at, priority)| self.sources(priority, mix(seed ^ at as u64)))
            .collect();
    }

    fn sources(&self, priority: &PriorityHosts, seed: u64) -> Sources {
        let weighted = |hosts: &mut dyn Iterator<Item = &Arc<Host>>| -> Vec<(Arc<Host>, f64)> {
            hosts
                .map(|host| (host.clone(), f64::from(host.weight.max(1))))
                .collect()
        };
        let policy = &self.config.policy;
        let by_locality = self.config.locality == LocalityMode::Weighted
            && priority.localities.iter().any(|one| one.weight > 0);
        let hashing = matches!(policy, Policy::RingHash { .. } | Policy::Maglev { .. });
        let all = weighted(&mut priority.hosts.iter());
        let healthy = if by_locality && hashing {
            // One ring, where a locality's share is its weight.
            scaled_by_locality(priority)
        } else {
            weighted(&mut priority.hosts.iter().filter(|host| host.is_healthy()))
        };
        let degraded = weighted(&mut priority.hosts.iter().filter(|host| host.is_degraded()));
        let mut sources = Sources {
            all: Source::new(policy, &all, seed),
            healthy: Source::new(policy, &healthy, seed),
            degraded: Source::new(policy, &degraded, seed),
            localities: None,
            by_locality: Vec::new(),
        };
        if by_locality && !hashing {
            let factor = self.endpoints.overprovisioning_factor;
            let mut weights = Vec::new();
            for locality in &priority.localities {
                let healthy = weighted(&mut locality.hosts.iter().filter(|host| host.is_healthy()));
                let share = healthy.len() as f64 / locality.hosts.len().max(1) as f64;
                let effective = (share * f64::from(factor) / 100.0).min(1.0);
                weights.push(f64::from(locality.weight) * effective);
                sources
                    .by_locality
                    .push(Source::new(policy, &healthy, seed));
            }
            if weights.iter().any(|weight| *weight > 0.0) {
                sources.localities = Some(edf::Edf::new(&weights, seed));
            }
        }
        sources
    }
}

fn scaled_by_locality(priority: &PriorityHosts) -> Vec<(Arc<Host>, f64)> {
    let mut hosts = Vec::new();
    for locality in &priority.localities {
        let healthy: Vec<&Arc<Host>> = locality
            .hosts
            .iter()
            .filter(|host| host.is_healthy())
            .collect();
        let sum: f64 = healthy
            .iter()
            .map(|host| f64::from(host.weight.max(1)))
            .sum();
        for host in healthy {
            let share = f64::from(host.weight.max(1)) / sum;
            if locality.weight > 0 {
                hosts.push((host.clone(), share * f64::from(locality.weight)));
            }
        }
    }
    hosts
}

fn same(one: &Arc<Host>, other: &Arc<Host>) -> bool {
    Arc::ptr_eq(one, other) || one.address == other.address
}

#[cfg(test)]
mod tests;
