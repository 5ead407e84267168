//! The HTTP connection manager's configuration.

use std::sync::Arc;
use std::time::Duration;

use envoy_api::hcm::{self, http_connection_manager as inner};
use ipnet::IpNet;

use super::Context;
use super::compat::Message as _;
use super::config_source::ConfigSource;
use super::http_options::{self, Http1Options, Http2Options, HttpLimits};
use crate::access_log::AccessLog;
use crate::http::filters::FilterChain;
use crate::route::RouteTable;
use crate::stats::{Group, tables as stats};

#[derive(Debug, Clone)]
pub struct HttpConnectionManager {
    pub stat_prefix: Arc<str>,
    /// `http.PREFIX.`
    pub stats: Arc<Group<stats::Http>>,
    pub codec: Codec,
    pub routes: RouteSource,
    pub filters: Arc<FilterChain>,
    pub limits: HttpLimits,
    pub http1: Http1Options,
    pub http2: Http2Options,
    pub server_name: String,
    pub server_header: ServerHeader,
    /// `:scheme` as the upstream sees it, instead of the one received.
    pub scheme_overwrite: Option<String>,
    pub max_request_headers_bytes: usize,
    /// `None` = never, for all of these.
    pub stream_idle_timeout: Option<Duration>,
    pub request_timeout: Option<Duration>,
    pub request_headers_timeout: Option<Duration>,
    pub drain_timeout: Duration,
    pub delayed_close_timeout: Option<Duration>,
    pub access_logs: Vec<AccessLog>,
    pub use_remote_address: bool,
    pub xff_num_trusted_hops: u32,
    pub internal_addresses: InternalAddresses,
    pub skip_xff_append: bool,
    pub via: String,
    pub generate_request_id: bool,
    pub preserve_external_request_id: bool,
    pub always_set_request_id_in_response: bool,
    pub forward_client_cert: ForwardClientCert,
    pub client_cert_details: ClientCertDetails,
    /// `100 Continue` comes from the upstream instead of from us.
    pub proxy_100_continue: bool,
    pub upgrades: Vec<Upgrade>,
    pub normalize_path: bool,
    pub merge_slashes: bool,
    pub escaped_slashes: EscapedSlashes,
    pub strip_port: StripPort,
    pub strip_trailing_host_dot: bool,
    pub append_x_forwarded_port: bool,
    pub mapped_ipv6: bool,
    pub add_user_agent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    Auto,
    Http1,
    Http2,
}

