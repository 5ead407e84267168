//! What a route does: forward, redirect, answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use envoy_api::route::{self, redirect_action, route_action, weighted_cluster};

use super::edits::HeaderEdits;
use super::hash::{HashKind, HashPolicy};
use super::parse::Parent;
use super::redirect::RedirectPath;
use super::{
    Action, ClusterChoice, ClusterName, Criteria, DirectResponse, Forward, HostRewrite, MaxStream,
    Mirror, MirrorCluster, PathRewrite, Redirect, SchemeRewrite, WeightedCluster,
};
use crate::cluster::shared::RoutingPriority;
use crate::http::filters::Overrides;
use crate::matcher::{Fraction, Substitution, fraction};
use crate::parse::Context;
use crate::parse::compat::Message as _;
use crate::parse::http_connection_manager::Upgrade;
use crate::retry::RetryPolicy;

fields! {
    route::RouteAction {
        read: cluster_not_found_response_code, prefix_rewrite, regex_rewrite,
            append_x_forwarded_host, timeout, idle_timeout, retry_policy,
            request_mirror_policies, priority, hash_policy, max_grpc_timeout,
            grpc_timeout_offset, upgrade_configs, max_stream_duration, cluster_specifier,
            host_rewrite_specifier;
        reject: metadata_match, path_rewrite_policy, path_rewrite, retry_policy_typed_config,
            rate_limits, include_vh_rate_limits, cors, internal_redirect_policy,
            internal_redirect_action, hedge_policy;
        ignore: early_data_policy = "there is no early data",
            max_internal_redirects = "internal redirects are refused",
            flush_timeout = "flushing ends with the stream's idle timeout";
    }
    route_action::MaxStreamDuration {
        read: max_stream_duration, grpc_timeout_header_max, grpc_timeout_header_offset;
    }
    route_action::UpgradeConfig {
        read: upgrade_type, enabled;
        reject: connect_config;
    }
    route_action::RequestMirrorPolicy {
        read: cluster, cluster_header, runtime_fraction, trace_sampled,
            disable_shadow_host_suffix_append, host_rewrite_literal;
        reject: request_headers_mutations;
    }
    route_action::HashPolicy { read: terminal, policy_specifier; }
    route_action::hash_policy::Header { read: header_name, regex_rewrite; }
    route_action::hash_policy::Cookie { read: name, ttl, path, attributes; }
    route::WeightedCluster {
        read: clusters, total_weight, random_value_specifier;
        ignore: runtime_key_prefix = "no runtime layer overrides weights";
    }
    weighted_cluster::ClusterWeight {
        read: name, cluster_header, weight, request_headers_to_add, request_headers_to_remove,
            response_headers_to_add, response_headers_to_remove, typed_per_filter_config,
            host_rewrite_specifier;
        reject: metadata_match;
    }
    route::RedirectAction {
        read: host_redirect, port_redirect, response_code, strip_query,
            scheme_rewrite_specifier, path_rewrite_specifier;
    }
    route::DirectResponseAction {
        read: status, body;
        reject: body_format;
    }
}

/// What surrounds an action: its virtual host, its resolved filter settings, its criteria.
pub(super) type Around<'a> = (&'a Parent<'a>, &'a Overrides, &'a Criteria);

