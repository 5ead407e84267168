//! `/clusters`: every cluster's limits and every host's counters.

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

use envoy_api::{admin, cluster, core};

use super::{Answer, ClusterPicture, Picture, Query, message_json};
use crate::cluster::shared::{Address, Host, HostHealth};
use crate::parse::cluster::{Discovery, Thresholds};

pub fn answer(query: &Query, picture: &Picture) -> Answer {
    let active = picture.clusters.iter().filter(|cluster| !cluster.warming);
    if query.get("format").is_some_and(|format| format == "json") {
        let cluster_statuses = active.map(status).collect();
        return Answer::json(&message_json(&admin::Clusters { cluster_statuses }));
    }
    let mut out = String::new();
    for cluster in active {
        text(&mut out, cluster);
    }
    Answer::text(out)
}

fn text(out: &mut String, cluster: &ClusterPicture) {
    let name = &cluster.config.name;
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(out, "{name}::{key}::{value}");
    };
    line("observability_name", &cluster.config.stat_name);
    if let Discovery::Eds { service_name, .. } = &cluster.config.discovery
        && *service_name != cluster.config.name
    {
        line("eds_service_name", service_name);
    }
    if cluster.config.outlier_detection.is_some() {
        for key in [
            "outlier::success_rate_average",
            "outlier::success_rate_ejection_threshold",
            "outlier::local_origin_success_rate_average",
            "outlier::local_origin_success_rate_ejection_threshold",
        ] {
            line(key, &-1);
        }
    }
    let breakers = &cluster.config.circuit_breakers;
    for (priority, one) in [("default", &breakers.default), ("high", &breakers.high)] {
        line(
            &format!("{priority}_priority::max_connections"),
            &one.max_connections,
        );
        line(
            &format!("{priority}_priority::max_pending_requests"),
            &one.max_pending_requests,
        );
        line(
            &format!("{priority}_priority::max_requests"),
            &one.max_requests,
        );
        line(
            &format!("{priority}_priority::max_retries"),
            &one.max_retries,
        );
    }
    line("added_via_api", &!cluster.raw.is_static);
    for host in cluster.endpoints.hosts() {
        let address = &host.address;
        for (key, value, _) in host_counters(host) {
            line(&format!("{address}::{key}"), &value);
        }
        line(&format!("{address}::hostname"), &host.hostname);
        line(&format!("{address}::health_flags"), &health_flags(host));
        line(&format!("{address}::weight"), &host.weight);
        line(&format!("{address}::region"), &host.locality.region);
        line(&format!("{address}::zone"), &host.locality.zone);
        line(&format!("{address}::sub_zone"), &host.locality.sub_zone);
        line(&format!("{address}::canary"), &false);
        line(&format!("{address}::priority"), &host.priority);
        line(&format!("{address}::success_rate"), &-1);
        line(&format!("{address}::local_origin_success_rate"), &-1);
    }
}

