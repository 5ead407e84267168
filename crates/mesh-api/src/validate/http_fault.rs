//! Injected delays and aborts.

use super::{Check, values};
use crate::kinds::destination::Percent;
use crate::kinds::virtual_service::{Abort, AbortType, Delay, DelayType, HttpFaultInjection};

pub fn check(c: &mut Check<'_>, fault: &HttpFaultInjection) {
    if fault.delay.is_none() && fault.abort.is_none() {
        c.error("", "delay or abort must be set");
    }
    c.some("delay", fault.delay.as_ref(), check_delay);
    c.some("abort", fault.abort.as_ref(), check_abort);
}

fn check_percentage(c: &mut Check<'_>, percentage: Option<&Percent>) {
    if percentage.is_some_and(|percentage| !values::is_percentage(percentage.value)) {
        c.not_allowed("percentage", "out of range", "0, or 0.0001 to 100");
    }
}

fn check_delay(c: &mut Check<'_>, delay: &Delay) {
    check_percentage(c, delay.percentage.as_ref());
    if !(0..=100).contains(&delay.percent) {
        c.not_allowed("percent", "out of range", "0 to 100");
    }
    if delay.percent != 0 {
        c.warn("percent", "is deprecated, use percentage");
    }
    match &delay.http_delay_type {
        Some(DelayType::FixedDelay(delay)) => c.verify("fixedDelay", values::duration(*delay)),
        Some(DelayType::ExponentialDelay(_)) => {
            c.error("exponentialDelay", "is not supported");
        }
        None => c.error("", "fixedDelay must be set"),
    }
}

const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fn check_abort(c: &mut Check<'_>, abort: &Abort) {
    check_percentage(c, abort.percentage.as_ref());
    match &abort.error_type {
        Some(AbortType::HttpStatus(status)) => {
            if !(200..=600).contains(status) {
                c.not_allowed("httpStatus", "out of range", "200 to 600");
            }
        }
        Some(AbortType::GrpcStatus(status)) => {
            if !GRPC_STATUSES.contains(&status.as_str()) {
                let message = format!("unknown status {:?}", values::cut(status));
                c.not_allowed("grpcStatus", message, &GRPC_STATUSES.join(", "));
            }
        }
        Some(AbortType::Http2Error(_)) => c.error("http2Error", "is not supported"),
        None => c.error("", "httpStatus or grpcStatus must be set"),
    }
}