pub(super) fn action(
    context: &mut Context,
    around: Around<'_>,
    message: &route::Route,
) -> Option<Action> {
    use route::route::Action as Wire;
    match &message.action {
        Some(Wire::Route(one)) => context
            .field("route", |context| forward(context, around, one))
            .map(|forward| Action::Forward(Box::new(forward))),
        Some(Wire::Redirect(one)) => context
            .field("redirect", |context| redirect(context, one))
            .map(|redirect| Action::Redirect(Box::new(redirect))),
        Some(Wire::DirectResponse(one)) => context
            .field("direct_response", |context| direct(context, around, one))
            .map(Action::Direct),
        Some(Wire::NonForwardingAction(_)) => Some(Action::None),
        Some(Wire::FilterAction(_)) => {
            context.error_at("filter_action", "is not supported");
            None
        }
        None => {
            context.error_at("action", "is required");
            None
        }
    }
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

fn forward(
    context: &mut Context,
    around: Around<'_>,
    message: &route::RouteAction,
) -> Option<Forward> {
    use route_action::ClusterNotFoundResponseCode as Code;
    message.check(context);
    let (parent, _, _) = around;
    let clusters = clusters(context, around, message);
    let code = message.cluster_not_found_response_code;
    let cluster_not_found_status =
        match context.enumeration("cluster_not_found_response_code", code)? {
            Code::ServiceUnavailable => 503,
            Code::NotFound => 404,
            Code::InternalServerError => 500,
        };
    let retry = match (&message.retry_policy, parent.retry) {
        (Some(own), _) => Some(own),
        (None, inherited) => inherited,
    };
    let retry = context
        .optional("retry_policy", retry, RetryPolicy::parse)
        .map(Arc::new);
    let mirrors = if message.request_mirror_policies.is_empty() {
        parent.mirrors
    } else {
        &message.request_mirror_policies
    };
    let idle = context.duration("idle_timeout", message.idle_timeout.as_ref());
    Some(Forward {
        clusters: clusters?,
        cluster_not_found_status,
        path_rewrite: path_rewrite(context, message),
        host_rewrite: host_rewrite(context, message),
        append_x_forwarded_host: message.append_x_forwarded_host,
        timeout: context.timeout("timeout", message.timeout.as_ref(), Some(DEFAULT_TIMEOUT)),
        idle_timeout: idle.map(|idle| (!idle.is_zero()).then_some(idle)),
        max_grpc_timeout: context.duration("max_grpc_timeout", message.max_grpc_timeout.as_ref()),
        grpc_timeout_offset: context
            .duration("grpc_timeout_offset", message.grpc_timeout_offset.as_ref()),
        max_stream: context.optional(
            "max_stream_duration",
            message.max_stream_duration.as_ref(),
            max_stream,
        ),
        retry,
        mirrors: context.each("request_mirror_policies", mirrors, mirror),
        hash: context.each("hash_policy", &message.hash_policy, hash_policy),
        priority: match context.enumeration("priority", message.priority)? {
            envoy_api::core::RoutingPriority::Default => RoutingPriority::Default,
            envoy_api::core::RoutingPriority::High => RoutingPriority::High,
        },
        upgrades: context.each(
            "upgrade_configs",
            &message.upgrade_configs,
            |context, one| {
                one.check(context);
                let kind = one.upgrade_type.to_ascii_lowercase();
                Some(Upgrade {
                    kind,
                    enabled: one.enabled.unwrap_or(true),
                })
            },
        ),
    })
}

fn clusters(
    context: &mut Context,
    around: Around<'_>,
    message: &route::RouteAction,
) -> Option<ClusterChoice> {
    use route_action::ClusterSpecifier;
    match &message.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => {
            context.non_empty("cluster", name);
            Some(ClusterChoice::One(name.as_str().into()))
        }
        Some(ClusterSpecifier::ClusterHeader(name)) => {
            context.non_empty("cluster_header", name);
            Some(ClusterChoice::Header(name.to_ascii_lowercase()))
        }
        Some(ClusterSpecifier::WeightedClusters(one)) => context
            .field("weighted_clusters", |context| {
                weighted(context, around, one)
            }),
        Some(
            ClusterSpecifier::ClusterSpecifierPlugin(_)
            | ClusterSpecifier::InlineClusterSpecifierPlugin(_),
        ) => {
            context.error_at("cluster_specifier_plugin", "is not supported");
            None
        }
        None => {
            context.error_at("cluster_specifier", "is required");
            None
        }
    }
}

fn weighted(
    context: &mut Context,
    around: Around<'_>,
    message: &route::WeightedCluster,
) -> Option<ClusterChoice> {
    use weighted_cluster::RandomValueSpecifier;
    message.check(context);
    let members = context.each("clusters", &message.clusters, |context, one| {
        weighted_member(context, around, one)
    });
    let total: u64 = members.iter().map(|one| u64::from(one.weight)).sum();
    if members.is_empty() {
        context.error_at("clusters", "must have at least one member");
    }
    if total == 0 {
        context.error("Sum of weights in the weighted_cluster must be greater than 0.");
    }
    if total > u64::from(u32::MAX) {
        context.error("The sum of weights of all weighted clusters exceeds 4294967295.");
    }
    if let Some(wanted) = message.total_weight
        && u64::from(wanted) != total
    {
        context.error(format!(
            "Sum of weights in the weighted_cluster should add up to {wanted}"
        ));
    }
    let random_header = match &message.random_value_specifier {
        Some(RandomValueSpecifier::HeaderName(name)) => Some(name.to_ascii_lowercase()),
        Some(RandomValueSpecifier::UseHashPolicy(true)) => {
            context.error_at("use_hash_policy", "is not supported");
            None
        }
        Some(RandomValueSpecifier::UseHashPolicy(false)) | None => None,
    };
    Some(ClusterChoice::Weighted {
        total,
        members,
        random_header,
    })
}

