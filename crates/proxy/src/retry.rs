//! Retries: Envoy's policy, its request headers, and the decision after each attempt.

use std::sync::Arc;
use std::time::Duration;

use envoy_api::envoy::extensions::retry::priority::previous_priorities::v3 as previous_priorities;
use envoy_api::route;

use crate::http::headers::Headers;
use crate::http::request::{RequestHead, ResponseHead};
use crate::matcher::HeaderMatcher;
use crate::parse::Context;
use crate::parse::compat::Message as _;

/// Conditions, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn(u32);

macro_rules! conditions {
    ($($bit:literal $constant:ident $name:literal $list:ident;)*) => {
        impl RetryOn {
            $(pub const $constant: RetryOn = RetryOn(1 << $bit);)*
            const TABLE: &'static [(&'static str, RetryOn, List)] =
                &[$(($name, RetryOn::$constant, List::$list)),*];
        }
    };
}

/// Which request header may name a condition; a policy may name all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    Http,
    Grpc,
}

conditions! {
    0 SERVER_ERROR "5xx" Http;
    1 GATEWAY_ERROR "gateway-error" Http;
    2 CONNECT_FAILURE "connect-failure" Http;
    3 RETRIABLE_4XX "retriable-4xx" Http;
    4 REFUSED_STREAM "refused-stream" Http;
    5 RETRIABLE_STATUS_CODES "retriable-status-codes" Http;
    6 RESET "reset" Http;
    7 RETRIABLE_HEADERS "retriable-headers" Http;
    8 ENVOY_RATELIMITED "envoy-ratelimited" Http;
    9 HTTP3_POST_CONNECT_FAILURE "http3-post-connect-failure" Http;
    10 RESET_BEFORE_REQUEST "reset-before-request" Http;
    11 CANCELLED "cancelled" Grpc;
    12 DEADLINE_EXCEEDED "deadline-exceeded" Grpc;
    13 RESOURCE_EXHAUSTED "resource-exhausted" Grpc;
    14 UNAVAILABLE "unavailable" Grpc;
    15 INTERNAL "internal" Grpc;
}

impl RetryOn {
    pub fn has(self, other: RetryOn) -> bool {
        self.0 & other.0 != 0
    }

