//! Retry policies of routes: what a virtual service writes, the mesh's default, or Istio's.

use envoy_api::any::pack;
use envoy_api::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_api::envoy::extensions::retry::priority::previous_priorities::v3 as previous_priorities;
use envoy_api::route::RetryPolicy;
use envoy_api::route::retry_policy::{
    RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};
use mesh_api::kinds::virtual_service::HttpRetry;

use super::message::duration;

const DEFAULT_RETRY_ON: &str =
    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
const STATUS_CODES: &str = "retriable-status-codes";
const DEFAULT_ATTEMPTS: u32 = 2;
const HOST_ATTEMPTS: i64 = 5;

/// The policy of a route; `hashed`: a consistent hash picks the host, so another host must not
/// be forced.
pub fn policy(
    written: Option<&HttpRetry>,
    mesh: Option<&HttpRetry>,
    hashed: bool,
) -> Option<RetryPolicy> {
    let mut policy = RetryPolicy {
        retry_on: DEFAULT_RETRY_ON.to_owned(),
        num_retries: Some(DEFAULT_ATTEMPTS),
        host_selection_retry_max_attempts: HOST_ATTEMPTS,
        ..Default::default()
    };
    let mut avoids_previous = !hashed;
    if let Some(written) = written.or(mesh) {
        let attempts = u32::try_from(written.attempts).unwrap_or_default();
        if attempts == 0 {
            return None;
        }
        policy.num_retries = Some(attempts);
        if !written.retry_on.is_empty() {
            (policy.retry_on, policy.retriable_status_codes) = parse_retry_on(&written.retry_on);
        }
        policy.per_try_timeout = written.per_try_timeout.map(duration);
        if written.retry_remote_localities.unwrap_or(false) {
            let config = previous_priorities::PreviousPrioritiesConfig {
                update_frequency: 2,
            };
            policy.retry_priority = Some(RetryPriority {
                name: "envoy.retry_priorities.previous_priorities".to_owned(),
                config_type: Some(retry_priority::ConfigType::TypedConfig(pack(&config))),
            });
        }
        policy.retry_back_off = written.backoff.map(|base| RetryBackOff {
            base_interval: Some(duration(base)),
            ..Default::default()
        });
        avoids_previous &= written.retry_ignore_previous_hosts.unwrap_or(true);
    }
    if avoids_previous {
        policy.retry_host_predicate.push(RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(pack(
                &PreviousHostsPredicate {},
            ))),
        });
    }
    Some(policy)
}

/// Status codes among the conditions move to their own list.
fn parse_retry_on(text: &str) -> (String, Vec<u32>) {
    let mut conditions = Vec::new();
    let mut codes = Vec::new();
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        match part.parse::<u32>() {
            Ok(code) => codes.push(code),
            Err(_) => conditions.push(part),
        }
    }
    if !codes.is_empty() && !conditions.contains(&STATUS_CODES) {
        conditions.push(STATUS_CODES);
    }
    (conditions.join(","), codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_conditions() {
        for (text, conditions, codes) in [
            ("5xx,gateway-error", "5xx,gateway-error", vec![]),
            ("503, 504", "retriable-status-codes", vec![503, 504]),
            (
                "reset,retriable-status-codes,503",
                "reset,retriable-status-codes",
                vec![503],
            ),
        ] {
            assert_eq!(
                parse_retry_on(text),
                (conditions.to_owned(), codes),
                "{text}"
            );
        }
        let off = HttpRetry {
            attempts: 0,
            ..Default::default()
        };
        assert_eq!(
            policy(Some(&off), None, false),
            None,
            "0 attempts switch retries off"
        );
        let default = policy(None, None, false).expect("a default");
        assert_eq!(default.num_retries, Some(2));
        assert_eq!(default.retry_host_predicate.len(), 1);
    }
}
