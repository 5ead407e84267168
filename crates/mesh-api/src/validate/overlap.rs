//! Routes that can never be taken, because one before them takes everything they would: warnings.

use super::Check;
use crate::decode::Encode;
use crate::diagnostic::Reason;
use crate::kinds::string_match::StringMatch;
use crate::kinds::virtual_service::{HttpMatchRequest, VirtualService};

pub fn check(c: &mut Check<'_>, spec: &VirtualService) {
    let matches = |list: Vec<serde_json::Value>| list.iter().map(ToString::to_string).collect();
    let http: Vec<Vec<String>> = spec
        .http
        .iter()
        .map(|route| matches(route.r#match.iter().map(Encode::encode).collect()))
        .collect();
    let tls: Vec<Vec<String>> = spec
        .tls
        .iter()
        .map(|route| matches(route.r#match.iter().map(Encode::encode).collect()))
        .collect();
    let tcp: Vec<Vec<String>> = spec
        .tcp
        .iter()
        .map(|route| matches(route.r#match.iter().map(Encode::encode).collect()))
        .collect();
    check_repeated(c, "http", &http);
    check_repeated(c, "tls", &tls);
    check_repeated(c, "tcp", &tcp);
    check_prefixes(c, spec);
}

/// Equal matches, and rules after one without any match.
fn check_repeated(c: &mut Check<'_>, field: &str, rules: &[Vec<String>]) {
    let mut seen: std::collections::HashSet<&str> = std::collections::HashSet::new();
    let mut catch_all: Option<usize> = None;
    for (index, rule) in rules.iter().enumerate() {
        let path = format!("{field}[{index}]");
        if let Some(by) = catch_all {
            let why = format!("is never reached: {field}[{by}] matches everything");
            c.overlap(&path, Reason::Unreachable, &why);
        }
        if rule.is_empty() {
            catch_all = catch_all.or(Some(index));
            continue;
        }
        let repeated: Vec<usize> = rule
            .iter()
            .enumerate()
            .filter(|(_, text)| !seen.insert(text.as_str()))
            .map(|(number, _)| number)
            .collect();
        if repeated.len() == rule.len() {
            let why = "is never reached: rules before it have all of its matches";
            c.overlap(&path, Reason::Unreachable, why);
        } else {
            for number in repeated {
                let path = format!("{path}.match[{number}]");
                c.overlap(
                    &path,
                    Reason::Ineffective,
                    "has no effect: it is a repetition",
                );
            }
        }
    }
}

/// A prefix that lies within an earlier, unconditional prefix.
fn check_prefixes(c: &mut Check<'_>, spec: &VirtualService) {
    let mut wide: Vec<(&str, bool, String)> = Vec::new();
    for (rule, route) in spec.http.iter().enumerate() {
        for (number, found) in route.r#match.iter().enumerate() {
            let Some(StringMatch::Prefix(prefix)) = &found.uri else {
                continue;
            };
            let path = format!("http[{rule}].match[{number}]");
            let within = wide.iter().find(|(earlier, ignore_case, _)| {
                prefix != earlier
                    && *ignore_case == found.ignore_uri_case
                    && prefix.starts_with(earlier)
            });
            if let Some((earlier, _, at)) = within {
                let why = format!("has no effect: {at} takes every path with prefix {earlier}");
                c.overlap(&path, Reason::Ineffective, &why);
            }
            if has_only_uri(found) {
                wide.push((prefix, found.ignore_uri_case, path));
            }
        }
    }
}

fn has_only_uri(found: &HttpMatchRequest) -> bool {
    let bare = HttpMatchRequest {
        uri: found.uri.clone(),
        name: found.name.clone(),
        ignore_uri_case: found.ignore_uri_case,
        stat_prefix: found.stat_prefix.clone(),
        ..HttpMatchRequest::default()
    };
    *found == bare
}
