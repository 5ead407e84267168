//! Route configurations and virtual hosts from their messages; all levels of header edits and
//! filter settings are resolved here, once.

use std::sync::Arc;

use envoy_api::route::{self, route_match, virtual_host};

use super::edits::HeaderEdits;
use super::matching::Index;
use super::{
    Action, Criteria, HostIndex, PathMatch, RequireTls, RouteEntry, RouteTable, VirtualHost,
};
use crate::http::filters::Overrides;
use crate::matcher::{HeaderMatcher, QueryMatcher, Regex, fraction};
use crate::parse::compat::Message as _;
use crate::parse::{ConfigError, Context, Environment};

/// What every virtual host of a table inherits.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    request: Arc<HeaderEdits>,
    response: Arc<HeaderEdits>,
    most_specific_wins: bool,
    overrides: Overrides,
    pub(super) max_direct_body: usize,
    pub(super) mirrors: Vec<route::route_action::RequestMirrorPolicy>,
}

/// What a route inherits from its virtual host.
pub(super) struct Parent<'a> {
    pub shared: &'a Shared,
    request: Arc<HeaderEdits>,
    response: Arc<HeaderEdits>,
    pub overrides: Overrides,
    pub retry: Option<&'a route::RetryPolicy>,
    pub mirrors: &'a [route::route_action::RequestMirrorPolicy],
    buffer_limit: Option<usize>,
}

fields! {
    route::RouteConfiguration {
        read: name, virtual_hosts, vhds, internal_only_headers, response_headers_to_add,
            response_headers_to_remove, request_headers_to_add, request_headers_to_remove,
            most_specific_header_mutations_wins, max_direct_response_body_size_bytes,
            request_mirror_policies, ignore_port_in_host_matching, vhost_header,
            ignore_path_parameters_in_path_matching, typed_per_filter_config,
            validate_clusters;
        reject: cluster_specifier_plugins, route_specifiers;
        ignore: metadata = "nothing reads a table's metadata";
    }
    route::Vhds { read: config_source; }
    route::VirtualHost {
        read: name, domains, routes, require_tls, request_headers_to_add,
            request_headers_to_remove, response_headers_to_add, response_headers_to_remove,
            typed_per_filter_config, include_request_attempt_count,
            include_attempt_count_in_response, retry_policy, include_is_timeout_retry_header,
            per_request_buffer_limit_bytes, request_body_buffer_limit, request_mirror_policies;
        reject: matcher, rate_limits, cors, retry_policy_typed_config, hedge_policy,
            route_specifiers;
        ignore: virtual_clusters = "statistics by virtual cluster are not kept",
            metadata = "nothing reads a virtual host's metadata";
    }
    route::Route {
        read: name, r#match, metadata, decorator, typed_per_filter_config,
            request_headers_to_add, request_headers_to_remove, response_headers_to_add,
            response_headers_to_remove, per_request_buffer_limit_bytes, stat_prefix,
            request_body_buffer_limit, action;
        reject: route_specifiers;
        ignore: tracing = "spans are not reported";
    }
    route::RouteMatch {
        read: case_sensitive, runtime_fraction, headers, query_parameters, grpc, tls_context,
            path_specifier;
        reject: dynamic_metadata, filter_state, cookies;
    }
    route::Decorator {
        read: operation;
        ignore: propagate = "spans are not reported";
    }
}

/// A route configuration resource.
pub fn route_table(
    message: &route::RouteConfiguration,
    environment: &Environment,
) -> Result<RouteTable, ConfigError> {
    let mut context = Context::within(environment);
    let parsed = RouteTable::parse(&mut context, message);
    context.finish(format!("route configuration '{}'", message.name), parsed)
}

impl RouteTable {
    pub fn parse(context: &mut Context, message: &route::RouteConfiguration) -> Option<RouteTable> {
        message.check(context);
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
        let shared = Shared {
            request: Arc::new(request),
            response: Arc::new(response),
            most_specific_wins: message.most_specific_header_mutations_wins,
            overrides: Overrides::parse(
                context,
                &Overrides::default(),
                &message.typed_per_filter_config,
            ),
            max_direct_body: message.max_direct_response_body_size_bytes.unwrap_or(4096) as usize,
            mirrors: message.request_mirror_policies.clone(),
        };
        let virtual_hosts =
            context.each("virtual_hosts", &message.virtual_hosts, |context, one| {
                parse_virtual_host(context, &shared, one).map(Arc::new)
            });
        let vhds = context.optional("vhds", message.vhds.as_ref(), |context, vhds| {
            vhds.check(context);
            let source = vhds.config_source.as_ref();
            context.required("config_source", source, crate::parse::config_source::parse)
        });
        let hosts = index(context, &message.name, &virtual_hosts);
        let header = message.vhost_header.to_ascii_lowercase();
        Some(RouteTable {
            name: message.name.as_str().into(),
            hosts,
            virtual_hosts,
            ignore_port: message.ignore_port_in_host_matching,
            host_header: (!header.is_empty()).then_some(header),
            internal_only_headers: message
                .internal_only_headers
                .iter()
                .map(|name| name.to_ascii_lowercase())
                .collect(),
            ignore_path_parameters: message.ignore_path_parameters_in_path_matching,
            vhds,
            validate_clusters: message.validate_clusters,
            shared: Arc::new(shared),
        })
    }