    fn any(self, others: &[RetryOn]) -> bool {
        others.iter().any(|one| self.has(*one))
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Unknown words are passed over, as in Envoy.
    fn parse(text: &str, lists: &[List]) -> RetryOn {
        let mut on = RetryOn(0);
        for word in text.split(',').map(str::trim) {
            let row = Self::TABLE
                .iter()
                .find(|row| row.0 == word && lists.contains(&row.2));
            on.0 |= row.map_or(0, |row| row.1.0);
        }
        on
    }
}

#[derive(Debug, Clone)]
pub struct RetryPolicy {
    pub on: RetryOn,
    pub num_retries: u32,
    pub per_try_timeout: Option<Duration>,
    pub per_try_idle_timeout: Option<Duration>,
    pub status_codes: Vec<u32>,
    pub retriable_headers: Vec<HeaderMatcher>,
    /// Only requests that match one of these are retried; empty = all.
    pub request_headers: Vec<HeaderMatcher>,
    pub base_interval: Duration,
    pub max_interval: Duration,
    /// A host that was tried is not tried again, where another one is found.
    pub previous_hosts: bool,
    pub host_selection_max_attempts: u32,
    /// Move on to the next priority after this many attempts.
    pub previous_priorities: Option<u32>,
    pub rate_limited: Option<RateLimitedBackOff>,
}

/// The upstream says when to come back.
#[derive(Debug, Clone)]
pub struct RateLimitedBackOff {
    /// Lower case, and whether the value is a point in time (else seconds).
    headers: Vec<(String, bool)>,
    max_interval: Duration,
}

impl RateLimitedBackOff {
    fn interval(&self, response: &ResponseHead) -> Option<Duration> {
        self.headers.iter().find_map(|(name, timestamp)| {
            let value: u64 = response.headers.get_str(name)?.trim().parse().ok()?;
            let value = Duration::from_secs(value);
            let wait = if *timestamp {
                let now = std::time::SystemTime::now();
                value.checked_sub(now.duration_since(std::time::UNIX_EPOCH).ok()?)?
            } else {
                value
            };
            (!wait.is_zero() && wait <= self.max_interval).then_some(wait)
        })
    }
}

fields! {
    route::RetryPolicy {
        read: retry_on, num_retries, per_try_timeout, per_try_idle_timeout, retry_priority,
            retry_host_predicate, host_selection_retry_max_attempts, retriable_status_codes,
            retry_back_off, retriable_headers, retriable_request_headers,
            rate_limited_retry_back_off;
        reject: retry_options_predicates, refresh_cluster_on_retry;
    }
    route::retry_policy::RetryBackOff { read: base_interval, max_interval; }
    route::retry_policy::RateLimitedRetryBackOff { read: reset_headers, max_interval; }
    route::retry_policy::ResetHeader { read: name, format; }
    route::retry_policy::RetryHostPredicate { read: name, config_type; }
    route::retry_policy::RetryPriority { read: name, config_type; }
    previous_priorities::PreviousPrioritiesConfig {
        read: update_frequency;
    }
}

impl RetryPolicy {
    pub fn parse(context: &mut Context, message: &route::RetryPolicy) -> Option<RetryPolicy> {
        message.check(context);
        let (base_interval, max_interval) = back_off(context, message.retry_back_off.as_ref());
        let attempts = message.host_selection_retry_max_attempts;
        let mut policy = RetryPolicy {
            on: RetryOn::parse(&message.retry_on, &[List::Http, List::Grpc]),
            num_retries: message.num_retries.unwrap_or(1),
            per_try_timeout: context.timeout(
                "per_try_timeout",
                message.per_try_timeout.as_ref(),
                None,
            ),
            per_try_idle_timeout: context.timeout(
                "per_try_idle_timeout",
                message.per_try_idle_timeout.as_ref(),
                None,
            ),
            status_codes: message.retriable_status_codes.clone(),
            retriable_headers: context.each(
                "retriable_headers",
                &message.retriable_headers,
                HeaderMatcher::parse,
            ),
            request_headers: context.each(
                "retriable_request_headers",
                &message.retriable_request_headers,
                HeaderMatcher::parse,
            ),
            base_interval,
            max_interval,
            previous_hosts: false,
            host_selection_max_attempts: u32::try_from(attempts.max(1)).unwrap_or(u32::MAX),
            previous_priorities: None,
            rate_limited: context.optional(
                "rate_limited_retry_back_off",
                message.rate_limited_retry_back_off.as_ref(),
                rate_limited,
            ),
        };
        host_predicates(context, message, &mut policy);
        policy.previous_priorities = context.optional(
            "retry_priority",
            message.retry_priority.as_ref(),
            priorities,
        );
        Some(policy)
    }
}

fn host_predicates(context: &mut Context, message: &route::RetryPolicy, policy: &mut RetryPolicy) {
    use route::retry_policy::retry_host_predicate::ConfigType;
    for (index, predicate) in message.retry_host_predicate.iter().enumerate() {
        let config = predicate
            .config_type
            .as_ref()
            .map(|ConfigType::TypedConfig(any)| crate::parse::network_filter::config_name(any));
        let known = match config {
            Some(name) => {
                name == "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            }
            None => predicate.name == "envoy.retry_host_predicates.previous_hosts",
        };
        if known {
            policy.previous_hosts = true;
        } else {
            let place = format!("retry_host_predicate[{index}]");
            context.error_at(&place, format!("'{}' is not supported", predicate.name));
        }
    }
}

fn priorities(context: &mut Context, message: &route::retry_policy::RetryPriority) -> Option<u32> {
    use envoy_api::envoy::extensions::retry::priority::previous_priorities::v3 as wire;
    let route::retry_policy::retry_priority::ConfigType::TypedConfig(any) =
        message.config_type.as_ref()?;
    let config = context.open::<wire::PreviousPrioritiesConfig>(any)?;
    if config.update_frequency < 1 {
        context.error_at("update_frequency", "must be at least 1");
    }
    u32::try_from(config.update_frequency.max(1)).ok()
}

fn rate_limited(
    context: &mut Context,
    message: &route::retry_policy::RateLimitedRetryBackOff,
) -> Option<RateLimitedBackOff> {
    message.check(context);
    if message.reset_headers.is_empty() {
        context.error_at("reset_headers", "must have at least one member");
    }
    let headers = context.each("reset_headers", &message.reset_headers, |context, one| {
        one.check(context);
        context.non_empty("name", &one.name);
        Some((one.name.to_ascii_lowercase(), one.format == 1))
    });
    let max = context.duration("max_interval", message.max_interval.as_ref());
    Some(RateLimitedBackOff {
        headers,
        max_interval: max.unwrap_or(Duration::from_secs(300)),
    })
}

fn back_off(
    context: &mut Context,
    message: Option<&route::retry_policy::RetryBackOff>,
) -> (Duration, Duration) {
    let default = Duration::from_millis(25);
    let Some(message) = message else {
        return (default, default * 10);
    };
    context.field("retry_back_off", |context| {
        message.check(context);
        let base = context.duration("base_interval", message.base_interval.as_ref());
        let Some(base) = base.filter(|base| !base.is_zero()) else {
            context.error_at("base_interval", "is required and must be greater than 0");
            return (default, default * 10);
        };
        // Whole milliseconds, at least one.
        let base = base.max(Duration::from_millis(1));
        let max = context.duration("max_interval", message.max_interval.as_ref());
        let max = max.unwrap_or(base.saturating_mul(10));
        if max < base {
            context.error(
                "retry_policy.max_interval must greater than or equal to the \
                           retry_policy.base_interval",
            );
        }
        (base, max)
    })
}

/// Why an attempt ended without response headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetReason {
    ConnectFailure,
    ConnectTimeout,
    RefusedStream,
    RemoteReset,
    ConnectionTermination,
    ProtocolError,
    LocalReset,
    /// A circuit breaker: never retried.
    Overflow,
    PerTryTimeout,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    No,
    /// Try again after this long; a retry permit was taken by the caller's `permit`.
    Retry {
        after: Duration,
    },
    /// It would be retried, but the retries are used up (`URX`).
    LimitExceeded,
    /// It would be retried, but the breaker for retries is open.
    Overflow,
}

/// The retries of one request.
#[derive(Debug, Clone)]
pub struct RetryState {
    policy: Arc<RetryPolicy>,
    on: RetryOn,
    status_codes: Vec<u32>,
    remaining: u32,
    next_interval: Duration,
}

impl RetryState {
    /// `None` where nothing asks for retries. Takes Envoy's retry headers off the request; the
    /// connection manager has removed them from requests that may not use them.
    pub fn new(policy: Option<&Arc<RetryPolicy>>, head: &mut RequestHead) -> Option<RetryState> {
        let text = |name: &str| head.headers.get_str(name).map(str::to_owned);
        let on = text("x-envoy-retry-on").map(|text| RetryOn::parse(&text, &[List::Http]));
        let grpc = text("x-envoy-retry-grpc-on").map(|text| RetryOn::parse(&text, &[List::Grpc]));
        let max = text("x-envoy-max-retries").and_then(|text| text.parse::<u32>().ok());
        let codes = text("x-envoy-retriable-status-codes").unwrap_or_default();
        for name in RETRY_HEADERS {
            head.headers.remove(name);
        }
        if policy.is_none() && on.is_none() && grpc.is_none() {
            return None;
        }
        let policy = policy
            .cloned()
            .unwrap_or_else(|| Arc::new(RetryPolicy::none()));
        let mut state = RetryState {
            on: policy.on,
            status_codes: policy.status_codes.clone(),
            remaining: policy.num_retries,
            next_interval: policy.base_interval,
            policy,
        };
        state.on.0 |= on.unwrap_or_default().0 | grpc.unwrap_or_default().0;
        let wanted = &state.policy.request_headers;
        let head = &*head;
        if !wanted.is_empty()
            && !wanted
                .iter()
                .any(|one| one.matches(|name| head.values(name)))
        {
            state.on = RetryOn::default();
        }
        if let Some(max) = max.filter(|_| !state.on.is_empty()) {
            state.remaining = max;
        }
        state.status_codes.extend(
            codes
                .split(',')
                .filter_map(|code| code.trim().parse::<u32>().ok()),
        );
        Some(state)
    }

