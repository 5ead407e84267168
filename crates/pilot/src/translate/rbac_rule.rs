//! One rule of an authorization policy as an RBAC policy. A condition that cannot be expressed
//! makes an ALLOW rule vanish and leaves a DENY rule wider: both fail closed.

use envoy_api::core::{CidrRange, TypedExtensionConfig};
use envoy_api::matcher::string_matcher::MatchPattern;
use envoy_api::matcher::{PathMatcher, StringMatcher, path_matcher};
use envoy_api::rbac::permission::{self, Rule as Wire};
use envoy_api::rbac::principal::{self, Identifier};
use envoy_api::rbac::{Permission, Policy, Principal};
use envoy_api::route::HeaderMatcher;
use envoy_api::route::header_matcher::HeaderMatchSpecifier;
use mesh_api::kinds::authorization_policy::{Condition, Operation, Rule, Source};

use super::message::{cidr, parse_net};
use super::rbac_value::{self as value, Identity};
use super::route_match::regex;

/// Where the rule stands.
pub struct Context<'a> {
    pub namespace: &'a str,
    pub trust_domain: &'a str,
    pub aliases: &'a [String],
    pub allow: bool,
    /// For a TCP chain: HTTP conditions do not exist there.
    pub tcp: bool,
}

/// A condition that has no meaning here.
pub(super) struct NotExpressible;

type Made<T> = Result<T, NotExpressible>;

/// `None`: the rule can never allow anything here.
pub fn translate(rule: &Rule, context: &Context<'_>) -> Option<Policy> {
    let empty_operation = Operation::default();
    let empty_source = Source::default();
    let mut operations: Vec<&Operation> = rule
        .to
        .iter()
        .map(|to| to.operation.as_ref().unwrap_or(&empty_operation))
        .collect();
    if operations.is_empty() {
        operations.push(&empty_operation);
    }
    let mut sources: Vec<&Source> = rule
        .from
        .iter()
        .map(|from| from.source.as_ref().unwrap_or(&empty_source))
        .collect();
    if sources.is_empty() {
        sources.push(&empty_source);
    }
    let mut policy = Policy::default();
    for operation in operations {
        policy
            .permissions
            .push(permission(operation, &rule.when, context).ok()?);
    }
    for source in sources {
        policy
            .principals
            .push(principal(source, &rule.when, context).ok()?);
    }
    Some(policy)
}

/// Alternatives and their negation, joined into `all`.
fn join<T>(
    all: &mut Vec<T>,
    (values, not_values): (&[String], &[String]),
    context: &Context<'_>,
    make: impl Fn(&str) -> Made<Vec<T>>,
    (or, not): Joiner<T>,
) -> Made<()> {
    for (list, negated) in [(values, false), (not_values, true)] {
        let mut made = Vec::new();
        for text in list {
            match make(text) {
                Ok(more) => made.extend(more),
                Err(error) if context.allow => return Err(error),
                Err(_) => {}
            }
        }
        if !made.is_empty() {
            let any = or(made);
            all.push(if negated { not(any) } else { any });
        }
    }
    Ok(())
}

fn permission_or(rules: Vec<Permission>) -> Permission {
    wire(Wire::OrRules(permission::Set { rules }))
}

fn permission_not(rule: Permission) -> Permission {
    wire(Wire::NotRule(Box::new(rule)))
}

fn principal_or(ids: Vec<Principal>) -> Principal {
    id(Identifier::OrIds(principal::Set { ids }))
}

fn principal_not(inner: Principal) -> Principal {
    id(Identifier::NotId(Box::new(inner)))
}

/// How alternatives are joined, and how one is negated.
type Joiner<T> = (fn(Vec<T>) -> T, fn(T) -> T);

const PERMISSION: Joiner<Permission> = (permission_or, permission_not);
const PRINCIPAL: Joiner<Principal> = (principal_or, principal_not);

fn wire(rule: Wire) -> Permission {
    Permission { rule: Some(rule) }
}

fn id(identifier: Identifier) -> Principal {
    Principal {
        identifier: Some(identifier),
    }
}

fn permission(
    operation: &Operation,
    when: &[Condition],
    context: &Context<'_>,
) -> Made<Permission> {
    let mut all = Vec::new();
    let o = operation;
    let http = |make: Permission| {
        if context.tcp {
            Err(NotExpressible)
        } else {
            Ok(vec![make])
        }
    };
    let host = |text: &str| http(wire(Wire::Header(value::header(":authority", text, true))));
    let method = |text: &str| http(wire(Wire::Header(value::header(":method", text, false))));
    let path = |text: &str| http(path_permission(text));
    let port = |text: &str| port_permission(text);
    join(
        &mut all,
        (&o.hosts, &o.not_hosts),
        context,
        host,
        PERMISSION,
    )?;
    join(
        &mut all,
        (&o.methods, &o.not_methods),
        context,
        method,
        PERMISSION,
    )?;
    join(
        &mut all,
        (&o.paths, &o.not_paths),
        context,
        path,
        PERMISSION,
    )?;
    join(
        &mut all,
        (&o.ports, &o.not_ports),
        context,
        port,
        PERMISSION,
    )?;
    for condition in when
        .iter()
        .filter(|condition| of_destination(&condition.key))
    {
        let lists = (condition.values.as_slice(), condition.not_values.as_slice());
        let make = |text: &str| match condition.key.as_str() {
            "destination.ip" => Ok(vec![wire(Wire::DestinationIp(range(text)?))]),
            "destination.port" => port_permission(text),
            "connection.sni" => Ok(vec![wire(Wire::RequestedServerName(value::string(
                text, false,
            )))]),
            _ => Err(NotExpressible),
        };
        join(&mut all, lists, context, make, PERMISSION)?;
    }
    if all.is_empty() {
        all.push(wire(Wire::Any(true)));
    }
    Ok(wire(Wire::AndRules(permission::Set { rules: all })))
}