    /// The same table with other virtual hosts: those that a discovery service sends one by one.
    pub fn with_virtual_hosts(
        &self,
        virtual_hosts: Vec<Arc<VirtualHost>>,
    ) -> Result<RouteTable, ConfigError> {
        let mut context = Context::new();
        let hosts = index(&mut context, &self.name, &virtual_hosts);
        let table = RouteTable {
            name: self.name.clone(),
            hosts,
            virtual_hosts,
            ignore_port: self.ignore_port,
            host_header: self.host_header.clone(),
            internal_only_headers: self.internal_only_headers.clone(),
            ignore_path_parameters: self.ignore_path_parameters,
            vhds: self.vhds.clone(),
            validate_clusters: self.validate_clusters,
            shared: self.shared.clone(),
        };
        context.finish(format!("route configuration '{}'", self.name), Some(table))
    }

    /// A virtual host resource for this table.
    pub fn virtual_host_of(
        &self,
        message: &route::VirtualHost,
        environment: &Environment,
    ) -> Result<VirtualHost, ConfigError> {
        let mut context = Context::within(environment);
        let parsed = parse_virtual_host(&mut context, &self.shared, message);
        context.finish(format!("virtual host '{}'", message.name), parsed)
    }
}

fn index(context: &mut Context, table: &str, virtual_hosts: &[Arc<VirtualHost>]) -> HostIndex {
    let mut hosts = HostIndex::default();
    let mut names = std::collections::HashSet::new();
    for (at, virtual_host) in virtual_hosts.iter().enumerate() {
        if !names.insert(&virtual_host.name) {
            context.error(format!(
                "virtual host names must be unique: '{}' in route {table}",
                virtual_host.name
            ));
        }
        for domain in &virtual_host.domains {
            if !hosts.insert(domain, at) {
                context.error(if domain == "*" {
                    format!("Only a single wildcard domain is permitted in route {table}")
                } else {
                    format!(
                        "Only unique values for domains are permitted. Duplicate entry of domain \
                         {domain} in route {table}"
                    )
                });
            }
        }
    }
    hosts
}

