//! Delegation: a root route hands a part of its requests to another virtual service, whose
//! routes are merged in when they ask for a part of what the root gave (istio.md 1.3).

use std::collections::BTreeMap;

use mesh_api::kinds::string_match::StringMatch;
use mesh_api::kinds::virtual_service::{HttpMatchRequest, HttpRoute, VirtualService};
use mesh_api::{Kind, ObjectKey};

use super::{Problem, Visibility};
use crate::state::Revision;

/// A virtual service without hosts: it only lives as a delegate.
#[derive(Debug)]
pub(super) struct Candidate {
    pub spec: VirtualService,
    pub visibility: Visibility,
    pub revision: Revision,
}

#[derive(Debug, Default)]
pub(super) struct Merged {
    pub problems: Vec<Problem>,
    pub revisions: Vec<Revision>,
    pub used: Vec<ObjectKey>,
}

/// Replaces every delegating route of `spec` by the merged routes of its delegate.
pub(super) fn merge(
    spec: &mut VirtualService,
    namespace: &str,
    delegates: &BTreeMap<&ObjectKey, Candidate>,
) -> Merged {
    let mut merged = Merged::default();
    let mut http = Vec::with_capacity(spec.http.len());
    for route in std::mem::take(&mut spec.http) {
        let Some(delegate) = &route.delegate else {
            http.push(route);
            continue;
        };
        let delegate_namespace = match delegate.namespace.as_str() {
            "" => namespace,
            other => other,
        };
        let key = ObjectKey {
            kind: Kind::VirtualService,
            namespace: delegate_namespace.to_owned(),
            name: delegate.name.clone(),
        };
        merged.used.push(key.clone());
        match delegates.get(&key) {
            Some(candidate)
                if key.namespace == namespace || candidate.visibility.allows(namespace) =>
            {
                merged.revisions.push(candidate.revision);
                http.extend(merge_route(&route, &candidate.spec.http));
            }
            _ => {
                let message = format!("delegate {key} does not exist or is not exported here");
                merged.problems.push(Problem::missing(message));
            }
        }
    }
    spec.http = http;
    merged
}

fn merge_route(root: &HttpRoute, delegates: &[HttpRoute]) -> Vec<HttpRoute> {
    let mut routes = Vec::new();
    for delegate in delegates {
        // One level only: a delegate of a delegate is not followed.
        if delegate.delegate.is_some() {
            continue;
        }
        let Some(matches) = merge_matches(&root.r#match, &delegate.r#match) else {
            continue;
        };
        let mut route = delegate.clone();
        route.name = match (root.name.as_str(), delegate.name.as_str()) {
            ("", name) | (name, "") => name.to_owned(),
            (root, name) => format!("{root}-{name}"),
        };
        route.r#match = matches;
        route.rewrite = route.rewrite.or_else(|| root.rewrite.clone());
        route.direct_response = route
            .direct_response
            .or_else(|| root.direct_response.clone());
        route.timeout = route.timeout.or(root.timeout);
        route.retries = route.retries.or_else(|| root.retries.clone());
        route.fault = route.fault.or_else(|| root.fault.clone());
        route.mirror = route.mirror.or_else(|| root.mirror.clone());
        route.mirror_percent = route.mirror_percent.or(root.mirror_percent);
        route.mirror_percentage = route
            .mirror_percentage
            .or_else(|| root.mirror_percentage.clone());
        if route.mirrors.is_empty() {
            route.mirrors.clone_from(&root.mirrors);
        }
        route.cors_policy = route.cors_policy.or_else(|| root.cors_policy.clone());
        route.headers = route.headers.or_else(|| root.headers.clone());
        routes.push(route);
    }
    routes
}

/// Every delegate match joined with the root matches it fits; `None` when none fits.
fn merge_matches(
    root: &[HttpMatchRequest],
    delegate: &[HttpMatchRequest],
) -> Option<Vec<HttpMatchRequest>> {
    if root.is_empty() {
        return Some(delegate.to_vec());
    }
    if delegate.is_empty() {
        return Some(root.to_vec());
    }
    let mut merged = Vec::new();
    for root in root {
        for delegate in delegate
            .iter()
            .filter(|delegate| !conflicts(root, delegate))
        {
            merged.push(join(root, delegate));
        }
    }
    (!merged.is_empty()).then_some(merged)
}

