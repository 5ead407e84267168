//! Outlier detection (passive) and health checks (active).

use std::time::Duration;

use envoy_api::{cluster, core};

use crate::parse::Context;
use crate::parse::compat::Message as _;

/// Envoy's outlier detection with its defaults filled in; percentages 0..=100.
#[derive(Debug, Clone, PartialEq)]
pub struct OutlierDetection {
    pub interval: Duration,
    pub base_ejection_time: Duration,
    pub max_ejection_time: Duration,
    pub max_ejection_time_jitter: Duration,
    pub max_ejection_percent: u32,
    pub always_eject_one_host: bool,
    pub consecutive_5xx: u32,
    pub enforcing_consecutive_5xx: u32,
    pub consecutive_gateway_failure: u32,
    pub enforcing_consecutive_gateway_failure: u32,
    pub split_external_local_origin_errors: bool,
    pub consecutive_local_origin_failure: u32,
    pub enforcing_consecutive_local_origin_failure: u32,
    pub enforcing_success_rate: u32,
    pub success_rate_minimum_hosts: u32,
    pub success_rate_request_volume: u32,
    /// Thousandths.
    pub success_rate_stdev_factor: u32,
    pub enforcing_failure_percentage: u32,
    pub failure_percentage_threshold: u32,
    pub failure_percentage_minimum_hosts: u32,
    pub failure_percentage_request_volume: u32,
    pub successful_check_unejects: bool,
}

#[derive(Debug, Clone)]
pub struct HealthCheck {
    pub timeout: Duration,
    pub interval: Duration,
    pub initial_jitter: Duration,
    pub interval_jitter: Duration,
    pub interval_jitter_percent: u32,
    pub unhealthy_threshold: u32,
    pub healthy_threshold: u32,
    pub no_traffic_interval: Duration,
    pub unhealthy_interval: Duration,
    pub unhealthy_edge_interval: Duration,
    pub healthy_edge_interval: Duration,
    pub reuse_connection: bool,
    pub alt_port: Option<u16>,
    pub checker: HealthChecker,
}

#[derive(Debug, Clone)]
pub enum HealthChecker {
    Http {
        host: String,
        path: String,
        /// Half-open ranges; 200..201 unless set.
        expected: Vec<(i64, i64)>,
        http2: bool,
        method: &'static str,
    },
    Tcp {
        send: Vec<u8>,
        receive: Vec<Vec<u8>>,
    },
    Grpc {
        service_name: String,
        authority: String,
    },
}

fields! {
    cluster::OutlierDetection {
        read: consecutive_5xx, interval, base_ejection_time, max_ejection_percent,
            enforcing_consecutive_5xx, enforcing_success_rate, success_rate_minimum_hosts,
            success_rate_request_volume, success_rate_stdev_factor, consecutive_gateway_failure,
            enforcing_consecutive_gateway_failure, split_external_local_origin_errors,
            consecutive_local_origin_failure, enforcing_consecutive_local_origin_failure,
            failure_percentage_threshold, enforcing_failure_percentage,
            failure_percentage_minimum_hosts, failure_percentage_request_volume,
            max_ejection_time, max_ejection_time_jitter,
            successful_active_health_check_uneject_host, always_eject_one_host;
        reject: enforcing_failure_percentage_local_origin, monitors, detect_degraded_hosts;
        ignore: enforcing_local_origin_success_rate =
            "success rates are of all errors, split or not";
    }
    core::HealthCheck {
        read: timeout, interval, initial_jitter, interval_jitter, interval_jitter_percent,
            unhealthy_threshold, healthy_threshold, alt_port, reuse_connection,
            no_traffic_interval, unhealthy_interval, unhealthy_edge_interval,
            healthy_edge_interval, health_checker;
        reject: no_traffic_healthy_interval, event_service, tls_options,
            transport_socket_match_criteria;
        ignore: event_log_path = "events are in the log",
            event_logger = "events are in the log",
            always_log_health_check_failures = "events are in the log",
            always_log_health_check_success = "events are in the log";
    }
    core::health_check::HttpHealthCheck {
        read: host, path, expected_statuses, codec_client_type, method;
        reject: send, receive, request_headers_to_add, request_headers_to_remove,
            retriable_statuses, service_name_matcher;
        ignore: response_buffer_size = "bodies are not read";
    }
    core::health_check::TcpHealthCheck {
        read: send, receive;
        reject: proxy_protocol_config;
    }
    core::health_check::GrpcHealthCheck {
        read: service_name, authority;
        reject: initial_metadata;
    }
}

