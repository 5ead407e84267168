//! Injected delays and aborts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use envoy_api::envoy::extensions::filters::common::fault::v3 as common;
use envoy_api::fault::{self, fault_abort};
use prost_types::Any;

use super::{Flow, Hooks, LocalReply, Override, RequestCall};
use crate::http::request::RequestHead;
use crate::matcher::header::all_match;
use crate::matcher::{Fraction, HeaderMatcher, fraction};
use crate::parse::Context;
use crate::parse::compat::Message as _;
use crate::stream_info::ResponseFlags;

#[derive(Debug)]
pub struct Config {
    delay: Option<(Delay, Fraction)>,
    abort: Option<(Abort, Fraction)>,
    /// Empty: any cluster.
    upstream_cluster: String,
    headers: Vec<HeaderMatcher>,
    downstream_nodes: Vec<String>,
    max_active: Option<u64>,
    active: Arc<AtomicU64>,
    body: String,
}

#[derive(Debug, Clone, Copy)]
enum Delay {
    Fixed(Duration),
    /// `x-envoy-fault-delay-request`, in milliseconds.
    ByHeader,
}

#[derive(Debug, Clone, Copy)]
enum Abort {
    Http(u16),
    Grpc(u32),
    /// `x-envoy-fault-abort-request` or `x-envoy-fault-abort-grpc-request`.
    ByHeader,
}

fields! {
    fault::HttpFault {
        read: delay, abort, upstream_cluster, headers, downstream_nodes, max_active_faults;
        reject: response_rate_limit;
        ignore: delay_percent_runtime = "no runtime layer overrides it",
            abort_percent_runtime = "no runtime layer overrides it",
            delay_duration_runtime = "no runtime layer overrides it",
            abort_http_status_runtime = "no runtime layer overrides it",
            max_active_faults_runtime = "no runtime layer overrides it",
            response_rate_limit_percent_runtime = "no runtime layer overrides it",
            abort_grpc_status_runtime = "no runtime layer overrides it",
            disable_downstream_cluster_stats = "statistics by caller are not kept",
            filter_metadata = "nothing reads it";
    }
    fault::FaultAbort { read: percentage, response_body, error_type; }
    common::FaultDelay { read: percentage, fault_delay_secifier; }
}

impl Config {
    pub fn parse(context: &mut Context, any: &Any) -> Option<Config> {
        let message = context.open::<fault::HttpFault>(any)?;
        message.check(context);
        let delay = context.optional("delay", message.delay.as_ref(), delay);
        let mut body = String::from("fault filter abort");
        let abort = context.optional("abort", message.abort.as_ref(), |context, one| {
            if !one.response_body.is_empty() {
                body = one.response_body.clone();
            }
            abort(context, one)
        });
        Some(Config {
            delay,
            abort,
            upstream_cluster: message.upstream_cluster.clone(),
            headers: context.each("headers", &message.headers, HeaderMatcher::parse),
            downstream_nodes: message.downstream_nodes.clone(),
            max_active: message.max_active_faults.map(u64::from),
            active: Arc::default(),
            body,
        })
    }

    fn concerns(&self, head: &RequestHead, cluster: Option<&str>) -> bool {
        if !self.upstream_cluster.is_empty() && cluster != Some(&self.upstream_cluster) {
            return false;
        }
        if !all_match(&self.headers, |name| head.values(name)) {
            return false;
        }
        let node = head.headers.get_str("x-envoy-downstream-service-node");
        self.downstream_nodes.is_empty()
            || node.is_some_and(|node| self.downstream_nodes.iter().any(|one| one == node))
    }
}

fn share(context: &mut Context, message: Option<&envoy_api::types::FractionalPercent>) -> Fraction {
    context
        .optional("percentage", message, fraction::parse)
        .unwrap_or(Fraction::NONE)
}

fn delay(context: &mut Context, message: &common::FaultDelay) -> Option<(Delay, Fraction)> {
    use common::fault_delay::FaultDelaySecifier as Wire;
    message.check(context);
    let share = share(context, message.percentage.as_ref());
    let kind = match &message.fault_delay_secifier {
        Some(Wire::FixedDelay(delay)) => {
            let delay = context.duration("fixed_delay", Some(delay));
            let Some(delay) = delay.filter(|delay| !delay.is_zero()) else {
                context.error_at("fixed_delay", "must be greater than 0");
                return None;
            };
            Delay::Fixed(delay)
        }
        Some(Wire::HeaderDelay(_)) => Delay::ByHeader,
        None => {
            context.error_at("fault_delay_secifier", "is required");
            return None;
        }
    };
    Some((kind, share))
}

