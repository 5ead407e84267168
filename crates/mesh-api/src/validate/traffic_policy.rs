//! TrafficPolicy and its blocks for outliers, tunnels and retry budgets.

use super::{Check, connection, load_balancer, tls, values};
use crate::host;
use crate::kinds::outlier_detection::OutlierDetection;
use crate::kinds::traffic_policy::{PortTrafficPolicy, RetryBudget, TrafficPolicy, TunnelSettings};

pub fn check(c: &mut Check<'_>, policy: &TrafficPolicy) {
    if *policy == TrafficPolicy::default() {
        c.error("", "a traffic policy must have at least one field");
    }
    if policy.tunnel.is_some() && policy.proxy_protocol.is_some() {
        c.error("proxyProtocol", "cannot stand beside tunnel");
    }
    let outlier = policy.outlier_detection.as_ref();
    c.some(
        "loadBalancer",
        policy.load_balancer.as_ref(),
        |c, balancer| {
            load_balancer::check(c, balancer, outlier.is_some());
        },
    );
    c.some(
        "connectionPool",
        policy.connection_pool.as_ref(),
        connection::check,
    );
    c.some("outlierDetection", outlier, check_outlier);
    c.some("tls", policy.tls.as_ref(), tls::check_client);
    c.each("portLevelSettings", &policy.port_level_settings, check_port);
    c.some("tunnel", policy.tunnel.as_ref(), check_tunnel);
    c.some("retryBudget", policy.retry_budget.as_ref(), check_budget);
}

fn check_port(c: &mut Check<'_>, policy: &PortTrafficPolicy) {
    match &policy.port {
        Some(port) => c.verify("port.number", values::port(port.number)),
        None => c.error("port", "must be provided"),
    }
    let bare = PortTrafficPolicy {
        port: policy.port.clone(),
        ..PortTrafficPolicy::default()
    };
    if *policy == bare {
        c.error("", "a port's traffic policy must have at least one field");
    }
    let outlier = policy.outlier_detection.as_ref();
    c.some(
        "loadBalancer",
        policy.load_balancer.as_ref(),
        |c, balancer| {
            load_balancer::check(c, balancer, outlier.is_some());
        },
    );
    c.some(
        "connectionPool",
        policy.connection_pool.as_ref(),
        connection::check,
    );
    c.some("outlierDetection", outlier, check_outlier);
    c.some("tls", policy.tls.as_ref(), tls::check_client);
}

pub fn check_outlier(c: &mut Check<'_>, outlier: &OutlierDetection) {
    if outlier.consecutive_errors != 0 {
        c.warn(
            "consecutiveErrors",
            "is deprecated, use consecutive5xxErrors",
        );
    }
    for (field, duration) in [
        ("interval", outlier.interval),
        ("baseEjectionTime", outlier.base_ejection_time),
    ] {
        if let Some(duration) = duration {
            c.verify(field, values::duration(duration));
        }
    }
    for (field, percent) in [
        ("maxEjectionPercent", outlier.max_ejection_percent),
        ("minHealthPercent", outlier.min_health_percent),
    ] {
        if !(0..=100).contains(&percent) {
            c.not_allowed(field, "out of range", "0 to 100");
        }
    }
    if outlier
        .consecutive_local_origin_failures
        .is_some_and(|n| n > 0)
        && !outlier.split_external_local_origin_errors
    {
        let why = "needs splitExternalLocalOriginErrors: true";
        c.error("consecutiveLocalOriginFailures", why);
    }
    c.each(
        "outlierDetectionHttpErrorCodes",
        &outlier.outlier_detection_http_error_codes,
        |c, n| {
            if !(100..=599).contains(n) {
                c.not_allowed("", "out of range", "100 to 599");
            }
        },
    );
}

fn check_tunnel(c: &mut Check<'_>, tunnel: &TunnelSettings) {
    if !matches!(tunnel.protocol.as_str(), "" | "CONNECT" | "POST") {
        c.not_allowed("protocol", "is not known", "CONNECT, POST");
    }
    if !values::is_ip(&tunnel.target_host) {
        c.verify("targetHost", host::check_fqdn(&tunnel.target_host));
    }
    c.verify("targetPort", values::port(tunnel.target_port));
}

fn check_budget(c: &mut Check<'_>, budget: &RetryBudget) {
    if budget
        .percent
        .is_some_and(|percent| !(0.0..=100.0).contains(&percent))
    {
        c.not_allowed("percent", "out of range", "0 to 100");
    }
}