// tidy: long function: one field after another.
pub fn outlier_detection(
    context: &mut Context,
    message: &cluster::OutlierDetection,
) -> Option<OutlierDetection> {
    message.check(context);
    let percent = |context: &mut Context, name: &str, value: Option<u32>, default: u32| {
        let value = value.unwrap_or(default);
        if value > 100 {
            context.error_at(name, "must be at most 100");
        }
        value
    };
    let interval = context.duration("interval", message.interval.as_ref());
    let interval = interval.unwrap_or(Duration::from_secs(10));
    let base = context.duration("base_ejection_time", message.base_ejection_time.as_ref());
    let base = base.unwrap_or(Duration::from_secs(30));
    for (name, value) in [("interval", interval), ("base_ejection_time", base)] {
        if value.is_zero() {
            context.error_at(name, "must be greater than 0");
        }
    }
    let longest = context.duration("max_ejection_time", message.max_ejection_time.as_ref());
    let jitter = context.duration(
        "max_ejection_time_jitter",
        message.max_ejection_time_jitter.as_ref(),
    );
    Some(OutlierDetection {
        interval,
        base_ejection_time: base,
        max_ejection_time: longest.unwrap_or(Duration::from_secs(300)).max(base),
        max_ejection_time_jitter: jitter.unwrap_or(Duration::ZERO),
        max_ejection_percent: percent(
            context,
            "max_ejection_percent",
            message.max_ejection_percent,
            10,
        ),
        always_eject_one_host: message.always_eject_one_host.unwrap_or(false),
        consecutive_5xx: message.consecutive_5xx.unwrap_or(5),
        enforcing_consecutive_5xx: percent(
            context,
            "enforcing_consecutive_5xx",
            message.enforcing_consecutive_5xx,
            100,
        ),
        consecutive_gateway_failure: message.consecutive_gateway_failure.unwrap_or(5),
        enforcing_consecutive_gateway_failure: percent(
            context,
            "enforcing_consecutive_gateway_failure",
            message.enforcing_consecutive_gateway_failure,
            0,
        ),
        split_external_local_origin_errors: message.split_external_local_origin_errors,
        consecutive_local_origin_failure: message.consecutive_local_origin_failure.unwrap_or(5),
        enforcing_consecutive_local_origin_failure: percent(
            context,
            "enforcing_consecutive_local_origin_failure",
            message.enforcing_consecutive_local_origin_failure,
            100,
        ),
        enforcing_success_rate: percent(
            context,
            "enforcing_success_rate",
            message.enforcing_success_rate,
            100,
        ),
        success_rate_minimum_hosts: message.success_rate_minimum_hosts.unwrap_or(5),
        success_rate_request_volume: message.success_rate_request_volume.unwrap_or(100),
        success_rate_stdev_factor: message.success_rate_stdev_factor.unwrap_or(1900),
        enforcing_failure_percentage: percent(
            context,
            "enforcing_failure_percentage",
            message.enforcing_failure_percentage,
            0,
        ),
        failure_percentage_threshold: percent(
            context,
            "failure_percentage_threshold",
            message.failure_percentage_threshold,
            85,
        ),
        failure_percentage_minimum_hosts: message.failure_percentage_minimum_hosts.unwrap_or(5),
        failure_percentage_request_volume: message.failure_percentage_request_volume.unwrap_or(50),
        successful_check_unejects: message
            .successful_active_health_check_uneject_host
            .unwrap_or(true),
    })
}