/// Name, value, and whether it is a gauge; in the order of Envoy's text.
fn host_counters(host: &Host) -> [(&'static str, u64, bool); 9] {
    let block = &host.block;
    [
        (
            "cx_active",
            block.active_connections.load(Relaxed).into(),
            true,
        ),
        (
            "cx_connect_fail",
            block.connect_failures.load(Relaxed),
            false,
        ),
        ("cx_total", block.connections_total.load(Relaxed), false),
        (
            "rq_active",
            block.active_requests.load(Relaxed).into(),
            true,
        ),
        ("rq_error", block.requests_error.load(Relaxed), false),
        ("rq_pending_active", 0, true),
        ("rq_success", block.requests_success.load(Relaxed), false),
        ("rq_timeout", block.requests_timeout.load(Relaxed), false),
        ("rq_total", block.requests_total.load(Relaxed), false),
    ]
}

fn health_flags(host: &Host) -> String {
    let mut flags = String::new();
    if host.block.failed_active_check.load(Relaxed) {
        flags.push_str("/failed_active_hc");
    }
    if host.block.ejected.load(Relaxed) {
        flags.push_str("/failed_outlier_check");
    }
    match host.health {
        HostHealth::Unhealthy => flags.push_str("/failed_eds_health"),
        HostHealth::Degraded => flags.push_str("/degraded_eds_health"),
        HostHealth::Draining => flags.push_str("/eds_status_draining"),
        HostHealth::Timeout => flags.push_str("/active_hc_timeout"),
        HostHealth::Unknown | HostHealth::Healthy => {}
    }
    if flags.is_empty() {
        "healthy".to_owned()
    } else {
        flags
    }
}

fn status(cluster: &ClusterPicture) -> admin::ClusterStatus {
    let eds_service_name = match &cluster.config.discovery {
        Discovery::Eds { service_name, .. } if *service_name != cluster.config.name => {
            service_name.to_string()
        }
        _ => String::new(),
    };
    let breakers = &cluster.config.circuit_breakers;
    admin::ClusterStatus {
        name: cluster.config.name.to_string(),
        added_via_api: !cluster.raw.is_static,
        host_statuses: cluster
            .endpoints
            .hosts()
            .map(|host| host_status(host))
            .collect(),
        circuit_breakers: Some(cluster::CircuitBreakers {
            thresholds: vec![
                thresholds(&breakers.default, 0),
                thresholds(&breakers.high, 1),
            ],
            per_host_thresholds: Vec::new(),
        }),
        observability_name: cluster.config.stat_name.to_string(),
        eds_service_name,
        ..Default::default()
    }
}

fn thresholds(one: &Thresholds, priority: i32) -> cluster::circuit_breakers::Thresholds {
    cluster::circuit_breakers::Thresholds {
        priority,
        max_connections: Some(one.max_connections),
        max_pending_requests: Some(one.max_pending_requests),
        max_requests: Some(one.max_requests),
        max_retries: Some(one.max_retries),
        ..Default::default()
    }
}

pub fn wire_address(address: &Address) -> core::Address {
    use core::address::Address as Wire;
    let address = match address {
        Address::Socket(socket) => Wire::SocketAddress(core::SocketAddress {
            address: socket.ip().to_string(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(
                socket.port().into(),
            )),
            ..Default::default()
        }),
        Address::Pipe(path) => Wire::Pipe(core::Pipe {
            path: path.display().to_string(),
            mode: 0,
        }),
    };
    core::Address {
        address: Some(address),
    }
}

fn host_status(host: &Host) -> admin::HostStatus {
    use admin::simple_metric::Type;
    // Counters first, then gauges.
    let mut stats: Vec<admin::SimpleMetric> = Vec::with_capacity(9);
    for gauges in [false, true] {
        for (name, value, gauge) in host_counters(host) {
            if gauge == gauges {
                let kind = if gauge { Type::Gauge } else { Type::Counter };
                stats.push(admin::SimpleMetric {
                    r#type: kind as i32,
                    value,
                    name: name.into(),
                });
            }
        }
    }
    let eds_health_status = match host.health {
        HostHealth::Unknown | HostHealth::Healthy => core::HealthStatus::Healthy,
        HostHealth::Unhealthy => core::HealthStatus::Unhealthy,
        HostHealth::Draining => core::HealthStatus::Draining,
        HostHealth::Timeout => core::HealthStatus::Timeout,
        HostHealth::Degraded => core::HealthStatus::Degraded,
    };
    admin::HostStatus {
        address: Some(wire_address(&host.address)),
        stats,
        health_status: Some(admin::HostHealthStatus {
            failed_active_health_check: host.block.failed_active_check.load(Relaxed),
            failed_outlier_check: host.block.ejected.load(Relaxed),
            eds_health_status: eds_health_status as i32,
            ..Default::default()
        }),
        weight: host.weight,
        hostname: host.hostname.to_string(),
        priority: host.priority,
        locality: Some(core::Locality {
            region: host.locality.region.clone(),
            zone: host.locality.zone.clone(),
            sub_zone: host.locality.sub_zone.clone(),
        }),
        ..Default::default()
    }
}