fn weighted_member(
    context: &mut Context,
    (_, overrides, _): Around<'_>,
    message: &weighted_cluster::ClusterWeight,
) -> Option<WeightedCluster> {
    use weighted_cluster::cluster_weight::HostRewriteSpecifier;
    message.check(context);
    let name = match (message.name.as_str(), message.cluster_header.as_str()) {
        ("", "") => {
            context.error("At least one of name or cluster_header need to be specified");
            return None;
        }
        ("", header) => ClusterName::Header(header.to_ascii_lowercase()),
        (name, "") => ClusterName::Fixed(name.into()),
        _ => {
            context.error("Only one of name or cluster_header can be specified");
            return None;
        }
    };
    let request = HeaderEdits::parse(
        context,
        "request",
        &message.request_headers_to_add,
        &message.request_headers_to_remove,
    );
    let response = HeaderEdits::parse(
        context,
        "response",
        &message.response_headers_to_add,
        &message.response_headers_to_remove,
    );
    let kept = |edits: HeaderEdits| (!edits.is_empty()).then(|| Arc::new(edits));
    Some(WeightedCluster {
        name,
        weight: message.weight.unwrap_or(0),
        request_edits: kept(request),
        response_edits: kept(response),
        host_rewrite: message.host_rewrite_specifier.as_ref().map(|one| {
            let HostRewriteSpecifier::HostRewriteLiteral(host) = one;
            host.clone()
        }),
        overrides: Overrides::parse(context, overrides, &message.typed_per_filter_config),
    })
}

fn path_rewrite(context: &mut Context, message: &route::RouteAction) -> PathRewrite {
    let regex = context.optional(
        "regex_rewrite",
        message.regex_rewrite.as_ref(),
        Substitution::parse,
    );
    match (message.prefix_rewrite.as_str(), regex) {
        ("", None) => PathRewrite::None,
        ("", Some(regex)) => PathRewrite::Regex(regex),
        (prefix, None) => PathRewrite::Prefix(prefix.to_owned()),
        (_, Some(_)) => {
            context
                .error("Specify only one of prefix_rewrite, regex_rewrite or path_rewrite_policy");
            PathRewrite::None
        }
    }
}

fn host_rewrite(context: &mut Context, message: &route::RouteAction) -> HostRewrite {
    use route_action::HostRewriteSpecifier as Wire;
    match &message.host_rewrite_specifier {
        None | Some(Wire::AutoHostRewrite(false)) => HostRewrite::None,
        Some(Wire::AutoHostRewrite(true)) => HostRewrite::Auto,
        Some(Wire::HostRewriteLiteral(host)) => HostRewrite::Literal(host.clone()),
        Some(Wire::HostRewriteHeader(name)) => HostRewrite::Header(name.to_ascii_lowercase()),
        Some(Wire::HostRewritePathRegex(one)) => context
            .field("host_rewrite_path_regex", |context| {
                Substitution::parse(context, one)
            })
            .map_or(HostRewrite::None, HostRewrite::PathRegex),
        Some(Wire::HostRewrite(_)) => {
            context.error_at("host_rewrite", "is not supported");
            HostRewrite::None
        }
    }
}

fn max_stream(
    context: &mut Context,
    message: &route_action::MaxStreamDuration,
) -> Option<MaxStream> {
    message.check(context);
    Some(MaxStream {
        duration: context.timeout(
            "max_stream_duration",
            message.max_stream_duration.as_ref(),
            None,
        ),
        grpc_header_max: context.duration(
            "grpc_timeout_header_max",
            message.grpc_timeout_header_max.as_ref(),
        ),
        grpc_header_offset: context.duration(
            "grpc_timeout_header_offset",
            message.grpc_timeout_header_offset.as_ref(),
        ),
    })
}

fn mirror(context: &mut Context, message: &route_action::RequestMirrorPolicy) -> Option<Mirror> {
    message.check(context);
    let cluster = match (message.cluster.as_str(), message.cluster_header.as_str()) {
        (name, "") if !name.is_empty() => MirrorCluster::Fixed(name.into()),
        ("", header) if !header.is_empty() => MirrorCluster::Header(header.to_ascii_lowercase()),
        _ => {
            context.error("Exactly one of cluster and cluster_header must be specified");
            return None;
        }
    };
    let fraction = message.runtime_fraction.as_ref();
    let fraction = context
        .optional("runtime_fraction", fraction, fraction::runtime)
        .unwrap_or(Fraction::ALL);
    let host = &message.host_rewrite_literal;
    Some(Mirror {
        cluster,
        fraction,
        keep_host: message.disable_shadow_host_suffix_append,
        host_rewrite: (!host.is_empty()).then(|| host.clone()),
        trace_sampled: message.trace_sampled,
    })
}

