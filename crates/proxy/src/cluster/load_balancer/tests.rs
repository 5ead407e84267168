//! What balancers do with hosts, weights, priorities and health.

use std::collections::BTreeMap;

use super::*;
use crate::cluster::shared::{Address, HostBlock, HostHealth, Locality, LocalityHosts};
use crate::parse::cluster::HashFunction;

fn host(port: u16, weight: u32, priority: u32, health: HostHealth) -> Arc<Host> {
    Arc::new(Host {
        address: Address::Socket(([127, 0, 0, 1], port).into()),
        hostname: Arc::from(""),
        weight,
        priority,
        health,
        locality: Arc::new(Locality::default()),
        metadata: None,
        block: Arc::new(HostBlock::default()),
    })
}

fn endpoints(priorities: Vec<Vec<Arc<Host>>>) -> Arc<Endpoints> {
    let priorities = priorities
        .into_iter()
        .map(|hosts| PriorityHosts {
            hosts,
            localities: Vec::new(),
        })
        .collect();
    Arc::new(Endpoints {
        priorities,
        ..Endpoints::default()
    })
}

fn balancer(policy: Policy, endpoints: &Arc<Endpoints>) -> LoadBalancer {
    balancer_with(policy, LocalityMode::None, endpoints)
}

fn balancer_with(
    policy: Policy,
    locality: LocalityMode,
    endpoints: &Arc<Endpoints>,
) -> LoadBalancer {
    let config = LoadBalancing {
        policy,
        panic_threshold: 50.0,
        locality,
    };
    let mut balancer = LoadBalancer::new(config, Arc::new(ClusterBlock::new("test")));
    balancer.update(endpoints, 0);
    balancer
}

fn counts(balancer: &mut LoadBalancer, requests: u64) -> BTreeMap<u16, u64> {
    let mut counts = BTreeMap::new();
    for random in 0..requests {
        let choice = Choice {
            random: mix(random),
            ..Choice::default()
        };
        let port = match balancer.choose(&choice) {
            Some(host) => host.address.socket().expect("a socket").port(),
            None => 0,
        };
        *counts.entry(port).or_default() += 1;
    }
    counts
}

const ROUND_ROBIN: Policy = Policy::RoundRobin { slow_start: None };
const LEAST_REQUEST: Policy = Policy::LeastRequest {
    choices: 2,
    active_request_bias: 1.0,
    slow_start: None,
};
use HostHealth::{Degraded, Healthy, Unhealthy};

#[test]
fn a_new_host_begins_with_little() {
    let slow_start = Some(crate::parse::cluster::SlowStart {
        window: std::time::Duration::from_secs(30),
        aggression: 1.0,
        min_weight: 10.0,
    });
    let old = std::time::Instant::now().checked_sub(std::time::Duration::from_secs(31));
    // A machine that was started a moment ago has no time before.
    let Some(old) = old else { return };
    let mut long_there = Arc::into_inner(host(1, 1, 0, Healthy)).expect("one owner");
    long_there.block = Arc::new(HostBlock {
        since: crate::cluster::shared::Since(old),
        ..HostBlock::default()
    });
    let set = endpoints(vec![vec![Arc::new(long_there), host(2, 1, 0, Healthy)]]);
    let counts = counts(&mut balancer(Policy::RoundRobin { slow_start }, &set), 1100);
    assert!((90..=150).contains(&counts[&2]), "{counts:?}");
}

#[test]
fn weights_are_exact_in_turns() {
    for (weights, want, why) in [
        (vec![1, 1, 1], vec![(1, 100), (2, 100), (3, 100)], "equal"),
        (
            vec![1, 2, 3],
            vec![(1, 50), (2, 100), (3, 150)],
            "by weight",
        ),
        (vec![5], vec![(1, 300)], "one host"),
    ] {
        let hosts = weights
            .iter()
            .zip(1..)
            .map(|(weight, port)| host(port, *weight, 0, Healthy))
            .collect();
        let set = endpoints(vec![hosts]);
        for policy in [ROUND_ROBIN, LEAST_REQUEST] {
            let exact = policy == ROUND_ROBIN;
            let counts = counts(&mut balancer(policy, &set), 300);
            for (port, count) in &want {
                let got = counts[port];
                assert!(
                    got.abs_diff(*count) <= if exact { 1 } else { 40 },
                    "{why}: {counts:?}"
                );
            }
        }
    }
}

#[test]
fn least_request_avoids_the_busy() {
    let busy = host(1, 1, 0, Healthy);
    busy.block.active_requests.store(10, Ordering::Relaxed);
    let set = endpoints(vec![vec![busy, host(2, 1, 0, Healthy)]]);
    let counts = counts(&mut balancer(LEAST_REQUEST, &set), 400);
    // Both draws hit the busy one in a quarter of the cases.
    assert!((60..140).contains(&counts[&1]), "{counts:?}");
}