fn join(root: &HttpMatchRequest, delegate: &HttpMatchRequest) -> HttpMatchRequest {
    let mut joined = delegate.clone();
    joined.name = match (root.name.as_str(), delegate.name.as_str()) {
        ("", name) | (name, "") => name.to_owned(),
        (root, name) => format!("{root}-{name}"),
    };
    joined.uri = joined.uri.or_else(|| root.uri.clone());
    joined.scheme = joined.scheme.or_else(|| root.scheme.clone());
    joined.method = joined.method.or_else(|| root.method.clone());
    joined.authority = joined.authority.or_else(|| root.authority.clone());
    let missing = |own: &mut BTreeMap<String, StringMatch>,
                   root: &BTreeMap<String, StringMatch>| {
        for (key, value) in root {
            own.entry(key.clone()).or_insert_with(|| value.clone());
        }
    };
    missing(&mut joined.headers, &root.headers);
    missing(&mut joined.without_headers, &root.without_headers);
    missing(&mut joined.query_params, &root.query_params);
    if joined.port == 0 {
        joined.port = root.port;
    }
    for (key, value) in &root.source_labels {
        joined
            .source_labels
            .entry(key.clone())
            .or_insert_with(|| value.clone());
    }
    // A delegate has no gateways of its own.
    joined.gateways.clone_from(&root.gateways);
    if joined.source_namespace.is_empty() {
        joined.source_namespace.clone_from(&root.source_namespace);
    }
    if joined.stat_prefix.is_empty() {
        joined.stat_prefix.clone_from(&root.stat_prefix);
    }
    joined.ignore_uri_case |= root.ignore_uri_case;
    joined
}

/// Whether no request of the root can be one of the delegate's.
pub fn conflicts(root: &HttpMatchRequest, delegate: &HttpMatchRequest) -> bool {
    let one = |root: &Option<StringMatch>, delegate: &Option<StringMatch>| match (root, delegate) {
        (Some(root), Some(delegate)) => not_within(root, delegate),
        _ => false,
    };
    let many = |root: &BTreeMap<String, StringMatch>, delegate: &BTreeMap<String, StringMatch>| {
        root.iter().any(|(key, root)| {
            delegate
                .get(key)
                .is_some_and(|delegate| not_within(root, delegate))
        })
    };
    one(&root.uri, &delegate.uri)
        || one(&root.scheme, &delegate.scheme)
        || one(&root.method, &delegate.method)
        || one(&root.authority, &delegate.authority)
        || many(&root.headers, &delegate.headers)
        || many(&root.without_headers, &delegate.without_headers)
        || many(&root.query_params, &delegate.query_params)
        || root.ignore_uri_case != delegate.ignore_uri_case
            && root.uri.is_some()
            && delegate.uri.is_some()
        || root.port != 0 && delegate.port != 0 && root.port != delegate.port
        || !root.source_namespace.is_empty()
            && !delegate.source_namespace.is_empty()
            && root.source_namespace != delegate.source_namespace
        || delegate
            .gateways
            .iter()
            .any(|name| !root.gateways.contains(name))
        || root.source_labels.iter().any(|(key, value)| {
            delegate
                .source_labels
                .get(key)
                .is_some_and(|other| other != value)
        })
}

/// Whether the delegate's match is not a part of the root's.
fn not_within(root: &StringMatch, delegate: &StringMatch) -> bool {
    match (root, delegate) {
        (StringMatch::Present, _) => false,
        (StringMatch::Regex(_), _) | (_, StringMatch::Regex(_)) => true,
        (StringMatch::Prefix(prefix), StringMatch::Prefix(value) | StringMatch::Exact(value)) => {
            !value.starts_with(prefix.as_str())
        }
        (StringMatch::Exact(value), StringMatch::Exact(other)) => value != other,
        (StringMatch::Exact(_), StringMatch::Prefix(_)) => true,
        (_, StringMatch::Present) => true,
    }
}
