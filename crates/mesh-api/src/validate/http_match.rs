//! One match of an HTTP route.

use super::virtual_service::check_gateway_names;
use super::{Check, values};
use crate::kinds::string_match::StringMatch;
use crate::kinds::virtual_service::HttpMatchRequest;

/// `@request.auth.claims.name` and `@request.auth.claims[name]`.
pub fn is_claim(header: &str) -> bool {
    let rest = header.to_ascii_lowercase();
    let Some(rest) = rest.strip_prefix("@request.auth.claims") else {
        return false;
    };
    match rest.strip_prefix('.') {
        Some(name) => !name.is_empty(),
        None => rest.starts_with('[') && rest.ends_with(']') && rest.len() > 2,
    }
}

pub fn check(c: &mut Check<'_>, found: &HttpMatchRequest) {
    for (name, matcher) in &found.headers {
        if !is_claim(name) {
            c.verify("headers", values::header_name(name));
        }
        check_header(c, "headers", name, matcher);
    }
    for (name, matcher) in &found.without_headers {
        if !is_claim(name) {
            c.verify("withoutHeaders", values::header_name(name));
        }
        check_header(c, "withoutHeaders", name, matcher);
    }
    for (name, matcher) in &found.query_params {
        if name.is_empty() {
            c.error("queryParams", "the name of a query parameter is empty");
        }
        check_header(c, "queryParams", name, matcher);
    }
    if let Some(uri) = &found.uri {
        c.verify("uri", values::string_regex(uri));
    }
    for (field, matcher) in [
        ("scheme", &found.scheme),
        ("method", &found.method),
        ("authority", &found.authority),
    ] {
        if let Some(matcher) = matcher {
            c.verify(field, values::string_match(matcher));
        }
    }
    if found.port != 0 {
        c.verify("port", values::port(found.port));
    }
    c.verify("sourceLabels", crate::labels::check(&found.source_labels));
    check_gateway_names(c, &found.gateways);
    if !found.source_namespace.is_empty() && !values::is_namespace(&found.source_namespace) {
        c.error("sourceNamespace", "is not a namespace");
    }
    check_stat_prefix(c, &found.stat_prefix);
}

/// `*` as a regular expression stands for presence.
fn check_header(c: &mut Check<'_>, field: &str, name: &str, matcher: &StringMatch) {
    if *matcher == StringMatch::Regex("*".to_owned()) {
        return;
    }
    let outcome = values::string_match(matcher);
    c.verify(
        field,
        outcome.map_err(|why| format!("{}: {why}", values::cut(name))),
    );
}

fn check_stat_prefix(c: &mut Check<'_>, prefix: &str) {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if !prefix.bytes().all(good) {
        c.not_allowed(
            "statPrefix",
            "has a bad character",
            "letters, digits, `_`, `-`, `.`",
        );
    }
}
