//! The RBAC engine: policies of permissions and principals over what is known of a request or a
//! connection. The HTTP and the network filter ask it.

use std::net::IpAddr;
use std::sync::Arc;

use envoy_api::matcher as wire_matcher;
use envoy_api::rbac::{self, permission, principal};
use ipnet::IpNet;

use crate::http::request::RequestHead;
use crate::matcher::{HeaderMatcher, StringMatcher};
use crate::parse::Context;
use crate::parse::compat::Message as _;
use crate::stream_info::{FilterState, StreamInfo};

mod metadata;
mod template;

use metadata::MetadataMatcher;
use template::PathTemplate;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Allow,
    Deny,
    Log,
}

#[derive(Debug)]
pub struct Rbac {
    pub action: Action,
    /// Sorted by name, as in Envoy's map.
    policies: Vec<(Arc<str>, Policy)>,
}

#[derive(Debug)]
struct Policy {
    permissions: Vec<Permission>,
    principals: Vec<Principal>,
}

#[derive(Debug)]
enum Permission {
    Any(bool),
    All(Vec<Permission>),
    AnyOf(Vec<Permission>),
    Not(Box<Permission>),
    Header(HeaderMatcher),
    Path(StringMatcher),
    Template(PathTemplate),
    DestinationIp(IpNet),
    DestinationPort(u16),
    /// Half open.
    DestinationPorts(i32, i32),
    ServerName(StringMatcher),
    Metadata(MetadataMatcher),
}

#[derive(Debug)]
enum Principal {
    Any(bool),
    All(Vec<Principal>),
    AnyOf(Vec<Principal>),
    Not(Box<Principal>),
    Authenticated(Option<StringMatcher>),
    SourceIp(IpNet),
    DirectRemoteIp(IpNet),
    RemoteIp(IpNet),
    Header(HeaderMatcher),
    Path(StringMatcher),
    Metadata(MetadataMatcher),
    FilterState { key: String, matcher: StringMatcher },
}

/// What a decision is made of; without a head HTTP matchers match nothing.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    pub stream: &'a StreamInfo,
    pub request: Option<&'a RequestHead>,
}

/// What the rules said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub allowed: bool,
    /// The policy that matched.
    pub policy: Option<Arc<str>>,
}

impl Verdict {
    /// Envoy's response code detail of a denial.
    pub fn details(&self) -> String {
        let policy = self.policy.as_deref().unwrap_or("none");
        let policy: String = policy
            .chars()
            .map(|one| if one.is_whitespace() { '_' } else { one })
            .collect();
        format!("rbac_access_denied_matched_policy[{policy}]")
    }
}

fields! {
    rbac::Rbac {
        read: action, policies;
        reject: audit_logging_options;
    }
    rbac::Policy {
        read: permissions, principals;
        reject: condition, checked_condition, cel_config;
    }
    rbac::Permission { read: rule; }
    rbac::Principal { read: identifier; }
    wire_matcher::PathMatcher { read: rule; }
    wire_matcher::FilterStateMatcher { read: key, matcher; }
}

impl Rbac {
    pub fn parse(context: &mut Context, message: &rbac::Rbac) -> Option<Rbac> {
        message.check(context);
        let action = match context.enumeration("action", message.action)? {
            rbac::rbac::Action::Allow => Action::Allow,
            rbac::rbac::Action::Deny => Action::Deny,
            rbac::rbac::Action::Log => Action::Log,
        };
        let mut policies = Vec::with_capacity(message.policies.len());
        for (name, policy) in &message.policies {
            let parsed = context.field(&format!("policies[{name}]"), |context| {
                policy.check(context);
                if policy.permissions.is_empty() {
                    context.error_at("permissions", "must have at least one member");
                }
                if policy.principals.is_empty() {
                    context.error_at("principals", "must have at least one member");
                }
                Policy {
                    permissions: context.each("permissions", &policy.permissions, permission),
                    principals: context.each("principals", &policy.principals, principal),
                }
            });
            policies.push((Arc::from(name.as_str()), parsed));
        }
        Some(Rbac { action, policies })
    }

    pub fn evaluate(&self, facts: &Facts<'_>) -> Verdict {
        let found = self.policies.iter().find(|(_, policy)| {
            policy.permissions.iter().any(|one| one.matches(facts))
                && policy.principals.iter().any(|one| one.matches(facts))
        });
        let matched = found.is_some();
        let allowed = match self.action {
            Action::Allow => matched,
            Action::Deny => !matched,
            Action::Log => true,
        };
        Verdict {
            allowed,
            policy: found.map(|(name, _)| name.clone()),
        }
    }
}

/// The members of a set, which must have one.
fn members<M, T>(
    context: &mut Context,
    name: &str,
    list: &[M],
    parse: fn(&mut Context, &M) -> Option<T>,
) -> Vec<T> {
    if list.is_empty() {
        context.error_at(name, "must have at least one member");
    }
    context.each(name, list, parse)
}

