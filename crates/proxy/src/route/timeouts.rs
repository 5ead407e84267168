//! How long a request may take: the route's timeouts, gRPC's header, Envoy's request headers.

use std::time::Duration;

use super::Selected;
use crate::http::request::RequestHead;

/// `None` = no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    pub global: Option<Duration>,
    pub per_try: Option<Duration>,
    pub per_try_idle: Option<Duration>,
    /// The whole stream, from its headers on.
    pub max_stream: Option<Duration>,
}

const ZERO: Duration = Duration::ZERO;

impl Selected {
    /// The limits of this request; takes Envoy's timeout headers off it.
    pub fn timeouts(&self, head: &mut RequestHead) -> Timeouts {
        let Some(forward) = self.forward() else {
            return Timeouts::default();
        };
        let grpc = head.is_grpc();
        let grpc_header = head.headers.get("grpc-timeout").and_then(grpc_timeout);
        // A limit for the whole stream takes the place of the route's timeout.
        let mut global = match forward.max_stream {
            Some(_) => ZERO,
            None => forward.timeout.unwrap_or(ZERO),
        };
        let new_style = forward
            .max_stream
            .as_ref()
            .is_some_and(|one| one.grpc_header_max.is_some());
        if grpc
            && !new_style
            && let Some(max) = forward.max_grpc_timeout
        {
            let mut wanted = grpc_header.unwrap_or(ZERO);
            if let Some(offset) = forward
                .grpc_timeout_offset
                .filter(|offset| *offset < wanted)
            {
                wanted -= offset;
            }
            if max != ZERO && (wanted == ZERO || wanted > max) {
                wanted = max;
            }
            global = wanted;
        }
        let mut max_stream = forward.max_stream.as_ref().and_then(|one| one.duration);
        if new_style && grpc_header.is_some() {
            let stream = forward.max_stream.as_ref();
            let max = stream.and_then(|one| one.grpc_header_max).unwrap_or(ZERO);
            let mut wanted = grpc_header.unwrap_or(ZERO);
            if let Some(offset) = stream
                .and_then(|one| one.grpc_header_offset)
                .filter(|offset| *offset < wanted)
            {
                wanted -= offset;
            }
            max_stream = Some(if max == ZERO { wanted } else { wanted.min(max) });
        }
        let retry = forward.retry.as_deref();
        let mut per_try = retry
            .and_then(|retry| retry.per_try_timeout)
            .unwrap_or(ZERO);
        if let Some(millis) = take_millis(head, "x-envoy-upstream-rq-timeout-ms") {
            global = millis;
        }
        if let Some(millis) = take_millis(head, "x-envoy-upstream-rq-per-try-timeout-ms") {
            per_try = millis;
        }
        if global != ZERO && per_try >= global {
            per_try = ZERO;
        }
        let limit = |duration: Duration| (duration != ZERO).then_some(duration);
        Timeouts {
            global: limit(global),
            per_try: limit(per_try),
            per_try_idle: retry.and_then(|retry| retry.per_try_idle_timeout),
            max_stream: max_stream.and_then(limit),
        }
    }
}

impl Timeouts {
    /// What is left of them once `elapsed` is gone; a try never gets more than the whole.
    pub fn after(&self, elapsed: Duration) -> Timeouts {
        let global = self.global.map(|global| global.saturating_sub(elapsed));
        let per_try = match (self.per_try, global) {
            (Some(per_try), Some(global)) => Some(per_try.min(global)),
            (per_try, _) => per_try,
        };
        Timeouts {
            global,
            per_try,
            ..*self
        }
    }

    /// Tells the upstream how long we wait: `x-envoy-expected-rq-timeout-ms` (unless Envoy's
    /// headers are suppressed), and `grpc-timeout` where the request is gRPC with a limit.
    pub fn announce(&self, head: &mut RequestHead, suppress: bool, rewrite_grpc: bool) {
        let expected = match (self.per_try, self.global) {
            (Some(per_try), _) => Some(per_try),
            (None, global) => global,
        };
        let Some(expected) = expected else { return };
        let millis = expected.as_millis().to_string();
        if !suppress {
            head.headers
                .set("x-envoy-expected-rq-timeout-ms", millis.as_bytes());
        }
        if rewrite_grpc && head.is_grpc() {
            head.headers
                .set("grpc-timeout", grpc_timeout_text(expected).as_bytes());
        }
    }
}

fn take_millis(head: &mut RequestHead, name: &str) -> Option<Duration> {
    let value = head
        .headers
        .get_str(name)
        .and_then(|text| text.parse::<u64>().ok());
    head.headers.remove(name);
    value.map(Duration::from_millis)
}

/// `1S`, `20m`: up to eight digits and a unit.
pub fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        // Envoy rounds up to milliseconds.
        b'u' => Duration::from_millis(count.div_ceil(1000)),
        b'n' => Duration::from_millis(count.div_ceil(1_000_000)),
        _ => return None,
    })
}

fn grpc_timeout_text(timeout: Duration) -> String {
    const LIMIT: u128 = 99_999_999;
    let millis = timeout.as_millis();
    for (unit, scale) in [("m", 1), ("S", 1000), ("M", 60_000), ("H", 3_600_000)] {
        if millis / scale <= LIMIT {
            return format!("{}{unit}", millis / scale);
        }
    }
    format!("{LIMIT}H")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_grpc_timeouts() {
        for (text, want) in [
            ("1H", Some(3_600_000)),
            ("2M", Some(120_000)),
            ("3S", Some(3000)),
            ("4m", Some(4)),
            ("1500u", Some(2)),
            ("1n", Some(1)),
            ("", None),
            ("S", None),
            ("123456789S", None),
            ("1x", None),
            ("-1S", None),
        ] {
            let got = grpc_timeout(text.as_bytes()).map(|one| one.as_millis());
            assert_eq!(got, want, "{text}");
        }
    }
}
