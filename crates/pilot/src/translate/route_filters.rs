//! Per-route configuration of HTTP filters: faults and CORS.

use std::collections::BTreeMap;

use envoy_api::any::pack;
use envoy_api::core::RuntimeFractionalPercent;
use envoy_api::cors::CorsPolicy as WireCors;
use envoy_api::envoy::extensions::filters::common::fault::v3::{FaultDelay, fault_delay};
use envoy_api::fault::{FaultAbort, HttpFault, fault_abort};
use envoy_api::types::{FractionalPercent, fractional_percent::DenominatorType};
use mesh_api::kinds::destination::Percent;
use mesh_api::kinds::string_match::StringMatch;
use mesh_api::kinds::virtual_service::{
    Abort, AbortType, CorsPolicy, Delay, DelayType, HttpFaultInjection, HttpRoute,
    UnmatchedPreflights,
};
use prost_types::Any;

use super::message::duration;
use super::route_match;

pub const FAULT: &str = "envoy.filters.http.fault";
pub const CORS: &str = "envoy.filters.http.cors";

/// What the route says to filters.
pub fn per_route(route: &HttpRoute) -> BTreeMap<String, Any> {
    let mut configs = BTreeMap::new();
    if let Some(fault) = route.fault.as_ref().and_then(fault) {
        configs.insert(FAULT.to_owned(), pack(&fault));
    }
    if let Some(written) = &route.cors_policy {
        configs.insert(CORS.to_owned(), pack(&cors(written)));
    }
    configs
}

/// A percentage with four decimals.
pub fn millionths(percent: &Percent) -> FractionalPercent {
    let numerator = (percent.value * 10_000.0).round().clamp(0.0, 1_000_000.0);
    FractionalPercent {
        // Within 0..=1_000_000 by the clamp.
        numerator: numerator as u32,
        denominator: DenominatorType::Million as i32,
    }
}

pub fn hundredths(percent: u32) -> FractionalPercent {
    FractionalPercent {
        numerator: percent.min(100),
        denominator: DenominatorType::Hundred as i32,
    }
}

pub fn runtime(percent: FractionalPercent) -> RuntimeFractionalPercent {
    RuntimeFractionalPercent {
        default_value: Some(percent),
        runtime_key: String::new(),
    }
}

fn fault(written: &HttpFaultInjection) -> Option<HttpFault> {
    let delay = written.delay.as_ref().and_then(delay);
    let abort = written.abort.as_ref().and_then(abort);
    if delay.is_none() && abort.is_none() {
        return None;
    }
    Some(HttpFault {
        delay,
        abort,
        ..Default::default()
    })
}

fn delay(written: &Delay) -> Option<FaultDelay> {
    let Some(DelayType::FixedDelay(value)) = written.http_delay_type.as_ref() else {
        return None;
    };
    let percentage = match &written.percentage {
        Some(percentage) => millionths(percentage),
        None => hundredths(u32::try_from(written.percent).unwrap_or_default()),
    };
    let specifier = fault_delay::FaultDelaySecifier::FixedDelay(duration(*value));
    Some(FaultDelay {
        percentage: Some(percentage),
        fault_delay_secifier: Some(specifier),
    })
}

fn abort(written: &Abort) -> Option<FaultAbort> {
    let error = match written.error_type.as_ref()? {
        AbortType::HttpStatus(status) => {
            fault_abort::ErrorType::HttpStatus(u32::try_from(*status).ok()?)
        }
        AbortType::GrpcStatus(name) => fault_abort::ErrorType::GrpcStatus(grpc_status(name)?),
        AbortType::Http2Error(_) => return None,
    };
    // Without a percentage nothing is aborted.
    let percentage = written
        .percentage
        .as_ref()
        .map(millionths)
        .unwrap_or_default();
    Some(FaultAbort {
        percentage: Some(percentage),
        error_type: Some(error),
        ..Default::default()
    })
}

fn grpc_status(name: &str) -> Option<u32> {
    const NAMES: [&str; 17] = [
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
    let index = NAMES.iter().position(|known| *known == name)?;
    u32::try_from(index).ok()
}

fn cors(written: &CorsPolicy) -> WireCors {
    let old = written
        .allow_origin
        .iter()
        .map(|origin| match origin.as_str() {
            "*" => StringMatch::Regex(".*".to_owned()),
            exact => StringMatch::Exact(exact.to_owned()),
        });
    let origins = old.chain(written.allow_origins.iter().cloned());
    let presence = StringMatch::Regex(".*".to_owned());
    let matcher = |origin: StringMatch| {
        route_match::string(&origin).or_else(|| route_match::string(&presence))
    };
    WireCors {
        allow_origin_string_match: origins.filter_map(matcher).collect(),
        allow_methods: written.allow_methods.join(","),
        allow_headers: written.allow_headers.join(","),
        expose_headers: written.expose_headers.join(","),
        max_age: written
            .max_age
            .map(|age| age.as_secs().to_string())
            .unwrap_or_default(),
        allow_credentials: written.allow_credentials,
        filter_enabled: Some(runtime(hundredths(100))),
        forward_not_matching_preflights: Some(
            written.unmatched_preflights != UnmatchedPreflights::Ignore,
        ),
        ..Default::default()
    }
}