#[test]
fn priorities_and_panic() {
    let up = |port, priority| host(port, 1, priority, Healthy);
    let down = |port, priority| host(port, 1, priority, Unhealthy);
    for (priorities, want, why) in [
        (
            vec![vec![up(1, 0)], vec![up(2, 1)]],
            vec![(1, 100..=100)],
            "the first serves all",
        ),
        (
            vec![vec![up(1, 0), up(3, 0), down(4, 0)], vec![up(2, 1)]],
            vec![(2, 3..=15)],
            "93 percent are left after overprovisioning",
        ),
        (
            vec![vec![down(1, 0)], vec![up(2, 1)]],
            vec![(2, 100..=100)],
            "failover",
        ),
        (
            vec![vec![down(1, 0), down(3, 0)]],
            vec![(1, 30..=70), (3, 30..=70)],
            "all are down: all are used",
        ),
        (
            vec![vec![up(1, 0), down(3, 0), down(4, 0), down(5, 0)]],
            vec![(3, 10..=40), (4, 10..=40)],
            "panic",
        ),
        (
            vec![vec![host(1, 1, 0, Degraded), up(2, 0)]],
            vec![(1, 15..=45)],
            "degraded take the rest",
        ),
        (vec![vec![]], vec![(0, 100..=100)], "no host"),
    ] {
        let set = endpoints(priorities);
        let counts = counts(&mut balancer(Policy::Random, &set), 100);
        for (port, range) in want {
            let got = counts.get(&port).copied().unwrap_or(0);
            assert!(range.contains(&got), "{why}: {counts:?}");
        }
    }
}

#[test]
fn ejection_is_seen_at_once() {
    let hosts = vec![
        host(1, 1, 0, Healthy),
        host(2, 1, 0, Healthy),
        host(3, 1, 0, Healthy),
    ];
    let set = endpoints(vec![hosts.clone()]);
    let mut balancer = balancer(ROUND_ROBIN, &set);
    counts(&mut balancer, 3);
    hosts[0].block.ejected.store(true, Ordering::Relaxed);
    balancer
        .block
        .health_generation
        .fetch_add(1, Ordering::Release);
    assert_eq!(counts(&mut balancer, 30).get(&1), None, "ejected");
}

#[test]
fn a_hash_keeps_its_host() {
    let all: Vec<Arc<Host>> = (1..=5).map(|port| host(port, 1, 0, Healthy)).collect();
    let ring = Policy::RingHash {
        minimum: 1024,
        maximum: 8 << 20,
        function: HashFunction::XxHash,
        use_hostname: false,
        balance_factor: None,
    };
    let maglev = Policy::Maglev {
        table_size: 65_537,
        use_hostname: false,
        balance_factor: None,
    };
    for policy in [ring, maglev] {
        let mut before = balancer(policy.clone(), &endpoints(vec![all.clone()]));
        let mut after = balancer(policy.clone(), &endpoints(vec![all[..4].to_vec()]));
        let choose = |balancer: &mut LoadBalancer, hash: u64| {
            let choice = Choice {
                hash: Some(mix(hash)),
                random: hash,
                ..Choice::default()
            };
            balancer.choose(&choice).expect("a host").address.clone()
        };
        let mut moved = 0;
        for hash in 0..1000 {
            let one = choose(&mut before, hash);
            assert_eq!(one, choose(&mut before, hash), "the same host");
            let other = choose(&mut after, hash);
            if one != all[4].address && one != other {
                moved += 1;
            }
        }
        assert!(
            moved < 200,
            "{moved} moved although their host stayed: {policy:?}"
        );
    }
}

#[test]
fn weighted_localities() {
    let near = vec![host(1, 1, 0, Healthy)];
    let far = vec![host(2, 1, 0, Healthy), host(3, 1, 0, Healthy)];
    let locality = |weight, hosts: &Vec<Arc<Host>>| LocalityHosts {
        locality: Arc::new(Locality::default()),
        weight,
        hosts: hosts.clone(),
    };
    let priority = PriorityHosts {
        hosts: near.iter().chain(&far).cloned().collect(),
        localities: vec![locality(3, &near), locality(1, &far)],
    };
    let set = Arc::new(Endpoints {
        priorities: vec![priority],
        ..Endpoints::default()
    });
    let counts = counts(
        &mut balancer_with(ROUND_ROBIN, LocalityMode::Weighted, &set),
        400,
    );
    assert!(
        counts[&1].abs_diff(300) <= 2,
        "three quarters stay near: {counts:?}"
    );
}

#[test]
fn retries_look_for_another_host() {
    let hosts = vec![host(1, 1, 0, Healthy), host(2, 1, 0, Healthy)];
    let set = endpoints(vec![hosts.clone()]);
    let mut balancer = balancer(Policy::Random, &set);
    let message = envoy_api::route::RetryPolicy {
        retry_on: "5xx".into(),
        host_selection_retry_max_attempts: 50,
        retry_host_predicate: vec![envoy_api::route::retry_policy::RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".into(),
            config_type: None,
        }],
        ..Default::default()
    };
    let mut context = crate::parse::Context::new();
    let retry = RetryPolicy::parse(&mut context, &message).expect("policy");
    for random in 0..50 {
        let tried = &hosts[..1];
        let choice = Choice {
            random,
            tried,
            retry: Some(&retry),
            ..Choice::default()
        };
        assert_eq!(
            balancer.choose(&choice).expect("a host").address,
            hosts[1].address
        );
    }
}
