//! Statistics that follow from the state and are not counted anywhere: `server.`,
//! `cluster_manager.`, `listener_manager.`, the circuit breakers' gauges.

use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use super::{ClusterPicture, Picture, server};
use crate::cluster::shared::RoutingPriority;
use crate::stats::{Kind, Snapshot};

/// A snapshot of everything that is counted, and of what follows from the state.
pub fn snapshot(picture: &Picture) -> Snapshot {
    let stats = &picture.environment.stats;
    let mut snapshot = stats.snapshot();
    let mut gauge = |name: &str, value: u64| snapshot.add(name, Kind::Gauge, value);
    let uptime = SystemTime::now()
        .duration_since(picture.started)
        .unwrap_or_default();
    let (resident, _) = server::memory_bytes();
    gauge("server.concurrency", picture.concurrency as u64);
    gauge(
        "server.live",
        u64::from(!picture.draining && !picture.failed),
    );
    gauge("server.state", server::state_number(picture));
    gauge("server.uptime", uptime.as_secs());
    gauge("server.memory_allocated", resident);
    gauge("server.memory_heap_size", resident);
    gauge("server.memory_physical_size", resident);
    gauge("server.hot_restart_epoch", 0);
    let count = |warming: bool, list: &mut dyn Iterator<Item = bool>| {
        list.filter(|one| *one == warming).count() as u64
    };
    let clusters = || picture.clusters.iter().map(|one| one.warming);
    let listeners = || picture.listeners.iter().map(|one| one.warming);
    gauge(
        "cluster_manager.active_clusters",
        count(false, &mut clusters()),
    );
    gauge(
        "cluster_manager.warming_clusters",
        count(true, &mut clusters()),
    );
    gauge(
        "listener_manager.total_listeners_active",
        count(false, &mut listeners()),
    );
    gauge(
        "listener_manager.total_listeners_warming",
        count(true, &mut listeners()),
    );
    gauge("listener_manager.workers_started", u64::from(picture.ready));
    for cluster in picture.clusters.iter().filter(|one| !one.warming) {
        circuit_breakers(&mut snapshot, cluster);
    }
    snapshot.retain(stats.config());
    snapshot
}

fn circuit_breakers(snapshot: &mut Snapshot, cluster: &ClusterPicture) {
    let Some(block) = &cluster.block else { return };
    for (name, priority) in [
        ("default", RoutingPriority::Default),
        ("high", RoutingPriority::High),
    ] {
        let limits = cluster.config.circuit_breakers.of(priority);
        let counts = block.priority(priority);
        let prefix = format!(
            "cluster.{}.circuit_breakers.{name}",
            cluster.config.stat_name
        );
        for (open, remaining, used, limit) in [
            (
                "cx_open",
                "remaining_cx",
                &counts.connections,
                limits.max_connections,
            ),
            (
                "rq_pending_open",
                "remaining_pending",
                &counts.pending_requests,
                limits.max_pending_requests,
            ),
            (
                "rq_open",
                "remaining_rq",
                &counts.requests,
                limits.max_requests,
            ),
            (
                "rq_retry_open",
                "remaining_retries",
                &counts.retries,
                limits.max_retries,
            ),
        ] {
            let used = used.load(Relaxed);
            snapshot.add(
                &format!("{prefix}.{open}"),
                Kind::Gauge,
                u64::from(used >= limit),
            );
            if limits.track_remaining {
                let left = u64::from(limit.saturating_sub(used));
                snapshot.add(&format!("{prefix}.{remaining}"), Kind::Gauge, left);
            }
        }
    }
}