fn permission(context: &mut Context, message: &rbac::Permission) -> Option<Permission> {
    use permission::Rule;
    message.check(context);
    if context.too_deep() {
        return None;
    }
    let cidr = crate::parse::address::cidr;
    match &message.rule {
        None => {
            context.error_at("rule", "is required");
            None
        }
        Some(Rule::AndRules(set)) => Some(Permission::All(members(
            context,
            "and_rules.rules",
            &set.rules,
            permission,
        ))),
        Some(Rule::OrRules(set)) => Some(Permission::AnyOf(members(
            context,
            "or_rules.rules",
            &set.rules,
            permission,
        ))),
        Some(Rule::NotRule(inner)) => {
            let inner = context.field("not_rule", |context| permission(context, inner))?;
            Some(Permission::Not(Box::new(inner)))
        }
        Some(Rule::Any(any)) => Some(Permission::Any(*any)),
        Some(Rule::Header(one)) => context
            .field("header", |c| HeaderMatcher::parse(c, one))
            .map(Permission::Header),
        Some(Rule::UrlPath(one)) => context
            .field("url_path", |c| path(c, one))
            .map(Permission::Path),
        Some(Rule::DestinationIp(one)) => context
            .field("destination_ip", |c| cidr(c, one))
            .map(Permission::DestinationIp),
        Some(Rule::DestinationPort(port)) => match u16::try_from(*port) {
            Ok(port) => Some(Permission::DestinationPort(port)),
            Err(_) => {
                context.error_at("destination_port", "must be at most 65535");
                None
            }
        },
        Some(Rule::DestinationPortRange(range)) => {
            Some(Permission::DestinationPorts(range.start, range.end))
        }
        Some(Rule::RequestedServerName(one)) => context
            .field("requested_server_name", |c| StringMatcher::parse(c, one))
            .map(Permission::ServerName),
        Some(Rule::UriTemplate(one)) => context
            .field("uri_template", |c| PathTemplate::parse(c, one))
            .map(Permission::Template),
        Some(Rule::Metadata(one)) => context
            .field("metadata", |c| MetadataMatcher::parse(c, one))
            .map(Permission::Metadata),
        Some(Rule::SourcedMetadata(_)) => {
            context.error_at("sourced_metadata", "is not supported");
            None
        }
        Some(Rule::Matcher(one)) => {
            context.error_at("matcher", format!("'{}' is not supported", one.name));
            None
        }
    }
}

fn principal(context: &mut Context, message: &rbac::Principal) -> Option<Principal> {
    use principal::Identifier;
    message.check(context);
    if context.too_deep() {
        return None;
    }
    let cidr = crate::parse::address::cidr;
    match &message.identifier {
        None => {
            context.error_at("identifier", "is required");
            None
        }
        Some(Identifier::AndIds(set)) => Some(Principal::All(members(
            context,
            "and_ids.ids",
            &set.ids,
            principal,
        ))),
        Some(Identifier::OrIds(set)) => Some(Principal::AnyOf(members(
            context,
            "or_ids.ids",
            &set.ids,
            principal,
        ))),
        Some(Identifier::NotId(inner)) => {
            let inner = context.field("not_id", |context| principal(context, inner))?;
            Some(Principal::Not(Box::new(inner)))
        }
        Some(Identifier::Any(any)) => Some(Principal::Any(*any)),
        Some(Identifier::Authenticated(one)) => {
            let matcher = context.optional(
                "authenticated.principal_name",
                one.principal_name.as_ref(),
                StringMatcher::parse,
            );
            Some(Principal::Authenticated(matcher))
        }
        Some(Identifier::SourceIp(one)) => context
            .field("source_ip", |c| cidr(c, one))
            .map(Principal::SourceIp),
        Some(Identifier::DirectRemoteIp(one)) => context
            .field("direct_remote_ip", |c| cidr(c, one))
            .map(Principal::DirectRemoteIp),
        Some(Identifier::RemoteIp(one)) => context
            .field("remote_ip", |c| cidr(c, one))
            .map(Principal::RemoteIp),
        Some(Identifier::Header(one)) => context
            .field("header", |c| HeaderMatcher::parse(c, one))
            .map(Principal::Header),
        Some(Identifier::UrlPath(one)) => context
            .field("url_path", |c| path(c, one))
            .map(Principal::Path),
        Some(Identifier::Metadata(one)) => context
            .field("metadata", |c| MetadataMatcher::parse(c, one))
            .map(Principal::Metadata),
        Some(Identifier::FilterState(one)) => {
            context.field("filter_state", |c| filter_state(c, one))
        }
        Some(Identifier::SourcedMetadata(_)) => {
            context.error_at("sourced_metadata", "is not supported");
            None
        }
        Some(Identifier::Custom(one)) => {
            context.error_at("custom", format!("'{}' is not supported", one.name));
            None
        }
    }
}

fn path(context: &mut Context, message: &wire_matcher::PathMatcher) -> Option<StringMatcher> {
    message.check(context);
    let path = message
        .rule
        .as_ref()
        .map(|wire_matcher::path_matcher::Rule::Path(path)| path);
    context.required("path", path, StringMatcher::parse)
}

