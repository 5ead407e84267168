//! HTTP protocol options, shared by the connection manager and clusters.

use std::time::Duration;

use envoy_api::core::http_protocol_options::HeadersWithUnderscoresAction;
use envoy_api::core::{self, http1_protocol_options};

use super::Context;
use super::compat::Message as _;

/// `HttpProtocolOptions`: limits of connections and streams.
#[derive(Debug, Clone)]
pub struct HttpLimits {
    /// A connection without streams is closed after this; `None` = never.
    pub idle_timeout: Option<Duration>,
    pub max_connection_duration: Option<Duration>,
    pub max_stream_duration: Option<Duration>,
    pub max_headers_count: usize,
    pub underscores: Underscores,
    /// `None` = no limit.
    pub max_requests_per_connection: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Underscores {
    #[default]
    Allow,
    Reject,
    Drop,
}

impl Default for HttpLimits {
    fn default() -> Self {
        HttpLimits {
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_stream_duration: None,
            max_headers_count: 100,
            underscores: Underscores::Allow,
            max_requests_per_connection: None,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Http1Options {
    pub accept_http10: bool,
    pub default_host_for_http10: String,
    pub enable_trailers: bool,
}

#[derive(Debug, Clone)]
pub struct Http2Options {
    pub hpack_table_size: u32,
    pub max_concurrent_streams: u32,
    pub initial_stream_window: u32,
    pub initial_connection_window: u32,
    pub keepalive: Option<Http2Keepalive>,
}

#[derive(Debug, Clone)]
pub struct Http2Keepalive {
    /// `None`: nothing is asked.
    pub interval: Option<Duration>,
    pub timeout: Duration,
    pub jitter_percent: f64,
}

impl Default for Http2Options {
    fn default() -> Self {
        Http2Options {
            hpack_table_size: 4096,
            max_concurrent_streams: 1024,
            initial_stream_window: 16 << 20,
            initial_connection_window: 24 << 20,
            keepalive: None,
        }
    }
}

fields! {
    core::HttpProtocolOptions {
        read: idle_timeout, max_connection_duration, max_headers_count,
            max_stream_duration, headers_with_underscores_action, max_requests_per_connection;
        reject: max_connection_duration_jitter, max_response_headers_kb;
    }
    core::Http1ProtocolOptions {
        read: allow_absolute_url, accept_http_10, default_host_for_http_10, header_key_format,
            enable_trailers, override_stream_error_on_invalid_http_message;
        reject: ignore_http_11_upgrade, allow_chunked_length, send_fully_qualified_url;
        ignore: allow_custom_methods = "any token is a method",
            use_balsa_parser = "chooses between Envoy's own parsers";
    }
    core::Http2ProtocolOptions {
        read: hpack_table_size, max_concurrent_streams, initial_stream_window_size,
            initial_connection_window_size, connection_keepalive;
        reject: allow_connect, allow_metadata, custom_settings_parameters, max_metadata_size,
            max_header_field_size_kb, disallow_obs_text;
        ignore: use_oghttp2_codec = "chooses between Envoy's own codecs",
            enable_huffman_encoding = "an encoder's choice that decoders must accept",
            max_outbound_frames = "the codec has its own limits against floods",
            max_outbound_control_frames = "the codec has its own limits against floods",
            max_consecutive_inbound_frames_with_empty_payload =
                "the codec has its own limits against floods",
            max_inbound_priority_frames_per_stream =
                "the codec has its own limits against floods",
            max_inbound_window_update_frames_per_data_frame_sent =
                "the codec has its own limits against floods",
            stream_error_on_invalid_http_messaging =
                "an invalid message ends its stream and no other",
            override_stream_error_on_invalid_http_message =
                "an invalid message ends its stream and no other",
            stream_reset_burst = "the codec has its own limit of resets",
            stream_reset_rate = "the codec has its own limit of resets";
    }
    core::KeepaliveSettings {
        read: interval, timeout, interval_jitter;
        reject: connection_idle_interval;
    }
}

pub fn limits(context: &mut Context, message: Option<&core::HttpProtocolOptions>) -> HttpLimits {
    let mut limits = HttpLimits::default();
    let Some(message) = message else {
        return limits;
    };
    message.check(context);
    limits.idle_timeout = context.timeout(
        "idle_timeout",
        message.idle_timeout.as_ref(),
        limits.idle_timeout,
    );
    limits.max_connection_duration = context.timeout(
        "max_connection_duration",
        message.max_connection_duration.as_ref(),
        None,
    );
    limits.max_stream_duration = context.timeout(
        "max_stream_duration",
        message.max_stream_duration.as_ref(),
        None,
    );
    if let Some(count) = message.max_headers_count {
        if count == 0 {
            context.error_at("max_headers_count", "must be at least 1");
        }
        limits.max_headers_count = count as usize;
    }
    let action = message.headers_with_underscores_action;
    limits.underscores = match context.enumeration("headers_with_underscores_action", action) {
        Some(HeadersWithUnderscoresAction::RejectRequest) => Underscores::Reject,
        Some(HeadersWithUnderscoresAction::DropHeader) => Underscores::Drop,
        Some(HeadersWithUnderscoresAction::Allow) | None => Underscores::Allow,
    };
    limits.max_requests_per_connection = message
        .max_requests_per_connection
        .filter(|count| *count > 0);
    limits
}

pub fn http1(context: &mut Context, message: Option<&core::Http1ProtocolOptions>) -> Http1Options {
    use http1_protocol_options::header_key_format::HeaderFormat;
    let Some(message) = message else {
        return Http1Options::default();
    };
    message.check(context);
    let format = message
        .header_key_format
        .as_ref()
        .and_then(|one| one.header_format.as_ref());
    match format {
        None => {}
        Some(HeaderFormat::ProperCaseWords(_)) => {
            context.error_at("header_key_format.proper_case_words", "is not supported");
        }
        // Names keep their case in any case.
        Some(HeaderFormat::StatefulFormatter(one)) if one.name == "preserve_case" => {}
        Some(HeaderFormat::StatefulFormatter(one)) => {
            let message = format!("formatter '{}' is not supported", one.name);
            context.error_at("header_key_format.stateful_formatter", message);
        }
    }
    if message.allow_absolute_url == Some(false) {
        context.error_at("allow_absolute_url", "false is not supported");
    }
    if message.override_stream_error_on_invalid_http_message == Some(true) {
        let name = "override_stream_error_on_invalid_http_message";
        context.error_at(name, "true is not supported");
    }
    Http1Options {
        accept_http10: message.accept_http_10,
        default_host_for_http10: message.default_host_for_http_10.clone(),
        enable_trailers: message.enable_trailers,
    }
}

pub fn http2(context: &mut Context, message: Option<&core::Http2ProtocolOptions>) -> Http2Options {
    let mut options = Http2Options::default();
    let Some(message) = message else {
        return options;
    };
    message.check(context);
    let mut read = |name: &str, value: Option<u32>, range: (u32, u32), target: &mut u32| {
        let Some(value) = value else { return };
        if value < range.0 || value > range.1 {
            context.error_at(name, format!("must be between {} and {}", range.0, range.1));
        }
        *target = value;
    };
    const MAX: u32 = 2_147_483_647;
    read(
        "hpack_table_size",
        message.hpack_table_size,
        (0, MAX),
        &mut options.hpack_table_size,
    );
    read(
        "max_concurrent_streams",
        message.max_concurrent_streams,
        (1, MAX),
        &mut options.max_concurrent_streams,
    );
    read(
        "initial_stream_window_size",
        message.initial_stream_window_size,
        (65_535, MAX),
        &mut options.initial_stream_window,
    );
    read(
        "initial_connection_window_size",
        message.initial_connection_window_size,
        (65_535, MAX),
        &mut options.initial_connection_window,
    );
    options.keepalive = context.optional(
        "connection_keepalive",
        message.connection_keepalive.as_ref(),
        keepalive,
    );
    options
}

fn keepalive(context: &mut Context, message: &core::KeepaliveSettings) -> Option<Http2Keepalive> {
    message.check(context);
    let timeout = context.duration("timeout", message.timeout.as_ref());
    if timeout.is_none() {
        context.error_at("timeout", "is required");
    }
    Some(Http2Keepalive {
        interval: context.timeout("interval", message.interval.as_ref(), None),
        timeout: timeout?,
        jitter_percent: message
            .interval_jitter
            .map_or(15.0, |percent| percent.value),
    })
}