    pub fn policy(&self) -> &RetryPolicy {
        &self.policy
    }

    pub fn is_enabled(&self) -> bool {
        !self.on.is_empty() && self.remaining > 0
    }

    /// After response headers. `permit` takes a retry permit of the circuit breaker.
    pub fn after_headers(
        &mut self,
        response: &ResponseHead,
        random: u64,
        permit: impl FnOnce() -> bool,
    ) -> Decision {
        let wanted = self.wants_headers(response);
        let asked = self
            .policy
            .rate_limited
            .as_ref()
            .and_then(|one| one.interval(response));
        match (self.decide(wanted, random, permit), asked) {
            (Decision::Retry { .. }, Some(interval)) => {
                // At least as long as asked, up to half as long again.
                let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
                let more = Duration::from_millis(random % (millis / 2).max(1));
                Decision::Retry {
                    after: interval + more,
                }
            }
            (decision, _) => decision,
        }
    }

    /// After an attempt without response headers. `request_sent`: bytes of the request may have
    /// reached the upstream.
    pub fn after_reset(
        &mut self,
        reason: ResetReason,
        request_sent: bool,
        random: u64,
        permit: impl FnOnce() -> bool,
    ) -> Decision {
        let wanted = self.wants_reset(reason, request_sent);
        self.decide(wanted, random, permit)
    }

