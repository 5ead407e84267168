//! Which streams are logged.

use envoy_api::accesslog::{self, access_log_filter::FilterSpecifier, comparison_filter::Op};

use super::Input;
use crate::matcher::{Fraction, HeaderMatcher, fraction};
use crate::parse::Context;
use crate::parse::compat::Message as _;
use crate::stream_info::ResponseFlags;

#[derive(Debug, Clone)]
pub enum LogFilter {
    Status(Comparison),
    /// Milliseconds.
    Duration(Comparison),
    NotHealthCheck,
    Sampled {
        key_is_request_id: bool,
        share: Fraction,
    },
    All(Vec<LogFilter>),
    Any(Vec<LogFilter>),
    Header(HeaderMatcher),
    /// Empty: any flag.
    Flags(Vec<ResponseFlags>),
    GrpcStatus {
        statuses: Vec<u32>,
        exclude: bool,
    },
    /// Only streams whose end is logged are of these types.
    LogType {
        matches: bool,
    },
}

#[derive(Debug, Clone, Copy)]
pub struct Comparison {
    op: Op,
    value: u64,
}

fields! {
    accesslog::AccessLogFilter { read: filter_specifier; }
    accesslog::ComparisonFilter { read: op, value; }
    accesslog::StatusCodeFilter { read: comparison; }
    accesslog::DurationFilter { read: comparison; }
    accesslog::RuntimeFilter {
        read: percent_sampled, use_independent_randomness;
        ignore: runtime_key = "no runtime layer overrides it";
    }
    accesslog::AndFilter { read: filters; }
    accesslog::OrFilter { read: filters; }
    accesslog::HeaderFilter { read: header; }
    accesslog::ResponseFlagFilter { read: flags; }
    accesslog::GrpcStatusFilter { read: statuses, exclude; }
    accesslog::LogTypeFilter { read: types, exclude; }
    envoy_api::core::RuntimeUInt32 {
        read: default_value;
        ignore: runtime_key = "no runtime layer overrides it";
    }
}

impl LogFilter {
    // tidy: long function: one arm for each kind of filter.
    pub fn parse(context: &mut Context, message: &accesslog::AccessLogFilter) -> Option<Self> {
        message.check(context);
        if context.too_deep() {
            return None;
        }
        let Some(specifier) = &message.filter_specifier else {
            context.error_at("filter_specifier", "is required");
            return None;
        };
        match specifier {
            FilterSpecifier::StatusCodeFilter(one) => context
                .field("status_code_filter", |context| {
                    comparison(context, one.comparison.as_ref())
                })
                .map(LogFilter::Status),
            FilterSpecifier::DurationFilter(one) => context
                .field("duration_filter", |context| {
                    comparison(context, one.comparison.as_ref())
                })
                .map(LogFilter::Duration),
            FilterSpecifier::NotHealthCheckFilter(_) => Some(LogFilter::NotHealthCheck),
            FilterSpecifier::RuntimeFilter(one) => context.field("runtime_filter", |context| {
                one.check(context);
                let share = context
                    .optional(
                        "percent_sampled",
                        one.percent_sampled.as_ref(),
                        fraction::parse,
                    )
                    .unwrap_or(Fraction::NONE);
                let key_is_request_id = !one.use_independent_randomness;
                Some(LogFilter::Sampled {
                    key_is_request_id,
                    share,
                })
            }),
            FilterSpecifier::AndFilter(one) => context.field("and_filter", |context| {
                let filters = several(context, &one.filters);
                Some(LogFilter::All(filters))
            }),
            FilterSpecifier::OrFilter(one) => context.field("or_filter", |context| {
                let filters = several(context, &one.filters);
                Some(LogFilter::Any(filters))
            }),
            FilterSpecifier::HeaderFilter(one) => context.field("header_filter", |context| {
                let header =
                    context.required("header", one.header.as_ref(), HeaderMatcher::parse)?;
                Some(LogFilter::Header(header))
            }),
            FilterSpecifier::ResponseFlagFilter(one) => {
                context.field("response_flag_filter", |context| flags(context, &one.flags))
            }
            FilterSpecifier::GrpcStatusFilter(one) => {
                let statuses = one
                    .statuses
                    .iter()
                    .filter_map(|code| u32::try_from(*code).ok());
                Some(LogFilter::GrpcStatus {
                    statuses: statuses.collect(),
                    exclude: one.exclude,
                })
            }
            FilterSpecifier::LogTypeFilter(one) => {
                // DownstreamEnd and TcpConnectionEnd are the only ones that we write.
                const TCP_END: i32 = 2;
                const HTTP_END: i32 = 5;
                let there = one
                    .types
                    .iter()
                    .any(|kind| *kind == TCP_END || *kind == HTTP_END);
                Some(LogFilter::LogType {
                    matches: there != one.exclude,
                })
            }
            FilterSpecifier::TraceableFilter(_) => unsupported(context, "traceable_filter"),
            FilterSpecifier::ExtensionFilter(_) => unsupported(context, "extension_filter"),
            FilterSpecifier::MetadataFilter(_) => unsupported(context, "metadata_filter"),
        }
    }

