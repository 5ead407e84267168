//! Access logs: a filter, a format and a sink each, evaluated at the end of a stream.

use std::sync::Arc;

use envoy_api::access_logger_file::{FileAccessLog, file_access_log};
use envoy_api::access_logger_stream as stream;
use envoy_api::accesslog::{self, access_log::ConfigType};
use envoy_api::core;
use envoy_api::core::substitution_format_string::Format as WireFormat;

use crate::http::headers::Headers;
use crate::http::request::{RequestHead, ResponseHead};
use crate::parse::Context;
use crate::parse::compat::Message as _;
use crate::parse::network_filter::config_name;
use crate::stream_info::StreamInfo;

pub mod filter;
pub mod format;
mod json;
mod operator;
mod sink;
mod time;

pub use filter::LogFilter;
pub use format::Format;
pub use json::JsonFormat;
pub use sink::{Sink, Sinks};

/// What a log line or a header's value is made of. Absent parts read as missing.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    pub stream: &'a StreamInfo,
    pub request: Option<&'a RequestHead>,
    pub response: Option<&'a ResponseHead>,
    pub trailers: Option<&'a Headers>,
}

/// One configured log.
#[derive(Debug, Clone)]
pub struct AccessLog {
    filter: Option<Arc<LogFilter>>,
    line: Arc<Line>,
    sink: Arc<Sink>,
}

#[derive(Debug)]
enum Line {
    Text(Format),
    Json(JsonFormat),
}

fields! {
    accesslog::AccessLog { read: name, filter, config_type; }
    FileAccessLog { read: path, access_log_format; }
    stream::StdoutAccessLog { read: access_log_format; }
    stream::StderrAccessLog { read: access_log_format; }
    core::SubstitutionFormatString {
        read: omit_empty_values, formatters, format;
        ignore: content_type = "a log has no content type",
            json_format_options = "properties are always sorted";
    }
}

/// Envoy's default line.
const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% \
     %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
     %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
     \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// The `access_log` field of a listener, connection manager or TCP proxy.
pub fn parse_list(
    context: &mut Context,
    name: &str,
    messages: &[accesslog::AccessLog],
) -> Vec<AccessLog> {
    context.each(name, messages, AccessLog::parse)
}

impl AccessLog {
    fn parse(context: &mut Context, message: &accesslog::AccessLog) -> Option<AccessLog> {
        message.check(context);
        let filter = context.optional("filter", message.filter.as_ref(), LogFilter::parse);
        let Some(ConfigType::TypedConfig(any)) = &message.config_type else {
            context.error_at("typed_config", "is required");
            return None;
        };
        let sinks = context.environment().sinks.clone();
        let (line, sink) = context.field("typed_config", |context| match config_name(any) {
            "envoy.extensions.access_loggers.file.v3.FileAccessLog" => {
                let file = context.open::<FileAccessLog>(any)?;
                file.check(context);
                context.non_empty("path", &file.path);
                let line = file_format(context, file.access_log_format.as_ref())?;
                Some((line, sinks.file(&file.path)))
            }
            "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog" => {
                let log = context.open::<stream::StdoutAccessLog>(any)?;
                log.check(context);
                use stream::stdout_access_log::AccessLogFormat::LogFormat;
                let given = log.access_log_format.map(|LogFormat(given)| given);
                Some((
                    log_format(context, given.as_ref())?,
                    sinks.file("/dev/stdout"),
                ))
            }
            "envoy.extensions.access_loggers.stream.v3.StderrAccessLog" => {
                let log = context.open::<stream::StderrAccessLog>(any)?;
                log.check(context);
                use stream::stderr_access_log::AccessLogFormat::LogFormat;
                let given = log.access_log_format.map(|LogFormat(given)| given);
                Some((
                    log_format(context, given.as_ref())?,
                    sinks.file("/dev/stderr"),
                ))
            }
            other => {
                context.error(format!("access log '{other}' is not supported"));
                None
            }
        })?;
        Some(AccessLog {
            filter: filter.map(Arc::new),
            line: Arc::new(line),
            sink,
        })
    }

    /// Writes the line, unless the filter says no. Never blocks: a full queue loses the line and
    /// counts it.
    pub fn log(&self, input: &Input<'_>, random: u64) {
        if self
            .filter
            .as_ref()
            .is_some_and(|filter| !filter.holds(input, random))
        {
            return;
        }
        let mut out = Vec::with_capacity(512);
        match &*self.line {
            Line::Text(format) => format.write(input, &mut out),
            Line::Json(format) => format.write(input, &mut out),
        }
        self.sink.write(out);
    }
}

fn default_line() -> Line {
    Line::Text(Format::parse(DEFAULT_FORMAT).expect("BUG: the default format does not parse"))
}

fn file_format(
    context: &mut Context,
    message: Option<&file_access_log::AccessLogFormat>,
) -> Option<Line> {
    use file_access_log::AccessLogFormat;
    match message {
        None => Some(default_line()),
        Some(AccessLogFormat::Format(text)) if text.is_empty() => Some(default_line()),
        Some(AccessLogFormat::Format(text)) => text_line(context, text, false),
        Some(AccessLogFormat::JsonFormat(fields) | AccessLogFormat::TypedJsonFormat(fields)) => {
            json_line(context, fields, false)
        }
        Some(AccessLogFormat::LogFormat(given)) => {
            context.field("log_format", |context| log_format(context, Some(given)))
        }
    }
}

fn log_format(
    context: &mut Context,
    message: Option<&core::SubstitutionFormatString>,
) -> Option<Line> {
    let Some(message) = message else {
        return Some(default_line());
    };
    message.check(context);
    check_formatters(context, &message.formatters);
    let omit = message.omit_empty_values;
    match &message.format {
        Some(WireFormat::TextFormat(text)) => text_line(context, text, omit),
        Some(WireFormat::JsonFormat(fields)) => json_line(context, fields, omit),
        Some(WireFormat::TextFormatSource(source)) => {
            let source = context.field("text_format_source", |context| {
                crate::parse::tls::data_source(context, source)
            })?;
            let bytes = source
                .read()
                .map_err(|error| context.error(error.to_string()))
                .ok()?;
            text_line(context, &String::from_utf8_lossy(&bytes), omit)
        }
        None => {
            context.error_at("format", "is required");
            None
        }
    }
}

/// Extensions whose operators we have anyway.
fn check_formatters(context: &mut Context, formatters: &[core::TypedExtensionConfig]) {
    for (index, one) in formatters.iter().enumerate() {
        let name = one
            .typed_config
            .as_ref()
            .map(config_name)
            .unwrap_or_default();
        let known = matches!(
            name,
            "envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery"
                | "envoy.extensions.formatter.metadata.v3.Metadata"
        );
        if !known {
            let message = format!("formatter '{}' is not supported", one.name);
            context.error_at(&format!("formatters[{index}]"), message);
        }
    }
}

fn text_line(context: &mut Context, text: &str, omit_empty: bool) -> Option<Line> {
    match Format::parse_with(text, omit_empty) {
        Ok(format) => Some(Line::Text(format)),
        Err(reason) => {
            context.error(reason);
            None
        }
    }
}

fn json_line(
    context: &mut Context,
    fields: &prost_types::Struct,
    omit_empty: bool,
) -> Option<Line> {
    match JsonFormat::parse(fields, omit_empty) {
        Ok(format) => Some(Line::Json(format)),
        Err(reason) => {
            context.error(reason);
            None
        }
    }
}

#[cfg(test)]
mod tests;