pub fn health_check(context: &mut Context, message: &core::HealthCheck) -> Option<HealthCheck> {
    message.check(context);
    let required = |context: &mut Context, name: &str, value: Option<&prost_types::Duration>| {
        let parsed = context
            .duration(name, value)
            .filter(|value| !value.is_zero());
        if parsed.is_none() {
            context.error_at(name, "is required and must be greater than 0");
        }
        parsed.unwrap_or(Duration::from_secs(1))
    };
    let timeout = required(context, "timeout", message.timeout.as_ref());
    let interval = required(context, "interval", message.interval.as_ref());
    for (name, value) in [
        ("unhealthy_threshold", message.unhealthy_threshold),
        ("healthy_threshold", message.healthy_threshold),
    ] {
        if value.is_none() {
            context.error_at(name, "is required");
        }
    }
    let zero = Duration::ZERO;
    let initial_jitter = context
        .duration("initial_jitter", message.initial_jitter.as_ref())
        .unwrap_or(zero);
    let interval_jitter = context
        .duration("interval_jitter", message.interval_jitter.as_ref())
        .unwrap_or(zero);
    let unhealthy_interval = context
        .duration("unhealthy_interval", message.unhealthy_interval.as_ref())
        .unwrap_or(interval);
    let checker = checker(context, message)?;
    Some(HealthCheck {
        timeout,
        interval,
        initial_jitter,
        interval_jitter,
        interval_jitter_percent: message.interval_jitter_percent,
        unhealthy_threshold: message.unhealthy_threshold.unwrap_or(1),
        healthy_threshold: message.healthy_threshold.unwrap_or(1),
        no_traffic_interval: context
            .duration("no_traffic_interval", message.no_traffic_interval.as_ref())
            .unwrap_or(Duration::from_secs(60)),
        unhealthy_interval,
        unhealthy_edge_interval: context
            .duration(
                "unhealthy_edge_interval",
                message.unhealthy_edge_interval.as_ref(),
            )
            .unwrap_or(unhealthy_interval),
        healthy_edge_interval: context
            .duration(
                "healthy_edge_interval",
                message.healthy_edge_interval.as_ref(),
            )
            .unwrap_or(interval),
        reuse_connection: message.reuse_connection.unwrap_or(true),
        alt_port: message.alt_port.and_then(|port| u16::try_from(port).ok()),
        checker,
    })
}

fn checker(context: &mut Context, message: &core::HealthCheck) -> Option<HealthChecker> {
    use core::health_check::HealthChecker as Wire;
    match &message.health_checker {
        Some(Wire::HttpHealthCheck(http)) => context.field("http_health_check", |context| {
            http.check(context);
            context.non_empty("path", &http.path);
            let expected = http.expected_statuses.iter();
            let expected: Vec<_> = expected.map(|range| (range.start, range.end)).collect();
            let default = vec![(200, 201)];
            let method = match context.enumeration("method", http.method)? {
                core::RequestMethod::MethodUnspecified | core::RequestMethod::Get => "GET",
                core::RequestMethod::Head => "HEAD",
                core::RequestMethod::Post => "POST",
                core::RequestMethod::Put => "PUT",
                core::RequestMethod::Delete => "DELETE",
                core::RequestMethod::Options => "OPTIONS",
                core::RequestMethod::Trace => "TRACE",
                core::RequestMethod::Patch => "PATCH",
                core::RequestMethod::Connect => {
                    context.error_at("method", "must not be CONNECT");
                    return None;
                }
            };
            Some(HealthChecker::Http {
                host: http.host.clone(),
                path: http.path.clone(),
                expected: if expected.is_empty() {
                    default
                } else {
                    expected
                },
                http2: http.codec_client_type == 1,
                method,
            })
        }),
        Some(Wire::TcpHealthCheck(tcp)) => context.field("tcp_health_check", |context| {
            tcp.check(context);
            let send = context
                .optional("send", tcp.send.as_ref(), payload)
                .unwrap_or_default();
            let receive = context.each("receive", &tcp.receive, payload);
            Some(HealthChecker::Tcp { send, receive })
        }),
        Some(Wire::GrpcHealthCheck(grpc)) => context.field("grpc_health_check", |context| {
            grpc.check(context);
            Some(HealthChecker::Grpc {
                service_name: grpc.service_name.clone(),
                authority: grpc.authority.clone(),
            })
        }),
        Some(Wire::CustomHealthCheck(custom)) => {
            let message = format!("'{}' is not supported", custom.name);
            context.error_at("custom_health_check", message);
            None
        }
        None => {
            context.error_at("health_checker", "is required");
            None
        }
    }
}

/// Text payloads are hexadecimal.
fn payload(context: &mut Context, message: &core::health_check::Payload) -> Option<Vec<u8>> {
    use core::health_check::payload::Payload;
    match &message.payload {
        Some(Payload::Binary(bytes)) => Some(bytes.to_vec()),
        Some(Payload::Text(text)) => {
            let pairs = text.as_bytes().chunks(2);
            let bytes: Option<Vec<u8>> = pairs
                .map(|pair| {
                    let pair = std::str::from_utf8(pair)
                        .ok()
                        .filter(|pair| pair.len() == 2)?;
                    u8::from_str_radix(pair, 16).ok()
                })
                .collect();
            if bytes.is_none() {
                context.error(format!("invalid hex string '{text}'"));
            }
            bytes
        }
        None => None,
    }
}