fn filter_state(
    context: &mut Context,
    message: &wire_matcher::FilterStateMatcher,
) -> Option<Principal> {
    use wire_matcher::filter_state_matcher::Matcher;
    message.check(context);
    context.non_empty("key", &message.key);
    match &message.matcher {
        Some(Matcher::StringMatch(one)) => {
            let matcher = context.field("string_match", |c| StringMatcher::parse(c, one))?;
            Some(Principal::FilterState {
                key: message.key.clone(),
                matcher,
            })
        }
        Some(Matcher::AddressMatch(_)) => {
            context.error_at("address_match", "is not supported");
            None
        }
        None => {
            context.error_at("matcher", "is required");
            None
        }
    }
}

fn within(net: &IpNet, ip: IpAddr) -> bool {
    net.contains(&ip.to_canonical())
}

impl Permission {
    fn matches(&self, facts: &Facts<'_>) -> bool {
        let local = facts.stream.downstream.local;
        match self {
            Permission::Any(any) => *any,
            Permission::All(all) => all.iter().all(|one| one.matches(facts)),
            Permission::AnyOf(any) => any.iter().any(|one| one.matches(facts)),
            Permission::Not(inner) => !inner.matches(facts),
            Permission::Header(one) => header(one, facts),
            Permission::Path(one) => path_matches(one, facts),
            Permission::Template(one) => facts
                .request
                .is_some_and(|head| one.matches(head.path_only())),
            Permission::DestinationIp(net) => within(net, local.ip()),
            Permission::DestinationPort(port) => local.port() == *port,
            Permission::DestinationPorts(start, end) => {
                (*start..*end).contains(&i32::from(local.port()))
            }
            Permission::ServerName(one) => {
                let name = facts.stream.downstream.requested_server_name.as_deref();
                one.matches(name.unwrap_or("").as_bytes())
            }
            Permission::Metadata(one) => one.matches(&facts.stream.dynamic_metadata),
        }
    }
}

impl Principal {
    fn matches(&self, facts: &Facts<'_>) -> bool {
        let downstream = &facts.stream.downstream;
        match self {
            Principal::Any(any) => *any,
            Principal::All(all) => all.iter().all(|one| one.matches(facts)),
            Principal::AnyOf(any) => any.iter().any(|one| one.matches(facts)),
            Principal::Not(inner) => !inner.matches(facts),
            Principal::Authenticated(matcher) => authenticated(matcher.as_ref(), facts.stream),
            Principal::SourceIp(net) => within(net, downstream.remote.ip()),
            Principal::DirectRemoteIp(net) => within(net, downstream.direct_remote.ip()),
            Principal::RemoteIp(net) => within(net, facts.stream.client.ip()),
            Principal::Header(one) => header(one, facts),
            Principal::Path(one) => path_matches(one, facts),
            Principal::Metadata(one) => one.matches(&facts.stream.dynamic_metadata),
            Principal::FilterState { key, matcher } => filter_state_matches(key, matcher, facts),
        }
    }
}

fn header(matcher: &HeaderMatcher, facts: &Facts<'_>) -> bool {
    // On a plain connection there are no headers; absence may be what is asked for.
    matcher.matches(|name| {
        facts
            .request
            .map(|head| head.values(name))
            .unwrap_or_default()
    })
}

fn path_matches(matcher: &StringMatcher, facts: &Facts<'_>) -> bool {
    let Some(head) = facts.request else {
        return false;
    };
    let path = head.path_only();
    let end = memchr::memchr(b'#', path).unwrap_or(path.len());
    matcher.matches(&path[..end])
}

/// URI names, else DNS names, else the subject: Envoy's order. A peer without a verified
/// certificate is nobody.
fn authenticated(matcher: Option<&StringMatcher>, stream: &StreamInfo) -> bool {
    let Some(tls) = stream.downstream.tls.as_deref() else {
        return false;
    };
    let Some(matcher) = matcher else {
        return tls.verified;
    };
    if !tls.verified {
        return false;
    }
    if !tls.uri_sans.is_empty()
        && tls
            .uri_sans
            .iter()
            .any(|name| matcher.matches(name.as_bytes()))
    {
        return true;
    }
    if !tls.dns_sans.is_empty()
        && tls
            .dns_sans
            .iter()
            .any(|name| matcher.matches(name.as_bytes()))
    {
        return true;
    }
    matcher.matches(tls.subject.as_bytes())
}

/// Istio's principals are filter state in newer configurations; ours are facts of the connection.
fn filter_state_matches(key: &str, matcher: &StringMatcher, facts: &Facts<'_>) -> bool {
    if key == "io.istio.peer_principal" {
        let names = facts.stream.peer_uri_sans();
        return names
            .first()
            .is_some_and(|name| matcher.matches(name.as_bytes()));
    }
    match facts.stream.filter_state.get(key) {
        Some(FilterState::Text(value)) => matcher.matches(value.as_bytes()),
        _ => false,
    }
}

pub(crate) fn all_compat_rows() -> Vec<crate::parse::compat::MessageSupport> {
    [compat_rows(), metadata::compat_rows()]
        .into_iter()
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests;
