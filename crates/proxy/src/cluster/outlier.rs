//! Outlier detection: hosts that fail are left out for a while. Counters are in the hosts' blocks
//! and shared by all workers; unejection runs on the main thread.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::cluster::shared::{ClusterBlock, Endpoints, Host};
use crate::parse::cluster::OutlierDetection;
use crate::stats::Group;
use crate::stats::tables::Outlier as Stat;

/// A cluster's detector; shared by the workers.
#[derive(Debug)]
pub struct Outlier {
    config: OutlierDetection,
    block: Arc<ClusterBlock>,
    stats: Arc<Group<Stat>>,
}

/// What came of an attempt, where there was no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalResult {
    Connected,
    ConnectFailed,
    ConnectTimeout,
    RequestTimeout,
    Reset,
}

/// Why a host is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Consecutive5xx,
    GatewayFailure,
    LocalOrigin,
    SuccessRate,
    FailurePercentage,
}

impl Outlier {
    pub fn new(
        config: OutlierDetection,
        block: Arc<ClusterBlock>,
        stats: Arc<Group<Stat>>,
    ) -> Outlier {
        Outlier {
            config,
            block,
            stats,
        }
    }

    pub fn interval(&self) -> Duration {
        self.config.interval
    }

    /// A response came. `total` is the number of hosts in the cluster, `random` any number.
    pub fn on_response(&self, host: &Host, status: u16, total: usize, random: u64) {
        let block = &host.block;
        block.success_rate_requests.fetch_add(1, Relaxed);
        if status < 500 {
            block.success_rate_success.fetch_add(1, Relaxed);
            block.consecutive_5xx.store(0, Relaxed);
            block.consecutive_gateway_failure.store(0, Relaxed);
            return;
        }
        if matches!(status, 502..=504) {
            let limit = self.config.consecutive_gateway_failure;
            if block.consecutive_gateway_failure.fetch_add(1, Relaxed) + 1 == limit {
                block.consecutive_gateway_failure.store(0, Relaxed);
                self.stats.inc(Stat::DetectedGatewayFailure);
                self.eject(host, (Cause::GatewayFailure, total, random));
            }
        } else {
            block.consecutive_gateway_failure.store(0, Relaxed);
        }
        if block.consecutive_5xx.fetch_add(1, Relaxed) + 1 == self.config.consecutive_5xx {
            block.consecutive_5xx.store(0, Relaxed);
            self.stats.inc(Stat::DetectedConsecutive5xx);
            self.eject(host, (Cause::Consecutive5xx, total, random));
        }
    }

    /// Something happened on our side of the connection.
    pub fn on_local(&self, host: &Host, result: LocalResult, total: usize, random: u64) {
        if !self.config.split_external_local_origin_errors {
            // Together with responses: a failure to connect is a 503, a timeout a 504.
            match result {
                LocalResult::Connected => {}
                LocalResult::ConnectFailed | LocalResult::Reset => {
                    self.on_response(host, 503, total, random);
                }
                LocalResult::ConnectTimeout | LocalResult::RequestTimeout => {
                    self.on_response(host, 504, total, random);
                }
            }
            return;
        }
        let counter = &host.block.consecutive_local_origin_failure;
        if result == LocalResult::Connected {
            counter.store(0, Relaxed);
            return;
        }
        if counter.fetch_add(1, Relaxed) + 1 == self.config.consecutive_local_origin_failure {
            counter.store(0, Relaxed);
            self.stats.inc(Stat::DetectedLocalOrigin);
            self.eject(host, (Cause::LocalOrigin, total, random));
        }
    }

    fn enforced(&self, cause: Cause, random: u64) -> bool {
        let config = &self.config;
        let percent = match cause {
            Cause::Consecutive5xx => config.enforcing_consecutive_5xx,
            Cause::GatewayFailure => config.enforcing_consecutive_gateway_failure,
            Cause::LocalOrigin => config.enforcing_consecutive_local_origin_failure,
            Cause::SuccessRate => config.enforcing_success_rate,
            Cause::FailurePercentage => config.enforcing_failure_percentage,
        };
        random % 100 < u64::from(percent)
    }

