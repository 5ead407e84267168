//! HTTP match conditions of a virtual service as Envoy route matches (istio.md 1.3, 2.4).

use envoy_api::matcher::{RegexMatcher, StringMatcher, string_matcher::MatchPattern};
use envoy_api::route::header_matcher::HeaderMatchSpecifier;
use envoy_api::route::query_parameter_matcher::QueryParameterMatchSpecifier;
use envoy_api::route::route_match::PathSpecifier;
use envoy_api::route::{HeaderMatcher, QueryParameterMatcher, RouteMatch};
use mesh_api::kinds::string_match::StringMatch;
use mesh_api::kinds::virtual_service::HttpMatchRequest;

/// Header names that match token claims: not performed, so such a match never applies.
pub const CLAIM_PREFIX: &str = "@request.auth.";

/// Everything matches.
pub fn all() -> RouteMatch {
    RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
        ..Default::default()
    }
}

/// One conjunction of conditions.
pub fn translate(written: &HttpMatchRequest) -> RouteMatch {
    let mut wire = all();
    match &written.uri {
        Some(StringMatch::Exact(path)) => {
            wire.path_specifier = Some(PathSpecifier::Path(path.clone()));
        }
        Some(StringMatch::Prefix(prefix)) => {
            wire.path_specifier = Some(PathSpecifier::Prefix(prefix.clone()));
        }
        Some(StringMatch::Regex(pattern)) => {
            wire.path_specifier = Some(PathSpecifier::SafeRegex(regex(pattern)));
        }
        Some(StringMatch::Present) | None => {}
    }
    if written.uri.is_some() {
        wire.case_sensitive = Some(!written.ignore_uri_case);
    }
    for (name, value) in &written.headers {
        wire.headers.push(header(name, value));
    }
    for (name, value) in &written.without_headers {
        let mut matcher = header(name, value);
        matcher.invert_match = true;
        // A request without the header does not carry the unwanted value either.
        matcher.treat_missing_header_as_empty = !is_presence(value);
        wire.headers.push(matcher);
    }
    for (name, value) in [
        (":method", &written.method),
        (":authority", &written.authority),
        (":scheme", &written.scheme),
    ] {
        if let Some(value) = value {
            wire.headers.push(header(name, value));
        }
    }
    for (name, value) in &written.query_params {
        wire.query_parameters.push(query(name, value));
    }
    wire
}

/// Whether every request matches: nothing after it in a list can ever be reached.
pub fn is_catch_all(wire: &RouteMatch) -> bool {
    let any_path = match &wire.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => prefix == "/",
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex == ".*",
        _ => false,
    };
    any_path
        && wire.headers.is_empty()
        && wire.query_parameters.is_empty()
        && wire.dynamic_metadata.is_empty()
}

fn is_presence(value: &StringMatch) -> bool {
    match value {
        StringMatch::Present => true,
        StringMatch::Regex(pattern) => pattern == "*",
        StringMatch::Exact(value) | StringMatch::Prefix(value) => value.is_empty(),
    }
}

pub fn regex(pattern: &str) -> RegexMatcher {
    RegexMatcher {
        regex: pattern.to_owned(),
        ..Default::default()
    }
}

/// `None` for presence.
pub fn string(value: &StringMatch) -> Option<StringMatcher> {
    if is_presence(value) {
        return None;
    }
    let pattern = match value {
        StringMatch::Exact(value) => MatchPattern::Exact(value.clone()),
        StringMatch::Prefix(value) => MatchPattern::Prefix(value.clone()),
        StringMatch::Regex(value) => MatchPattern::SafeRegex(regex(value)),
        StringMatch::Present => return None,
    };
    Some(StringMatcher {
        match_pattern: Some(pattern),
        ..Default::default()
    })
}

fn header(name: &str, value: &StringMatch) -> HeaderMatcher {
    let specifier = match string(value) {
        Some(matcher) => HeaderMatchSpecifier::StringMatch(matcher),
        None => HeaderMatchSpecifier::PresentMatch(true),
    };
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(specifier),
        ..Default::default()
    }
}

fn query(name: &str, value: &StringMatch) -> QueryParameterMatcher {
    let specifier = match string(value) {
        Some(matcher) => QueryParameterMatchSpecifier::StringMatch(matcher),
        None => QueryParameterMatchSpecifier::PresentMatch(true),
    };
    QueryParameterMatcher {
        name: name.to_owned(),
        query_parameter_match_specifier: Some(specifier),
    }
}