#[derive(Debug, Clone)]
pub enum RouteSource {
    Inline(Arc<RouteTable>),
    Rds {
        name: Arc<str>,
        source: ConfigSource,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerHeader {
    Overwrite,
    AppendIfAbsent,
    PassThrough,
}

#[derive(Debug, Clone)]
pub enum InternalAddresses {
    /// RFC 1918, RFC 4193 and loopback: Envoy's older default.
    Private,
    Ranges {
        unix_sockets: bool,
        ranges: Vec<IpNet>,
    },
}

impl InternalAddresses {
    pub fn contains(&self, ip: std::net::IpAddr) -> bool {
        match self {
            InternalAddresses::Private => match ip.to_canonical() {
                std::net::IpAddr::V4(ip) => ip.is_private() || ip.is_loopback(),
                std::net::IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local(),
            },
            InternalAddresses::Ranges { ranges, .. } => ranges
                .iter()
                .any(|range| range.contains(&ip.to_canonical())),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardClientCert {
    Sanitize,
    ForwardOnly,
    AppendForward,
    SanitizeSet,
    AlwaysForwardOnly,
}

/// What x-forwarded-client-cert says beside `By` and `Hash`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientCertDetails {
    pub subject: bool,
    pub cert: bool,
    pub chain: bool,
    pub dns: bool,
    pub uri: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// Lower case.
    pub kind: String,
    pub enabled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EscapedSlashes {
    Keep,
    Reject,
    UnescapeAndRedirect,
    UnescapeAndForward,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StripPort {
    Never,
    /// The listener's own port.
    Matching,
    Any,
}

fields! {
    hcm::HttpConnectionManager {
        read: codec_type, stat_prefix, http_filters, add_user_agent,
            common_http_protocol_options, http_protocol_options, http2_protocol_options,
            server_name, server_header_transformation, scheme_header_transformation,
            max_request_headers_kb, stream_idle_timeout, request_timeout,
            request_headers_timeout, drain_timeout, delayed_close_timeout, access_log,
            access_log_options, use_remote_address,
            xff_num_trusted_hops, internal_address_config, skip_xff_append, via,
            generate_request_id, preserve_external_request_id,
            always_set_request_id_in_response, forward_client_cert_details,
            set_current_client_cert_details, proxy_100_continue,
            represent_ipv4_remote_address_as_ipv4_mapped_ipv6, upgrade_configs, normalize_path,
            merge_slashes, path_with_escaped_slashes_action, request_id_extension,
            strip_matching_host_port, stream_error_on_invalid_http_message,
            strip_trailing_host_dot, append_x_forwarded_port, route_specifier, strip_port_mode;
        reject: access_log_flush_interval, http3_protocol_options, original_ip_detection_extensions,
            early_header_mutation_extensions, forward_client_cert_matcher, local_reply_config,
            path_normalization_options, proxy_status_config, typed_header_validation_config,
            flush_access_log_on_new_request, append_local_overload, stream_flush_timeout,
            drain_timeout_jitter, forward_proto_config;
        ignore: tracing = "spans are not reported",
            add_proxy_protocol_connection_state = "filter state that nothing reads",
            http1_safe_max_connection_duration = "connections are always drained safely";
    }
    inner::InternalAddressConfig { read: unix_sockets, cidr_ranges; }
    inner::SetCurrentClientCertDetails {
        read: subject, cert, chain, dns, uri;
        reject: issuer, format;
    }
    inner::UpgradeConfig {
        read: upgrade_type, enabled;
        reject: filters;
    }
    inner::HcmAccessLogOptions {
        reject: access_log_flush_interval, flush_access_log_on_new_request,
            flush_log_on_tunnel_successfully_established;
    }
    hcm::Rds { read: config_source, route_config_name; }
    hcm::RequestIdExtension { read: typed_config; }
    envoy_api::core::SchemeHeaderTransformation {
        read: transformation;
        reject: match_upstream;
    }
    envoy_api::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig {
        ignore: pack_trace_reason = "sampling is not written into the id",
            use_request_id_for_trace_sampling = "sampling does not read the id";
    }
}

// tidy: long function: one field after another.
pub fn parse(
    context: &mut Context,
    message: &hcm::HttpConnectionManager,
) -> Option<HttpConnectionManager> {
    message.check(context);
    context.non_empty("stat_prefix", &message.stat_prefix);
    let codec = match context.enumeration("codec_type", message.codec_type)? {
        inner::CodecType::Auto => Codec::Auto,
        inner::CodecType::Http1 => Codec::Http1,
        inner::CodecType::Http2 => Codec::Http2,
        inner::CodecType::Http3 => {
            context.error_at("codec_type", "HTTP3 is not supported");
            return None;
        }
    };
    let routes = route_source(context, message);
    let filters = FilterChain::parse(context, &message.http_filters);
    let limits = context.field("common_http_protocol_options", |context| {
        http_options::limits(context, message.common_http_protocol_options.as_ref())
    });
    let http1 = context.field("http_protocol_options", |context| {
        http_options::http1(context, message.http_protocol_options.as_ref())
    });
    let http2 = context.field("http2_protocol_options", |context| {
        http_options::http2(context, message.http2_protocol_options.as_ref())
    });
    let max_request_headers_kb = message.max_request_headers_kb.unwrap_or(60);
    if !(1..=8192).contains(&max_request_headers_kb) {
        context.error_at("max_request_headers_kb", "must be between 1 and 8192");
    }
    if message.stream_error_on_invalid_http_message == Some(true) {
        let name = "stream_error_on_invalid_http_message";
        context.error_at(name, "true is not supported");
    }
    request_id(context, message.request_id_extension.as_ref());
    let options = message.access_log_options.unwrap_or_default();
    context.field("access_log_options", |context| options.check(context));
    let timeout = |context: &mut Context, name, value, default: Option<u64>| {
        context.timeout(name, value, default.map(Duration::from_millis))
    };
    let set = message.set_current_client_cert_details.as_ref();
    let client_cert_details = context
        .optional("set_current_client_cert_details", set, cert_details)
        .unwrap_or_default();
    Some(HttpConnectionManager {
        stat_prefix: message.stat_prefix.as_str().into(),
        stats: context
            .environment()
            .stats
            .group(&format!("http.{}.", message.stat_prefix)),
        codec,
        routes: routes?,
        filters: Arc::new(filters?),
        limits,
        http1,
        http2,
        server_name: if message.server_name.is_empty() {
            "envoy".to_owned()
        } else {
            message.server_name.clone()
        },
        server_header: server_header(context, message),
        scheme_overwrite: scheme_overwrite(context, message),
        max_request_headers_bytes: max_request_headers_kb as usize * 1024,
        stream_idle_timeout: timeout(
            context,
            "stream_idle_timeout",
            message.stream_idle_timeout.as_ref(),
            Some(300_000),
        ),
        request_timeout: timeout(
            context,
            "request_timeout",
            message.request_timeout.as_ref(),
            None,
        ),
        request_headers_timeout: timeout(
            context,
            "request_headers_timeout",
            message.request_headers_timeout.as_ref(),
            None,
        ),
        drain_timeout: context
            .duration("drain_timeout", message.drain_timeout.as_ref())
            .unwrap_or(Duration::from_secs(5)),
        delayed_close_timeout: timeout(
            context,
            "delayed_close_timeout",
            message.delayed_close_timeout.as_ref(),
            Some(1000),
        ),
        access_logs: crate::access_log::parse_list(context, "access_log", &message.access_log),
        use_remote_address: message.use_remote_address.unwrap_or(false),
        xff_num_trusted_hops: message.xff_num_trusted_hops,
        internal_addresses: internal_addresses(context, message),
        skip_xff_append: message.skip_xff_append,
        via: message.via.clone(),
        generate_request_id: message.generate_request_id.unwrap_or(true),
        preserve_external_request_id: message.preserve_external_request_id,
        always_set_request_id_in_response: message.always_set_request_id_in_response,
        forward_client_cert: forward_client_cert(context, message),
        client_cert_details,
        proxy_100_continue: message.proxy_100_continue,
        upgrades: upgrades(context, &message.upgrade_configs),
        normalize_path: message.normalize_path.unwrap_or(false),
        merge_slashes: message.merge_slashes,
        escaped_slashes: escaped_slashes(context, message),
        strip_port: strip_port(context, message),
        strip_trailing_host_dot: message.strip_trailing_host_dot,
        append_x_forwarded_port: message.append_x_forwarded_port,
        mapped_ipv6: message.represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        add_user_agent: message.add_user_agent.unwrap_or(false),
    })
}

fn route_source(
    context: &mut Context,
    message: &hcm::HttpConnectionManager,
) -> Option<RouteSource> {
    match &message.route_specifier {
        Some(inner::RouteSpecifier::RouteConfig(config)) => {
            let table = context.field("route_config", |context| RouteTable::parse(context, config));
            Some(RouteSource::Inline(Arc::new(table?)))
        }
        Some(inner::RouteSpecifier::Rds(rds)) => context.field("rds", |context| {
            rds.check(context);
            let source = context.required(
                "config_source",
                rds.config_source.as_ref(),
                super::config_source::parse,
            )?;
            Some(RouteSource::Rds {
                name: rds.route_config_name.as_str().into(),
                source,
            })
        }),
        Some(inner::RouteSpecifier::ScopedRoutes(_)) => {
            context.error_at("scoped_routes", "is not supported");
            None
        }
        None => {
            context.error_at("route_specifier", "is required");
            None
        }
    }
}

fn server_header(context: &mut Context, message: &hcm::HttpConnectionManager) -> ServerHeader {
    use inner::ServerHeaderTransformation;
    let value = message.server_header_transformation;
    match context.enumeration("server_header_transformation", value) {
        Some(ServerHeaderTransformation::AppendIfAbsent) => ServerHeader::AppendIfAbsent,
        Some(ServerHeaderTransformation::PassThrough) => ServerHeader::PassThrough,
        Some(ServerHeaderTransformation::Overwrite) | None => ServerHeader::Overwrite,
    }
}

fn scheme_overwrite(context: &mut Context, message: &hcm::HttpConnectionManager) -> Option<String> {
    use envoy_api::core::scheme_header_transformation::Transformation;
    let given = message.scheme_header_transformation.as_ref();
    context.optional("scheme_header_transformation", given, |context, given| {
        given.check(context);
        let Some(Transformation::SchemeToOverwrite(scheme)) = &given.transformation else {
            return None;
        };
        if !matches!(scheme.as_str(), "http" | "https") {
            context.error_at("scheme_to_overwrite", "must be http or https");
        }
        Some(scheme.clone())
    })
}

fn request_id(context: &mut Context, message: Option<&hcm::RequestIdExtension>) {
    use envoy_api::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
    context.optional("request_id_extension", message, |context, message| {
        message.check(context);
        let any = message.typed_config.as_ref()?;
        context.field("typed_config", |context| {
            context
                .open::<UuidRequestIdConfig>(any)
                .map(|one| one.check(context))
        })
    });
}

fn internal_addresses(
    context: &mut Context,
    message: &hcm::HttpConnectionManager,
) -> InternalAddresses {
    let given = message.internal_address_config.as_ref();
    context
        .optional("internal_address_config", given, |context, given| {
            given.check(context);
            let ranges = context.each("cidr_ranges", &given.cidr_ranges, super::address::cidr);
            Some(InternalAddresses::Ranges {
                unix_sockets: given.unix_sockets,
                ranges,
            })
        })
        .unwrap_or(InternalAddresses::Ranges {
            unix_sockets: false,
            ranges: Vec::new(),
        })
}

fn forward_client_cert(
    context: &mut Context,
    message: &hcm::HttpConnectionManager,
) -> ForwardClientCert {
    use inner::ForwardClientCertDetails as Wire;
    let value = message.forward_client_cert_details;
    match context.enumeration("forward_client_cert_details", value) {
        Some(Wire::ForwardOnly) => ForwardClientCert::ForwardOnly,
        Some(Wire::AppendForward) => ForwardClientCert::AppendForward,
        Some(Wire::SanitizeSet) => ForwardClientCert::SanitizeSet,
        Some(Wire::AlwaysForwardOnly) => ForwardClientCert::AlwaysForwardOnly,
        Some(Wire::Sanitize) | None => ForwardClientCert::Sanitize,
    }
}

fn cert_details(
    context: &mut Context,
    message: &inner::SetCurrentClientCertDetails,
) -> Option<ClientCertDetails> {
    message.check(context);
    Some(ClientCertDetails {
        subject: message.subject.unwrap_or(false),
        cert: message.cert,
        chain: message.chain,
        dns: message.dns,
        uri: message.uri,
    })
}

/// The list of upgrades; a name may come once.
fn upgrades(context: &mut Context, messages: &[inner::UpgradeConfig]) -> Vec<Upgrade> {
    let list = context.each("upgrade_configs", messages, upgrade);
    for (at, one) in list.iter().enumerate() {
        if list[..at].iter().any(|other| other.kind == one.kind) {
            let message = format!(
                "multiple upgrade configs with the same name: '{}'",
                one.kind
            );
            context.error_at("upgrade_configs", message);
        }
    }
    list
}

fn upgrade(context: &mut Context, message: &inner::UpgradeConfig) -> Option<Upgrade> {
    message.check(context);
    context.non_empty("upgrade_type", &message.upgrade_type);
    let kind = message.upgrade_type.to_ascii_lowercase();
    Some(Upgrade {
        kind,
        enabled: message.enabled.unwrap_or(true),
    })
}

fn escaped_slashes(context: &mut Context, message: &hcm::HttpConnectionManager) -> EscapedSlashes {
    use inner::PathWithEscapedSlashesAction as Wire;
    let value = message.path_with_escaped_slashes_action;
    match context.enumeration("path_with_escaped_slashes_action", value) {
        Some(Wire::RejectRequest) => EscapedSlashes::Reject,
        Some(Wire::UnescapeAndRedirect) => EscapedSlashes::UnescapeAndRedirect,
        Some(Wire::UnescapeAndForward) => EscapedSlashes::UnescapeAndForward,
        Some(Wire::KeepUnchanged | Wire::ImplementationSpecificDefault) | None => {
            EscapedSlashes::Keep
        }
    }
}

fn strip_port(context: &mut Context, message: &hcm::HttpConnectionManager) -> StripPort {
    let any = matches!(
        message.strip_port_mode,
        Some(inner::StripPortMode::StripAnyHostPort(true))
    );
    match (any, message.strip_matching_host_port) {
        (true, true) => {
            context.error(
                "Error: Only one of `strip_matching_host_port` or `strip_any_host_port` can be \
                 set.",
            );
            StripPort::Any
        }
        (true, false) => StripPort::Any,
        (false, true) => StripPort::Matching,
        (false, false) => StripPort::Never,
    }
}