    fn eject(&self, host: &Host, (cause, total, random): (Cause, usize, u64)) {
        if !self.enforced(cause, random) || host.block.ejected.load(Relaxed) {
            return;
        }
        // The share of ejected hosts before this one counts, so that one may always go.
        let ejected = self.block.ejected_hosts.load(Relaxed);
        let share = f64::from(ejected) * 100.0 / total.max(1) as f64;
        let first = ejected == 0 && self.config.always_eject_one_host;
        if share >= f64::from(self.config.max_ejection_percent) && !first {
            self.stats.inc(Stat::Overflow);
            return;
        }
        if host.block.ejected.swap(true, Relaxed) {
            return;
        }
        host.block.ejections.fetch_add(1, Relaxed);
        host.block.ejected_at.store(self.now(), Relaxed);
        self.block.ejected_hosts.fetch_add(1, Relaxed);
        self.block
            .health_generation
            .fetch_add(1, std::sync::atomic::Ordering::Release);
        self.stats.inc(Stat::Active);
        self.stats.inc(Stat::EnforcedTotal);
        self.stats.inc(Stat::Total);
        self.stats.inc(match cause {
            Cause::Consecutive5xx => Stat::EnforcedConsecutive5xx,
            Cause::GatewayFailure => Stat::EnforcedGatewayFailure,
            Cause::LocalOrigin => Stat::EnforcedLocalOrigin,
            Cause::SuccessRate => Stat::EnforcedSuccessRate,
            Cause::FailurePercentage => Stat::EnforcedFailurePercentage,
        });
    }

