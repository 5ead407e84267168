//! Outlier detection (passive); active health checks are refused.

use std::time::Duration;

use envoy_api::cluster;

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
            max_ejection_time, max_ejection_time_jitter, always_eject_one_host;
        reject: enforcing_failure_percentage_local_origin, monitors, detect_degraded_hosts;
        ignore: enforcing_local_origin_success_rate =
            "success rates are of all errors, split or not",
            successful_active_health_check_uneject_host = "health_checks are refused";
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
    })
}