fn hash_policy(context: &mut Context, message: &route_action::HashPolicy) -> Option<HashPolicy> {
    use route_action::hash_policy::PolicySpecifier;
    message.check(context);
    let kind = match &message.policy_specifier {
        Some(PolicySpecifier::Header(one)) => {
            one.check(context);
            context.non_empty("header.header_name", &one.header_name);
            let rewrite = one.regex_rewrite.as_ref();
            HashKind::Header {
                name: one.header_name.to_ascii_lowercase(),
                rewrite: context.optional("header.regex_rewrite", rewrite, Substitution::parse),
            }
        }
        Some(PolicySpecifier::Cookie(one)) => {
            one.check(context);
            context.non_empty("cookie.name", &one.name);
            HashKind::Cookie {
                name: one.name.clone(),
                ttl: context.duration("cookie.ttl", one.ttl.as_ref()),
                path: one.path.clone(),
                attributes: one
                    .attributes
                    .iter()
                    .map(|one| (one.name.clone(), one.value.clone()))
                    .collect(),
            }
        }
        Some(PolicySpecifier::ConnectionProperties(one)) => {
            // Without source_ip the policy hashes nothing.
            one.source_ip.then_some(HashKind::SourceIp)?
        }
        Some(PolicySpecifier::QueryParameter(one)) => {
            context.non_empty("query_parameter.name", &one.name);
            HashKind::Query(one.name.clone())
        }
        Some(PolicySpecifier::FilterState(one)) => HashKind::FilterState(one.key.clone()),
        None => {
            context.error_at("policy_specifier", "is required");
            return None;
        }
    };
    Some(HashPolicy {
        kind,
        terminal: message.terminal,
    })
}

fn redirect(context: &mut Context, message: &route::RedirectAction) -> Option<Redirect> {
    use redirect_action::{
        PathRewriteSpecifier as Path, RedirectResponseCode as Code,
        SchemeRewriteSpecifier as Scheme,
    };
    message.check(context);
    let status = match context.enumeration("response_code", message.response_code)? {
        Code::MovedPermanently => 301,
        Code::Found => 302,
        Code::SeeOther => 303,
        Code::TemporaryRedirect => 307,
        Code::PermanentRedirect => 308,
    };
    let port = u16::try_from(message.port_redirect).ok();
    if port.is_none() {
        context.error_at("port_redirect", "must be at most 65535");
    }
    let host = &message.host_redirect;
    let path = match &message.path_rewrite_specifier {
        None => RedirectPath::Keep,
        Some(Path::PathRedirect(path)) if path.is_empty() => RedirectPath::Keep,
        Some(Path::PathRedirect(path)) => RedirectPath::Whole(path.clone()),
        Some(Path::PrefixRewrite(prefix)) => RedirectPath::Prefix(prefix.clone()),
        Some(Path::RegexRewrite(one)) => RedirectPath::Regex(
            context.field("regex_rewrite", |context| Substitution::parse(context, one))?,
        ),
        Some(Path::PathRewrite(_)) => {
            context.error_at("path_rewrite", "is not supported");
            return None;
        }
    };
    Some(Redirect {
        status,
        scheme: match &message.scheme_rewrite_specifier {
            Some(Scheme::HttpsRedirect(true)) => SchemeRewrite::Https,
            Some(Scheme::SchemeRedirect(scheme)) if !scheme.is_empty() => {
                SchemeRewrite::To(scheme.to_ascii_lowercase())
            }
            Some(Scheme::HttpsRedirect(false) | Scheme::SchemeRedirect(_)) | None => {
                SchemeRewrite::Keep
            }
        },
        host: (!host.is_empty()).then(|| host.clone()),
        port: port.filter(|port| *port != 0),
        path,
        strip_query: message.strip_query,
    })
}

fn direct(
    context: &mut Context,
    (parent, _, _): Around<'_>,
    message: &route::DirectResponseAction,
) -> Option<DirectResponse> {
    message.check(context);
    if !(200..600).contains(&message.status) {
        context.error_at("status", "must be between 200 and 599");
    }
    let source = context.optional(
        "body",
        message.body.as_ref(),
        crate::parse::tls::data_source,
    );
    let body = match source.map(|source| source.read()) {
        None => Bytes::new(),
        Some(Ok(body)) => body,
        Some(Err(error)) => {
            context.error_at("body", error.to_string());
            Bytes::new()
        }
    };
    let limit = parent.shared.max_direct_body;
    if body.len() > limit {
        context.error_at(
            "body",
            format!(
                "response body size is {} bytes; maximum is {limit}",
                body.len()
            ),
        );
    }
    let status = u16::try_from(message.status).ok()?;
    Some(DirectResponse {
        status,
        body,
        content_type: None,
    })
}
