//! A token bucket per filter or route, shared by all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use envoy_api::local_ratelimit as wire;
use envoy_api::types;
use prost_types::Any;

use super::{Flow, Hooks, LocalReply, Override, RequestCall};
use crate::access_log::Input;
use crate::matcher::{Fraction, fraction};
use crate::parse::Context;
use crate::parse::compat::Message as _;
use crate::route::{HeaderEdit, HeaderEdits};
use crate::stats::Single;
use crate::stream_info::ResponseFlags;

#[derive(Debug)]
pub struct Config {
    bucket: Option<Bucket>,
    status: u16,
    enabled: Fraction,
    enforced: Fraction,
    resource_exhausted: bool,
    response_headers: Vec<HeaderEdit>,
    /// For requests that are over the limit and let pass.
    request_headers: HeaderEdits,
    counters: [Arc<Single>; 4],
}

/// Tokens in thousandths, refilled by the time that went by.
#[derive(Debug)]
struct Bucket {
    max: u64,
    per_fill: u64,
    interval: Duration,
    started: Instant,
    /// Fills so far in the upper, tokens in the lower half.
    state: AtomicU64,
}

fields! {
    wire::LocalRateLimit {
        read: stat_prefix, status, token_bucket, filter_enabled, filter_enforced,
            rate_limited_as_resource_exhausted, response_headers_to_add,
            request_headers_to_add_when_not_enforced;
        reject: descriptors,
            stage, local_rate_limit_per_downstream_connection, local_cluster_rate_limit,
            enable_x_ratelimit_headers, vh_rate_limits, always_consume_default_token_bucket,
            rate_limits, max_dynamic_descriptors, enable_retry_after_header;
    }
    types::TokenBucket { read: max_tokens, tokens_per_fill, fill_interval; }
}

impl Config {
    pub fn parse(context: &mut Context, any: &Any) -> Option<Config> {
        let message = context.open::<wire::LocalRateLimit>(any)?;
        if message.always_consume_default_token_bucket != Some(true) {
            message.check(context);
        }
        context.non_empty("stat_prefix", &message.stat_prefix);
        let bucket = context.optional("token_bucket", message.token_bucket.as_ref(), bucket);
        let status = message.status.as_ref().map_or(429, |status| status.code);
        let share = |context: &mut Context, name, value| {
            context
                .optional(name, value, fraction::runtime)
                .unwrap_or(Fraction::NONE)
        };
        let enabled = share(context, "filter_enabled", message.filter_enabled.as_ref());
        let enforced = share(context, "filter_enforced", message.filter_enforced.as_ref());
        let response_headers = context.each(
            "response_headers_to_add",
            &message.response_headers_to_add,
            HeaderEdit::parse,
        );
        let add = context.each(
            "request_headers_to_add_when_not_enforced",
            &message.request_headers_to_add_when_not_enforced,
            HeaderEdit::parse,
        );
        let request_headers = HeaderEdits {
            remove: Vec::new(),
            add,
        };
        let stats = &context.environment().stats;
        let prefix = &message.stat_prefix;
        let counters = ["enabled", "ok", "rate_limited", "enforced"]
            .map(|name| stats.counter(&format!("{prefix}.http_local_rate_limit.{name}")));
        Some(Config {
            bucket,
            status: u16::try_from(status)
                .ok()
                .filter(|status| *status >= 400)
                .unwrap_or(429),
            enabled,
            enforced,
            resource_exhausted: message.rate_limited_as_resource_exhausted,
            response_headers,
            request_headers,
            counters,
        })
    }
}

fn bucket(context: &mut Context, message: &types::TokenBucket) -> Option<Bucket> {
    message.check(context);
    if message.max_tokens == 0 {
        context.error_at("max_tokens", "must be greater than 0");
    }
    let interval = context.duration("fill_interval", message.fill_interval.as_ref());
    let Some(interval) = interval.filter(|one| *one >= Duration::from_millis(50)) else {
        context.error_at(
            "fill_interval",
            "local rate limit token bucket fill timer must be >= 50ms",
        );
        return None;
    };
    Some(Bucket {
        max: message.max_tokens.into(),
        per_fill: message.tokens_per_fill.unwrap_or(1).into(),
        interval,
        started: Instant::now(),
        state: AtomicU64::new(message.max_tokens.into()),
    })
}

impl Bucket {
    fn take(&self) -> bool {
        let elapsed = self.started.elapsed().as_nanos() / self.interval.as_nanos().max(1);
        let fills = u32::try_from(elapsed).unwrap_or(u32::MAX);
        let taken = self
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| {
                let (seen, tokens) = (state >> 32, state & 0xffff_ffff);
                let new = u64::from(fills)
                    .saturating_sub(seen)
                    .saturating_mul(self.per_fill);
                let tokens = (tokens + new).min(self.max);
                let left = tokens.checked_sub(1)?;
                Some((seen.max(u64::from(fills)) << 32) | left)
            });
        taken.is_ok()
    }
}

#[derive(Debug)]
pub struct Filter {
    config: Arc<Config>,
}

impl Filter {
    pub fn new(config: &Arc<Config>) -> Filter {
        Filter {
            config: config.clone(),
        }
    }
}

impl Hooks for Filter {
    fn request_headers(&mut self, name: &str, call: &mut RequestCall<'_, '_>) -> Flow {
        if let Some(Override::LocalRateLimit(config)) = call.context.settings(name) {
            self.config = config.clone();
        }
        let config = &self.config;
        let [enabled, ok, limited, enforced] = &config.counters;
        if !config.enabled.holds(call.context.draw()) {
            return Flow::Continue;
        }
        enabled.add(1);
        if config.bucket.as_ref().is_none_or(Bucket::take) {
            ok.add(1);
            return Flow::Continue;
        }
        limited.add(1);
        let (request, response, trailers) = (Some(&*call.head), None, None);
        let input = Input {
            stream: call.stream,
            request,
            response,
            trailers,
        };
        if !config.enforced.holds(call.context.draw()) {
            let values = config.request_headers.values(&input);
            config
                .request_headers
                .apply(&mut call.head.headers, &values);
            return Flow::Continue;
        }
        let added = config.response_headers.iter();
        let added = added.map(|edit| (edit.name.clone().into(), edit.value.render(&input)));
        let added = added.collect();
        enforced.add(1);
        let mut reply = LocalReply::new(config.status, "local_rate_limited");
        reply.body = Bytes::from_static(b"local_rate_limited");
        reply.flags = ResponseFlags::RATE_LIMITED;
        reply.headers = added;
        reply.grpc_status = config.resource_exhausted.then_some(8);
        call.stream
            .response_flags
            .insert(ResponseFlags::RATE_LIMITED);
        Flow::Reply(reply)
    }
}