fn parse_virtual_host(
    context: &mut Context,
    shared: &Shared,
    message: &route::VirtualHost,
) -> Option<VirtualHost> {
    use virtual_host::TlsRequirementType;
    message.check(context);
    context.non_empty("name", &message.name);
    if message.domains.is_empty() {
        context.error_at("domains", "must have at least one member");
    }
    for domain in &message.domains {
        let inner = domain
            .strip_prefix('*')
            .or(domain.strip_suffix('*'))
            .unwrap_or(domain);
        if inner.contains('*') || domain.is_empty() {
            context.error_at("domains", format!("'{domain}' is not a domain"));
        }
    }
    let require_tls = match context.enumeration("require_tls", message.require_tls)? {
        TlsRequirementType::None => RequireTls::No,
        TlsRequirementType::ExternalOnly => RequireTls::External,
        TlsRequirementType::All => RequireTls::All,
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
    let overrides = Overrides::parse(context, &shared.overrides, &message.typed_per_filter_config);
    let mirrors = if message.request_mirror_policies.is_empty() {
        &shared.mirrors
    } else {
        &message.request_mirror_policies
    };
    let parent = Parent {
        shared,
        request: Arc::new(request),
        response: Arc::new(response),
        overrides,
        retry: message.retry_policy.as_ref(),
        mirrors,
        buffer_limit: buffer_limit(
            message.request_body_buffer_limit,
            message.per_request_buffer_limit_bytes,
        ),
    };
    let routes = context.each("routes", &message.routes, |context, one| {
        parse_route(context, &parent, one).map(Arc::new)
    });
    Some(VirtualHost {
        name: message.name.as_str().into(),
        domains: message.domains.clone(),
        index: Index::of(&routes),
        routes,
        require_tls,
        include_request_attempt_count: message.include_request_attempt_count,
        include_attempt_count_in_response: message.include_attempt_count_in_response,
        include_is_timeout_retry_header: message.include_is_timeout_retry_header,
    })
}

fn buffer_limit(new: Option<u64>, old: Option<u32>) -> Option<usize> {
    new.and_then(|limit| usize::try_from(limit).ok())
        .or(old.map(|limit| limit as usize))
}

fn parse_route(
    context: &mut Context,
    parent: &Parent<'_>,
    message: &route::Route,
) -> Option<RouteEntry> {
    message.check(context);
    let criteria = context.required("match", message.r#match.as_ref(), criteria)?;
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
    let overrides = Overrides::parse(context, &parent.overrides, &message.typed_per_filter_config);
    let action = super::parse_action::action(context, (parent, &overrides, &criteria), message)?;
    let operation = context.optional("decorator", message.decorator.as_ref(), |context, one| {
        one.check(context);
        Some(Arc::from(one.operation.as_str()))
    });
    let stat_prefix = &message.stat_prefix;
    let specific = parent.shared.most_specific_wins;
    Some(RouteEntry {
        name: message.name.as_str().into(),
        criteria,
        action,
        request_edits: levels(
            [
                Arc::new(request),
                parent.request.clone(),
                parent.shared.request.clone(),
            ],
            specific,
        ),
        response_edits: levels(
            [
                Arc::new(response),
                parent.response.clone(),
                parent.shared.response.clone(),
            ],
            specific,
        ),
        overrides,
        metadata: crate::parse::metadata::parse(message.metadata.as_ref()),
        operation,
        stat_prefix: (!stat_prefix.is_empty()).then(|| stat_prefix.as_str().into()),
        buffer_limit: buffer_limit(
            message.request_body_buffer_limit,
            message.per_request_buffer_limit_bytes,
        )
        .or(parent.buffer_limit),
    })
}

/// From the route up to the table, so that the table has the last word; or the other way round.
fn levels(mut levels: [Arc<HeaderEdits>; 3], most_specific_wins: bool) -> Vec<Arc<HeaderEdits>> {
    if most_specific_wins {
        levels.reverse();
    }
    levels
        .into_iter()
        .filter(|level| !level.is_empty())
        .collect()
}

fn criteria(context: &mut Context, message: &route::RouteMatch) -> Option<Criteria> {
    message.check(context);
    let path = path(context, message);
    let headers = context.each("headers", &message.headers, HeaderMatcher::parse);
    let query = context.each(
        "query_parameters",
        &message.query_parameters,
        QueryMatcher::parse,
    );
    let fraction = context.optional(
        "runtime_fraction",
        message.runtime_fraction.as_ref(),
        fraction::runtime,
    );
    let tls = message.tls_context.as_ref();
    Some(Criteria {
        path: path?,
        case_sensitive: message.case_sensitive.unwrap_or(true),
        headers,
        query,
        fraction,
        grpc: message.grpc.is_some(),
        tls: tls.map(|tls| (tls.presented, tls.validated)),
    })
}

fn path(context: &mut Context, message: &route::RouteMatch) -> Option<PathMatch> {
    use route_match::PathSpecifier;
    match &message.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => Some(PathMatch::Prefix(prefix.clone())),
        Some(PathSpecifier::Path(path)) => Some(PathMatch::Exact(path.clone())),
        Some(PathSpecifier::SafeRegex(regex)) => context
            .field("safe_regex", |context| Regex::parse(context, regex))
            .map(PathMatch::Regex),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => {
            let bad_end = prefix.ends_with(['/', '?', '#']);
            if prefix.is_empty() || bad_end || prefix.contains(['?', '#']) {
                context.error_at(
                    "path_separated_prefix",
                    "must not be empty, end with '/', or contain '?' or '#'",
                );
            }
            Some(PathMatch::SeparatedPrefix(prefix.clone()))
        }
        Some(PathSpecifier::ConnectMatcher(_)) => Some(PathMatch::Connect),
        Some(PathSpecifier::PathMatchPolicy(one)) => {
            let message = format!("'{}' is not supported", one.name);
            context.error_at("path_match_policy", message);
            None
        }
        None => {
            context.error_at("path_specifier", "is required");
            None
        }
    }
}

impl Action {
    /// The status that a route answers by itself.
    pub fn own_status(&self) -> Option<u16> {
        match self {
            Action::Redirect(redirect) => Some(redirect.status),
            Action::Direct(direct) => Some(direct.status),
            Action::Forward(_) | Action::None => None,
        }
    }
}