    fn uneject(&self, host: &Host) {
        if host.block.ejected.swap(false, Relaxed) {
            for counter in [
                &host.block.consecutive_5xx,
                &host.block.consecutive_gateway_failure,
                &host.block.consecutive_local_origin_failure,
            ] {
                counter.store(0, Relaxed);
            }
            host.block.unejected_at.store(self.now(), Relaxed);
            self.block.ejected_hosts.fetch_sub(1, Relaxed);
            self.block
                .health_generation
                .fetch_add(1, std::sync::atomic::Ordering::Release);
            self.stats.dec(Stat::Active);
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.block.created.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Every `interval`, on the main thread: hosts whose time is over come back, success rates
    /// are judged.
    pub fn tick(&self, endpoints: &Endpoints, random: u64) {
        let config = &self.config;
        for host in endpoints.hosts() {
            let block = &host.block;
            if !block.ejected.load(Relaxed) {
                // A host that behaves for an interval is forgiven one ejection.
                let at = block.unejected_at.load(Relaxed);
                if at != 0 && block.ejections.load(Relaxed) > 0 {
                    let calm = Duration::from_nanos(self.now().saturating_sub(at));
                    if calm >= config.interval {
                        block.ejections.fetch_sub(1, Relaxed);
                    }
                }
                continue;
            }
            let times = block.ejections.load(Relaxed).max(1);
            let length = config.base_ejection_time.saturating_mul(times);
            let length = length.min(config.max_ejection_time);
            let since = self.now().saturating_sub(block.ejected_at.load(Relaxed));
            if Duration::from_nanos(since) >= length {
                self.uneject(host);
            }
        }
        self.judge_rates(endpoints, random);
    }

    fn judge_rates(&self, endpoints: &Endpoints, random: u64) {
        let config = &self.config;
        let total = endpoints.hosts().count();
        let mut rates: Vec<(&Arc<Host>, u32, f64)> = Vec::new();
        for host in endpoints.hosts() {
            let requests = host.block.success_rate_requests.swap(0, Relaxed);
            let success = host.block.success_rate_success.swap(0, Relaxed);
            if requests > 0 && !host.block.ejected.load(Relaxed) {
                let rate = f64::from(success) * 100.0 / f64::from(requests);
                rates.push((host, requests, rate));
            }
        }
        let enough = |volume: u32| {
            rates
                .iter()
                .filter(move |(_, requests, _)| *requests >= volume)
        };
        let valid: Vec<_> = enough(config.success_rate_request_volume).collect();
        if valid.len() >= config.success_rate_minimum_hosts.max(1) as usize {
            let count = valid.len() as f64;
            let mean = valid.iter().map(|(_, _, rate)| rate).sum::<f64>() / count;
            let variance = valid
                .iter()
                .map(|(_, _, rate)| (rate - mean).powi(2))
                .sum::<f64>()
                / count;
            let factor = f64::from(config.success_rate_stdev_factor) / 1000.0;
            let threshold = mean - factor * variance.sqrt();
            for (host, _, rate) in valid {
                if *rate < threshold {
                    self.stats.inc(Stat::DetectedSuccessRate);
                    self.eject(host, (Cause::SuccessRate, total, random));
                }
            }
        }
        let valid: Vec<_> = enough(config.failure_percentage_request_volume).collect();
        if valid.len() >= config.failure_percentage_minimum_hosts.max(1) as usize {
            for (host, _, rate) in valid {
                if 100.0 - rate >= f64::from(config.failure_percentage_threshold) {
                    self.stats.inc(Stat::DetectedFailurePercentage);
                    self.eject(host, (Cause::FailurePercentage, total, random));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::shared::{Address, HostBlock, HostHealth, Locality, PriorityHosts};
    use crate::stats::Stats;

    fn hosts(count: u16) -> Vec<Arc<Host>> {
        (1..=count)
            .map(|port| {
                Arc::new(Host {
                    address: Address::Socket(([127, 0, 0, 1], port).into()),
                    hostname: Arc::from(""),
                    weight: 1,
                    priority: 0,
                    health: HostHealth::Healthy,
                    locality: Arc::new(Locality::default()),
                    metadata: None,
                    block: Arc::new(HostBlock::default()),
                })
            })
            .collect()
    }

    fn outlier(change: impl FnOnce(&mut envoy_api::cluster::OutlierDetection)) -> Outlier {
        let mut message = envoy_api::cluster::Cluster {
            name: "a".into(),
            outlier_detection: Some(envoy_api::cluster::OutlierDetection::default()),
            ..Default::default()
        };
        change(message.outlier_detection.get_or_insert_default());
        let cluster = crate::parse::cluster::cluster(&message).expect("cluster");
        let config = cluster.outlier_detection.expect("detection");
        let stats = Stats::new(1).group("cluster.a.outlier_detection.");
        Outlier::new(config, Arc::new(ClusterBlock::new("a")), stats)
    }

    #[test]
    fn ejects_after_consecutive_errors() {
        let detector = outlier(|one| one.max_ejection_percent = Some(50));
        let hosts = hosts(4);
        for status in [500, 500, 500, 500, 200, 500, 500, 500, 500] {
            detector.on_response(&hosts[0], status, 4, 0);
        }
        assert!(hosts[0].is_healthy(), "a success in between");
        detector.on_response(&hosts[0], 500, 4, 0);
        assert!(!hosts[0].is_healthy(), "five in a row");
        assert_eq!(
            detector.block.health_generation.load(Relaxed),
            1,
            "balancers are told"
        );
        for host in &hosts[1..] {
            (0..5).for_each(|_| detector.on_response(host, 503, 4, 0));
        }
        let ejected = hosts.iter().filter(|host| !host.is_healthy()).count();
        assert_eq!(ejected, 2, "at most half of them");
        assert_eq!(detector.stats.value(Stat::Overflow), 2);
        assert_eq!(detector.stats.value(Stat::Active), 2);
    }

    #[test]
    fn comes_back_after_its_time() {
        let detector = outlier(|one| {
            let duration = |nanos| Some(prost_types::Duration { seconds: 0, nanos });
            one.base_ejection_time = duration(1);
            one.interval = duration(1);
            one.max_ejection_percent = Some(100);
        });
        let hosts = hosts(1);
        (0..5).for_each(|_| detector.on_local(&hosts[0], LocalResult::ConnectFailed, 1, 0));
        assert!(!hosts[0].is_healthy(), "failures to connect count");
        let priority = PriorityHosts {
            hosts: hosts.clone(),
            localities: Vec::new(),
        };
        let endpoints = Endpoints {
            priorities: vec![priority],
            ..Endpoints::default()
        };
        detector.tick(&endpoints, 0);
        assert!(hosts[0].is_healthy(), "its time is over");
        assert_eq!(detector.stats.value(Stat::Active), 0);
    }
}