fn abort(context: &mut Context, message: &fault::FaultAbort) -> Option<(Abort, Fraction)> {
    use fault_abort::ErrorType;
    message.check(context);
    let share = share(context, message.percentage.as_ref());
    let kind = match &message.error_type {
        Some(ErrorType::HttpStatus(status)) => match u16::try_from(*status) {
            Ok(status) if (200..600).contains(&status) => Abort::Http(status),
            _ => {
                context.error_at("http_status", "must be between 200 and 599");
                return None;
            }
        },
        Some(ErrorType::GrpcStatus(status)) => Abort::Grpc(*status),
        Some(ErrorType::HeaderAbort(_)) => Abort::ByHeader,
        None => {
            context.error_at("error_type", "is required");
            return None;
        }
    };
    Some((kind, share))
}

#[derive(Debug)]
pub struct Filter {
    config: Arc<Config>,
    counted: bool,
}

impl Filter {
    pub fn new(config: &Arc<Config>) -> Filter {
        Filter {
            config: config.clone(),
            counted: false,
        }
    }

    /// The stream is over: its fault is no longer active.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.config.active.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn overflows(&mut self) -> bool {
        let Some(max) = self.config.max_active else {
            return false;
        };
        if !self.counted && self.config.active.load(Ordering::Relaxed) >= max {
            return true;
        }
        false
    }

    fn count(&mut self) {
        if !std::mem::replace(&mut self.counted, true) {
            self.config.active.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn wanted_delay(&self, call: &mut RequestCall<'_, '_>) -> Option<Duration> {
        let (kind, share) = self.config.delay.as_ref()?;
        let (duration, share) = match kind {
            Delay::Fixed(duration) => (*duration, *share),
            Delay::ByHeader => {
                let headers = &call.head.headers;
                let millis = headers
                    .get_str("x-envoy-fault-delay-request")?
                    .parse()
                    .ok()?;
                let percent = headers.get_str("x-envoy-fault-delay-request-percentage");
                (Duration::from_millis(millis), limited(*share, percent))
            }
        };
        (share.holds(call.context.draw()) && !duration.is_zero()).then_some(duration)
    }

    fn maybe_abort(&mut self, call: &mut RequestCall<'_, '_>) -> Flow {
        let Some((kind, share)) = self.config.abort else {
            return Flow::Continue;
        };
        let headers = &call.head.headers;
        let (status, grpc, share) = match kind {
            Abort::Http(status) => (status, None, share),
            Abort::Grpc(status) => (200, Some(status), share),
            Abort::ByHeader => {
                let number = |name: &str| {
                    headers
                        .get_str(name)
                        .and_then(|text| text.parse::<u16>().ok())
                };
                let percent = headers.get_str("x-envoy-fault-abort-request-percentage");
                let share = limited(share, percent);
                if let Some(status) = number("x-envoy-fault-abort-request") {
                    (status, None, share)
                } else if let Some(status) = number("x-envoy-fault-abort-grpc-request") {
                    (200, Some(status.into()), share)
                } else {
                    return Flow::Continue;
                }
            }
        };
        if !(200..600).contains(&status) || !share.holds(call.context.draw()) || self.overflows() {
            return Flow::Continue;
        }
        self.count();
        call.stream
            .response_flags
            .insert(ResponseFlags::FAULT_INJECTED);
        let mut reply = LocalReply::new(status, "fault_filter_abort");
        reply.body = Bytes::copy_from_slice(self.config.body.as_bytes());
        reply.flags = ResponseFlags::FAULT_INJECTED;
        reply.grpc_status = grpc;
        Flow::Reply(reply)
    }
}

/// A percentage in a header can only lower the configured share.
fn limited(share: Fraction, percent: Option<&str>) -> Fraction {
    let Some(percent) = percent.and_then(|text| text.parse::<f64>().ok()) else {
        return share;
    };
    let asked = Fraction::from_percent(percent);
    if asked.per_million() < share.per_million() {
        asked
    } else {
        share
    }
}

impl Hooks for Filter {
    fn request_headers(&mut self, name: &str, call: &mut RequestCall<'_, '_>) -> Flow {
        if let Some(Override::Fault(config)) = call.context.settings(name) {
            self.config = config.clone();
        }
        let cluster = call
            .context
            .route
            .and_then(|route| route.cluster.as_deref());
        if !self.config.concerns(call.head, cluster) || self.overflows() {
            return Flow::Continue;
        }
        if let Some(delay) = self.wanted_delay(call) {
            self.count();
            call.stream
                .response_flags
                .insert(ResponseFlags::DELAY_INJECTED);
            return Flow::Wait(delay);
        }
        self.maybe_abort(call)
    }

    fn resume(&mut self, call: &mut RequestCall<'_, '_>) -> Flow {
        self.maybe_abort(call)
    }
}
