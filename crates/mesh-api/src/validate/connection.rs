//! Connection pools.

use super::{Check, values};
use crate::kinds::connection_pool::{
    ConnectionPoolSettings, H2UpgradePolicy, HttpSettings, TcpKeepalive, TcpSettings,
};

pub fn check(c: &mut Check<'_>, pool: &ConnectionPoolSettings) {
    if pool.tcp.is_none() && pool.http.is_none() {
        c.error("", "tcp or http must be set");
    }
    c.some("tcp", pool.tcp.as_ref(), check_tcp);
    c.some("http", pool.http.as_ref(), check_http);
}

fn check_tcp(c: &mut Check<'_>, tcp: &TcpSettings) {
    not_negative(c, &[("maxConnections", tcp.max_connections)]);
    for (field, duration) in [
        ("connectTimeout", tcp.connect_timeout),
        ("maxConnectionDuration", tcp.max_connection_duration),
    ] {
        if let Some(duration) = duration {
            c.verify(field, values::duration(duration));
        }
    }
    if let Some(idle) = tcp.idle_timeout.filter(|idle| !idle.is_zero()) {
        c.verify("idleTimeout", values::duration(idle));
    }
    c.some("tcpKeepalive", tcp.tcp_keepalive.as_ref(), check_keepalive);
}

fn check_keepalive(c: &mut Check<'_>, keepalive: &TcpKeepalive) {
    for (field, duration) in [("time", keepalive.time), ("interval", keepalive.interval)] {
        if let Some(duration) = duration {
            c.verify(field, values::duration(duration));
        }
    }
}

fn check_http(c: &mut Check<'_>, http: &HttpSettings) {
    not_negative(
        c,
        &[
            ("http1MaxPendingRequests", http.http1_max_pending_requests),
            ("http2MaxRequests", http.http2_max_requests),
            ("maxRequestsPerConnection", http.max_requests_per_connection),
            ("maxRetries", http.max_retries),
            ("maxConcurrentStreams", http.max_concurrent_streams),
        ],
    );
    if let Some(idle) = http.idle_timeout {
        c.verify("idleTimeout", values::duration(idle));
    }
    if http.h2_upgrade_policy == H2UpgradePolicy::Upgrade && http.use_client_protocol {
        c.error(
            "useClientProtocol",
            "cannot stand beside h2UpgradePolicy: UPGRADE",
        );
    }
    c.some(
        "http2KeepAlive",
        http.http2_keep_alive.as_ref(),
        |c, keepalive| {
            for (field, duration) in [
                ("interval", keepalive.interval),
                ("timeout", keepalive.timeout),
            ] {
                match duration {
                    Some(duration) => c.verify(field, values::duration(duration)),
                    None => c.error(field, "must be set"),
                }
            }
        },
    );
}

fn not_negative(c: &mut Check<'_>, fields: &[(&str, i32)]) {
    for (field, value) in fields {
        if *value < 0 {
            c.error(field, "must not be negative");
        }
    }
}