    fn decide(&mut self, wanted: bool, random: u64, permit: impl FnOnce() -> bool) -> Decision {
        if !wanted {
            return Decision::No;
        }
        if self.remaining == 0 {
            return Decision::LimitExceeded;
        }
        self.remaining -= 1;
        if !permit() {
            return Decision::Overflow;
        }
        Decision::Retry {
            after: self.next_back_off(random),
        }
    }

    /// Fully jittered, doubling up to the longest interval.
    fn next_back_off(&mut self, random: u64) -> Duration {
        let millis = |duration: Duration| {
            u64::try_from(duration.as_millis())
                .unwrap_or(u64::MAX)
                .max(1)
        };
        let interval = millis(self.next_interval);
        let longest = millis(self.policy.max_interval);
        self.next_interval = Duration::from_millis(interval.saturating_mul(2).min(longest));
        Duration::from_millis((random % interval).min(longest))
    }

    fn wants_headers(&self, response: &ResponseHead) -> bool {
        let on = self.on;
        if response.headers.contains("x-envoy-ratelimited") {
            return on.has(RetryOn::ENVOY_RATELIMITED);
        }
        let status = response.status;
        if on.has(RetryOn::SERVER_ERROR) && (500..600).contains(&status) {
            return true;
        }
        if on.has(RetryOn::GATEWAY_ERROR) && matches!(status, 502..=504) {
            return true;
        }
        if on.has(RetryOn::RETRIABLE_4XX) && status == 409 {
            return true;
        }
        if on.has(RetryOn::RETRIABLE_STATUS_CODES) && self.status_codes.contains(&u32::from(status))
        {
            return true;
        }
        if on.has(RetryOn::RETRIABLE_HEADERS)
            && self
                .policy
                .retriable_headers
                .iter()
                .any(|one| one.matches(|name| response.values(name)))
        {
            return true;
        }
        self.wants_grpc(&response.headers)
    }

    /// A status in the headers (a trailers-only response).
    fn wants_grpc(&self, headers: &Headers) -> bool {
        let status = headers
            .get_str("grpc-status")
            .and_then(|text| text.parse::<u32>().ok());
        let condition = match status {
            Some(1) => RetryOn::CANCELLED,
            Some(4) => RetryOn::DEADLINE_EXCEEDED,
            Some(8) => RetryOn::RESOURCE_EXHAUSTED,
            Some(13) => RetryOn::INTERNAL,
            Some(14) => RetryOn::UNAVAILABLE,
            _ => return false,
        };
        self.on.has(condition)
    }