fn of_destination(key: &str) -> bool {
    matches!(
        key,
        "destination.ip" | "destination.port" | "connection.sni"
    ) || key.starts_with("experimental.")
}

fn port_permission(text: &str) -> Made<Vec<Permission>> {
    let port: u16 = text.parse().map_err(|_| NotExpressible)?;
    Ok(vec![wire(Wire::DestinationPort(port.into()))])
}

fn range(text: &str) -> Made<CidrRange> {
    parse_net(text).map(|net| cidr(&net)).ok_or(NotExpressible)
}

fn path_permission(text: &str) -> Permission {
    if text.contains("{*}") || text.contains("{**}") {
        let template = text.replace("{**}", "**").replace("{*}", "*");
        return wire(Wire::UriTemplate(TypedExtensionConfig {
            name: "uri-template".to_owned(),
            typed_config: Some(value::uri_template(&template)),
        }));
    }
    let matcher = PathMatcher {
        rule: Some(path_matcher::Rule::Path(value::string(text, false))),
    };
    wire(Wire::UrlPath(matcher))
}

/// Makes principals from the values of one attribute of the source.
struct Principals<'a> {
    identity: Identity<'a>,
    tcp: bool,
}

impl Principals<'_> {
    /// By the attribute's name in `when` conditions.
    fn make(&self, key: &str, text: &str) -> Made<Vec<Principal>> {
        let named = |matcher: StringMatcher| {
            id(Identifier::Authenticated(principal::Authenticated {
                principal_name: Some(matcher),
            }))
        };
        let one = |matcher: StringMatcher| Ok(vec![named(matcher)]);
        match key {
            "source.principal" => Ok(self
                .identity
                .principal(text)
                .into_iter()
                .map(named)
                .collect()),
            "source.serviceAccount" => one(self.identity.service_account(text)),
            "source.namespace" => one(value::namespace(text)),
            "source.trustDomain" => one(value::trust_domain(text)),
            "source.ip" => Ok(vec![id(Identifier::DirectRemoteIp(range(text)?))]),
            "remote.ip" => Ok(vec![id(Identifier::RemoteIp(range(text)?))]),
            key => match request_header(key) {
                Some(name) if !self.tcp => Ok(vec![id(Identifier::Header(value::header(
                    name, text, false,
                )))]),
                // Attributes of tokens among them: nothing checks tokens yet.
                _ => Err(NotExpressible),
            },
        }
    }
}

fn principal(source: &Source, when: &[Condition], context: &Context<'_>) -> Made<Principal> {
    let s = source;
    let principals = Principals {
        identity: Identity {
            trust_domain: context.trust_domain,
            aliases: context.aliases,
            namespace: context.namespace,
        },
        tcp: context.tcp,
    };
    let fields: [(&str, &[String], &[String]); 7] = [
        (
            "source.serviceAccount",
            &s.service_accounts,
            &s.not_service_accounts,
        ),
        ("source.principal", &s.principals, &s.not_principals),
        (
            "request.auth.principal",
            &s.request_principals,
            &s.not_request_principals,
        ),
        ("source.namespace", &s.namespaces, &s.not_namespaces),
        ("source.ip", &s.ip_blocks, &s.not_ip_blocks),
        ("remote.ip", &s.remote_ip_blocks, &s.not_remote_ip_blocks),
        ("source.trustDomain", &s.trust_domains, &s.not_trust_domains),
    ];
    let conditions = when
        .iter()
        .filter(|condition| !of_destination(&condition.key))
        .map(|c| (c.key.as_str(), c.values.as_slice(), c.not_values.as_slice()));
    let mut all = Vec::new();
    for (key, values, not_values) in fields.into_iter().chain(conditions) {
        let make = |text: &str| principals.make(key, text);
        join(&mut all, (values, not_values), context, make, PRINCIPAL)?;
    }
    if all.is_empty() {
        all.push(id(Identifier::Any(true)));
    }
    Ok(id(Identifier::AndIds(principal::Set { ids: all })))
}

/// The name in `request.headers[NAME]`.
fn request_header(key: &str) -> Option<&str> {
    key.strip_prefix("request.headers[")?.strip_suffix(']')
}

/// The header matcher that `value` may need for presence.
pub(super) fn present(name: &str) -> HeaderMatcher {
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::PresentMatch(true)),
        ..Default::default()
    }
}

/// Any value, as a string matcher.
pub(super) fn any_string() -> StringMatcher {
    StringMatcher {
        match_pattern: Some(MatchPattern::SafeRegex(regex(".+"))),
        ..Default::default()
    }
}
