//! Which HTTP the upstream speaks: `HttpProtocolOptions`, or Envoy's older fields.

use envoy_api::cluster;
use envoy_api::http_protocol_options::{self as options, http_protocol_options as inner};

use super::UpstreamProtocol;
use crate::parse::Context;
use crate::parse::compat::Message as _;
use crate::parse::http_options::{self, HttpLimits};

pub struct HttpPart {
    pub protocol: UpstreamProtocol,
    pub limits: HttpLimits,
    pub auto_sni: bool,
    pub auto_san_validation: bool,
    pub override_auto_sni_header: Option<String>,
}

fields! {
    options::HttpProtocolOptions {
        read: common_http_protocol_options, upstream_http_protocol_options,
            upstream_protocol_options, http_filters, outlier_detection;
        reject: header_validation_config, request_mirror_policies, hash_policy, retry_policy;
    }
    inner::ExplicitHttpConfig { read: protocol_config; }
    inner::UseDownstreamHttpConfig {
        read: http_protocol_options, http2_protocol_options;
        reject: http3_protocol_options;
    }
    inner::AutoHttpConfig {
        read: http_protocol_options, http2_protocol_options;
        reject: http3_protocol_options, alternate_protocols_cache_options;
    }
    envoy_api::core::UpstreamHttpProtocolOptions {
        read: auto_sni, auto_san_validation, override_auto_sni_header;
    }
}

const EXTENSION: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

pub fn parse(context: &mut Context, message: &cluster::Cluster) -> HttpPart {
    let mut found = None;
    for (key, any) in &message.typed_extension_protocol_options {
        let place = format!("typed_extension_protocol_options[{key}]");
        context.field(&place, |context| {
            if key != EXTENSION {
                context.error("is not supported");
            } else if let Some(message) = context.open::<options::HttpProtocolOptions>(any) {
                found = Some(extension(context, &message));
            }
        });
    }
    found.unwrap_or_else(|| legacy(context, message))
}

fn extension(context: &mut Context, message: &options::HttpProtocolOptions) -> HttpPart {
    message.check(context);
    let common = message.common_http_protocol_options.as_ref();
    let limits = context.field("common_http_protocol_options", |context| {
        http_options::limits(context, common)
    });
    // The upstream codec filter is the only one there is, and it is always there.
    for (index, filter) in message.http_filters.iter().enumerate() {
        if filter.name != "envoy.filters.http.upstream_codec" {
            let place = format!("http_filters[{index}]");
            context.error_at(&place, format!("'{}' is not supported", filter.name));
        }
    }
    if let Some(detection) = &message.outlier_detection {
        context.unsupported("outlier_detection.error_matcher", &detection.error_matcher);
    }
    let protocol = match &message.upstream_protocol_options {
        Some(choice) => choose(context, choice),
        None => {
            context.error_at("upstream_protocol_options", "is required");
            UpstreamProtocol::Http1(http_options::Http1Options::default())
        }
    };
    let mut part = HttpPart {
        protocol,
        limits,
        auto_sni: false,
        auto_san_validation: false,
        override_auto_sni_header: None,
    };
    upstream_options(
        context,
        message.upstream_http_protocol_options.as_ref(),
        &mut part,
    );
    part
}

fn upstream_options(
    context: &mut Context,
    message: Option<&envoy_api::core::UpstreamHttpProtocolOptions>,
    part: &mut HttpPart,
) {
    context.optional(
        "upstream_http_protocol_options",
        message,
        |context, message| {
            message.check(context);
            part.auto_sni = message.auto_sni;
            part.auto_san_validation = message.auto_san_validation;
            let header = message.override_auto_sni_header.to_ascii_lowercase();
            part.override_auto_sni_header = (!header.is_empty()).then_some(header);
            Some(())
        },
    );
}

fn choose(context: &mut Context, choice: &inner::UpstreamProtocolOptions) -> UpstreamProtocol {
    use inner::UpstreamProtocolOptions as Choice;
    use inner::explicit_http_config::ProtocolConfig;
    match choice {
        Choice::ExplicitHttpConfig(explicit) => context.field("explicit_http_config", |context| {
            explicit.check(context);
            match &explicit.protocol_config {
                Some(ProtocolConfig::HttpProtocolOptions(one)) => {
                    UpstreamProtocol::Http1(http_options::http1(context, Some(one)))
                }
                Some(ProtocolConfig::Http2ProtocolOptions(one)) => {
                    UpstreamProtocol::Http2(http_options::http2(context, Some(one)))
                }
                Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                    context.error_at("http3_protocol_options", "is not supported");
                    UpstreamProtocol::Http1(http_options::Http1Options::default())
                }
                None => {
                    context.error_at("protocol_config", "is required");
                    UpstreamProtocol::Http1(http_options::Http1Options::default())
                }
            }
        }),
        Choice::UseDownstreamProtocolConfig(one) => {
            context.field("use_downstream_protocol_config", |context| {
                one.check(context);
                UpstreamProtocol::Downstream {
                    http1: http_options::http1(context, one.http_protocol_options.as_ref()),
                    http2: http_options::http2(context, one.http2_protocol_options.as_ref()),
                }
            })
        }
        Choice::AutoConfig(one) => context.field("auto_config", |context| {
            one.check(context);
            UpstreamProtocol::Auto {
                http1: http_options::http1(context, one.http_protocol_options.as_ref()),
                http2: http_options::http2(context, one.http2_protocol_options.as_ref()),
            }
        }),
    }
}

fn legacy(context: &mut Context, message: &cluster::Cluster) -> HttpPart {
    use cluster::cluster::ClusterProtocolSelection;
    let common = message.common_http_protocol_options.as_ref();
    let mut limits = context.field("common_http_protocol_options", |context| {
        http_options::limits(context, common)
    });
    if let Some(count) = message
        .max_requests_per_connection
        .filter(|count| *count > 0)
    {
        limits.max_requests_per_connection = Some(count);
    }
    let http1 = context.field("http_protocol_options", |context| {
        http_options::http1(context, message.http_protocol_options.as_ref())
    });
    let http2 = context.field("http2_protocol_options", |context| {
        http_options::http2(context, message.http2_protocol_options.as_ref())
    });
    let selection = context.enumeration("protocol_selection", message.protocol_selection);
    let protocol = if selection == Some(ClusterProtocolSelection::UseDownstreamProtocol) {
        UpstreamProtocol::Downstream { http1, http2 }
    } else if message.http2_protocol_options.is_some() {
        UpstreamProtocol::Http2(http2)
    } else {
        UpstreamProtocol::Http1(http1)
    };
    let mut part = HttpPart {
        protocol,
        limits,
        auto_sni: false,
        auto_san_validation: false,
        override_auto_sni_header: None,
    };
    upstream_options(
        context,
        message.upstream_http_protocol_options.as_ref(),
        &mut part,
    );
    part
}