    fn wants_reset(&self, reason: ResetReason, request_sent: bool) -> bool {
        let on = self.on;
        if reason == ResetReason::Overflow {
            return false;
        }
        // A reset becomes a 503, so it counts as 5xx and as a gateway error.
        if on.any(&[
            RetryOn::RESET,
            RetryOn::SERVER_ERROR,
            RetryOn::GATEWAY_ERROR,
        ]) {
            return true;
        }
        if on.has(RetryOn::RESET_BEFORE_REQUEST) && !request_sent {
            return true;
        }
        match reason {
            ResetReason::RefusedStream => on.has(RetryOn::REFUSED_STREAM),
            ResetReason::ConnectFailure | ResetReason::ConnectTimeout => {
                on.has(RetryOn::CONNECT_FAILURE)
            }
            _ => false,
        }
    }
}

/// Request headers that steer retries.
pub const RETRY_HEADERS: [&str; 5] = [
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-max-retries",
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
];

impl RetryPolicy {
    /// What headers alone start from.
    fn none() -> RetryPolicy {
        RetryPolicy {
            on: RetryOn::default(),
            num_retries: 1,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            status_codes: Vec::new(),
            retriable_headers: Vec::new(),
            request_headers: Vec::new(),
            base_interval: Duration::from_millis(25),
            max_interval: Duration::from_millis(250),
            previous_hosts: false,
            host_selection_max_attempts: 1,
            previous_priorities: None,
            rate_limited: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(on: &str, status_codes: Vec<u32>) -> RetryState {
        let message = route::RetryPolicy {
            retry_on: on.into(),
            num_retries: Some(2),
            retriable_status_codes: status_codes,
            ..Default::default()
        };
        let policy = RetryPolicy::parse(&mut Context::new(), &message).expect("policy");
        let mut head = RequestHead::new("GET", "a", "/");
        RetryState::new(Some(&Arc::new(policy)), &mut head).expect("state")
    }

    #[test]
    fn conditions_on_headers() {
        for (on, status, header, want, why) in [
            ("5xx", 500, None, true, "any server error"),
            ("5xx", 404, None, false, "not a server error"),
            ("gateway-error", 503, None, true, "gateway"),
            ("gateway-error", 500, None, false, "not the gateway's"),
            ("retriable-4xx", 409, None, true, "conflict"),
            ("retriable-4xx", 404, None, false, "only conflict"),
            ("retriable-status-codes", 418, None, true, "listed"),
            ("retriable-status-codes", 419, None, false, "not listed"),
            (
                "unavailable,cancelled",
                200,
                Some(("grpc-status", "14")),
                true,
                "unavailable",
            ),
            (
                "cancelled",
                200,
                Some(("grpc-status", "14")),
                false,
                "another status",
            ),
            (
                "5xx",
                503,
                Some(("x-envoy-ratelimited", "true")),
                false,
                "rate limited",
            ),
            (
                "envoy-ratelimited",
                429,
                Some(("x-envoy-ratelimited", "true")),
                true,
                "wanted",
            ),
            (
                "nonsense",
                500,
                None,
                false,
                "unknown words are passed over",
            ),
        ] {
            let mut response = ResponseHead::new(status);
            if let Some((name, value)) = header {
                response.headers.append(name, value.as_bytes());
            }
            let decision = state(on, vec![418]).after_headers(&response, 0, || true);
            assert_eq!(decision != Decision::No, want, "{on} {status}: {why}");
        }
    }

    #[test]
    fn conditions_on_resets() {
        use ResetReason as R;
        for (on, reason, sent, want, why) in [
            ("reset", R::RemoteReset, true, true, "any reset"),
            ("5xx", R::ConnectionTermination, true, true, "becomes a 503"),
            (
                "connect-failure",
                R::ConnectFailure,
                false,
                true,
                "no connection",
            ),
            (
                "connect-failure",
                R::RemoteReset,
                true,
                false,
                "a connection",
            ),
            ("refused-stream", R::RefusedStream, true, true, "refused"),
            (
                "reset-before-request",
                R::ConnectionTermination,
                false,
                true,
                "nothing sent",
            ),
            (
                "reset-before-request",
                R::ConnectionTermination,
                true,
                false,
                "something sent",
            ),
            (
                "reset",
                R::Overflow,
                false,
                false,
                "a breaker is never retried",
            ),
        ] {
            let decision = state(on, vec![]).after_reset(reason, sent, 0, || true);
            assert_eq!(decision != Decision::No, want, "{on} {reason:?}: {why}");
        }
    }

    #[test]
    fn runs_out_and_backs_off() {
        let mut state = state("5xx", vec![]);
        let response = ResponseHead::new(503);
        let after = |millis| Decision::Retry {
            after: Duration::from_millis(millis),
        };
        assert_eq!(
            state.after_headers(&response, 24, || true),
            after(24),
            "within 25 ms"
        );
        assert_eq!(
            state.after_headers(&response, 49, || true),
            after(49),
            "doubled"
        );
        assert_eq!(
            state.after_headers(&response, 0, || true),
            Decision::LimitExceeded
        );
    }

    #[test]
    fn headers_steer() {
        let mut head = RequestHead::new("GET", "a", "/");
        head.headers.append("x-envoy-retry-on", b"5xx");
        head.headers.append("x-envoy-max-retries", b"7");
        let state = RetryState::new(None, &mut head).expect("state");
        assert_eq!(state.remaining, 7);
        assert!(!head.headers.contains("x-envoy-retry-on"), "taken off");
        assert!(RetryState::new(None, &mut head).is_none(), "nothing asks");
    }
}