    pub fn holds(&self, input: &Input<'_>, random: u64) -> bool {
        let stream = input.stream;
        match self {
            LogFilter::Status(one) => one.holds(stream.response_code.unwrap_or(0).into()),
            LogFilter::Duration(one) => stream.durations.total.is_some_and(|total| {
                one.holds(u64::try_from(total.as_millis()).unwrap_or(u64::MAX))
            }),
            // Requests of health checkers are not marked by any filter that we have.
            LogFilter::NotHealthCheck => true,
            LogFilter::Sampled {
                key_is_request_id,
                share,
            } => {
                let random = match &stream.request_id {
                    Some(id) if *key_is_request_id => id_as_random(id).unwrap_or(random),
                    _ => random,
                };
                share.holds(random)
            }
            LogFilter::All(all) => all.iter().all(|one| one.holds(input, random)),
            LogFilter::Any(any) => any.iter().any(|one| one.holds(input, random)),
            LogFilter::Header(header) => header.matches(|name| {
                input
                    .request
                    .map(|head| head.values(name))
                    .unwrap_or_default()
            }),
            LogFilter::Flags(flags) if flags.is_empty() => !stream.response_flags.is_empty(),
            LogFilter::Flags(flags) => flags
                .iter()
                .any(|flag| stream.response_flags.contains(*flag)),
            LogFilter::GrpcStatus { statuses, exclude } => {
                let status = stream
                    .grpc_status
                    .unwrap_or_else(|| grpc_from_http(stream.response_code.unwrap_or(0)));
                statuses.contains(&status) != *exclude
            }
            LogFilter::LogType { matches } => *matches,
        }
    }
}

/// The first eight hexadecimal digits of the id, as Envoy samples by `x-request-id`.
fn id_as_random(id: &str) -> Option<u64> {
    u64::from_str_radix(id.get(..8)?, 16).ok()
}

/// gRPC's mapping of HTTP statuses for responses without `grpc-status`.
pub fn grpc_from_http(status: u16) -> u32 {
    match status {
        200 => 0,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

fn unsupported(context: &mut Context, name: &str) -> Option<LogFilter> {
    context.error_at(name, "is not supported");
    None
}

fn several(context: &mut Context, filters: &[accesslog::AccessLogFilter]) -> Vec<LogFilter> {
    if filters.len() < 2 {
        context.error_at("filters", "must have at least two members");
    }
    context.each("filters", filters, LogFilter::parse)
}

fn comparison(
    context: &mut Context,
    message: Option<&accesslog::ComparisonFilter>,
) -> Option<Comparison> {
    context.required("comparison", message, |context, message| {
        message.check(context);
        let op = context.enumeration("op", message.op)?;
        let value = message
            .value
            .as_ref()
            .map_or(0, |value| value.default_value);
        Some(Comparison {
            op,
            value: value.into(),
        })
    })
}

fn flags(context: &mut Context, names: &[String]) -> Option<LogFilter> {
    let mut flags = Vec::new();
    for name in names {
        match ResponseFlags::TABLE.iter().find(|row| row.1 == name) {
            Some(row) => flags.push(row.0),
            None => context.error_at("flags", format!("unknown response flag '{name}'")),
        }
    }
    Some(LogFilter::Flags(flags))
}

impl Comparison {
    fn holds(self, value: u64) -> bool {
        match self.op {
            Op::Eq => value == self.value,
            Op::Ge => value >= self.value,
            Op::Le => value <= self.value,
            Op::Ne => value != self.value,
        }
    }
}
