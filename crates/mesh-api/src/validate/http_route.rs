//! One HTTP route of a VirtualService.

use super::virtual_service::{check_destination, check_weights};
use super::{Check, http_fault, http_match, values};
use crate::kinds::destination::Percent;
use crate::kinds::string_match::StringMatch;
use crate::kinds::virtual_service::{
    BodySpecifier, CorsPolicy, HeaderOperations, Headers, HttpDirectResponse, HttpRedirect,
    HttpRetry, HttpRewrite, HttpRoute, RedirectPort,
};

pub fn check(c: &mut Check<'_>, route: &HttpRoute, in_delegate: bool) {
    check_conflicts(c, route, in_delegate);
    c.each("match", &route.r#match, http_match::check);
    c.some("headers", route.headers.as_ref(), check_headers);
    c.some("corsPolicy", route.cors_policy.as_ref(), check_cors);
    c.some("fault", route.fault.as_ref(), http_fault::check);
    check_mirrors(c, route);
    c.some("redirect", route.redirect.as_ref(), |c, redirect| {
        check_redirect(c, redirect, route);
    });
    c.some(
        "directResponse",
        route.direct_response.as_ref(),
        check_direct_response,
    );
    c.some("retries", route.retries.as_ref(), check_retry);
    c.some("rewrite", route.rewrite.as_ref(), check_rewrite);
    check_authority(c, route);
    check_destinations(c, route);
    if let Some(timeout) = route.timeout {
        c.verify("timeout", values::duration(timeout));
    }
}

/// Whether a match of the route looks at the claims of a token.
pub fn matches_claims(route: &HttpRoute) -> bool {
    route.r#match.iter().any(|found| {
        found
            .headers
            .keys()
            .chain(found.without_headers.keys())
            .any(|k| http_match::is_claim(k))
    })
}

fn check_conflicts(c: &mut Check<'_>, route: &HttpRoute, in_delegate: bool) {
    let has_route = !route.route.is_empty();
    let (redirect, direct) = (route.redirect.is_some(), route.direct_response.is_some());
    if route.delegate.is_some() {
        if in_delegate {
            return c.error("delegate", "a delegate cannot delegate again");
        }
        for (field, used) in [
            ("route", has_route),
            ("redirect", redirect),
            ("directResponse", direct),
        ] {
            if used {
                c.error(field, "cannot stand beside delegate");
            }
        }
    } else {
        match [has_route, redirect, direct]
            .iter()
            .filter(|used| **used)
            .count()
        {
            0 => c.error("", "one of route, redirect and directResponse must be set"),
            1 => {}
            _ => c.error(
                "",
                "only one of route, redirect and directResponse may be set",
            ),
        }
    }
    let answer = match (redirect, direct) {
        (true, _) => "redirect",
        (_, true) => "directResponse",
        _ => "",
    };
    if !answer.is_empty() {
        for (field, used) in [
            ("fault", route.fault.is_some()),
            ("rewrite", route.rewrite.is_some()),
        ] {
            if used {
                c.error(field, format!("cannot stand beside {answer}"));
            }
        }
    }
    if route.mirror.is_some() && !route.mirrors.is_empty() {
        c.error("mirrors", "cannot stand beside mirror");
    }
}

fn check_headers(c: &mut Check<'_>, headers: &Headers) {
    c.some("request", headers.request.as_ref(), |c, ops| {
        check_operations(c, ops, true)
    });
    c.some("response", headers.response.as_ref(), |c, ops| {
        check_operations(c, ops, false)
    });
}

fn check_operations(c: &mut Check<'_>, operations: &HeaderOperations, authority: bool) {
    for (field, map) in [("set", &operations.set), ("add", &operations.add)] {
        for (name, value) in map {
            c.verify(field, values::changeable_header(name, authority));
            c.verify(field, values::header_value(value));
        }
    }
    c.each("remove", &operations.remove, |c, name| {
        c.verify("", values::changeable_header(name, false));
    });
}

const METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*",
];

fn check_cors(c: &mut Check<'_>, policy: &CorsPolicy) {
    c.each("allowOrigins", &policy.allow_origins, |c, origin| {
        let is_empty = match origin {
            StringMatch::Exact(text) | StringMatch::Prefix(text) | StringMatch::Regex(text) => {
                text.is_empty()
            }
            StringMatch::Present => true,
        };
        match is_empty {
            true => c.not_allowed("", "an origin must not be empty", "exact, prefix or regex"),
            false => c.verify("", values::string_regex(origin)),
        }
    });
    c.each("allowMethods", &policy.allow_methods, |c, method| {
        if !METHODS.contains(&method.as_str()) {
            let message = format!("unknown method {:?}", values::cut(method));
            c.not_allowed("", message, &METHODS.join(", "));
        }
    });
    for (field, names) in [
        ("allowHeaders", &policy.allow_headers),
        ("exposeHeaders", &policy.expose_headers),
    ] {
        c.each(field, names, |c, name| {
            c.verify("", values::header_name(name))
        });
    }
    if let Some(age) = policy.max_age {
        c.verify("maxAge", values::duration(age));
        if age.subsec_nanos() != 0 {
            c.error("maxAge", "is precise to the second only");
        }
    }
    if !policy.allow_origin.is_empty() {
        c.warn("allowOrigin", "is deprecated, use allowOrigins");
    }
}

fn check_mirrors(c: &mut Check<'_>, route: &HttpRoute) {
    let out_of_range = |percent: Option<&Percent>| {
        percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent.value))
    };
    if let Some(percent) = route.mirror_percent {
        c.warn("mirrorPercent", "is deprecated, use mirrorPercentage");
        if percent > 100 {
            c.not_allowed("mirrorPercent", "out of range", "0 to 100");
        }
    }
    if out_of_range(route.mirror_percentage.as_ref()) {
        c.not_allowed("mirrorPercentage", "out of range", "0 to 100");
    }
    c.some("mirror", route.mirror.as_ref(), check_destination);
    c.each("mirrors", &route.mirrors, |c, mirror| {
        match &mirror.destination {
            Some(destination) => c.at("destination", |c| check_destination(c, destination)),
            None => c.error("destination", "must be provided"),
        }
        if out_of_range(mirror.percentage.as_ref()) {
            c.not_allowed("percentage", "out of range", "0 to 100");
        }
    });
}

fn check_redirect(c: &mut Check<'_>, redirect: &HttpRedirect, route: &HttpRoute) {
    let texts = [
        &redirect.uri,
        &redirect.authority,
        &redirect.scheme,
        &redirect.prefix_rewrite,
    ];
    if texts.iter().all(|text| text.is_empty()) && redirect.redirect_port.is_none() {
        c.error(
            "",
            "uri, authority, scheme, prefixRewrite or port must be set",
        );
    }
    if !redirect.uri.is_empty() && !redirect.prefix_rewrite.is_empty() {
        c.error("prefixRewrite", "cannot stand beside uri");
    }
    if redirect.redirect_code != 0 && !(300..=399).contains(&redirect.redirect_code) {
        c.not_allowed(
            "redirectCode",
            "is not a redirection",
            "301, 302, 303, 307, 308",
        );
    }
    if !matches!(redirect.scheme.as_str(), "" | "http" | "https") {
        c.not_allowed("scheme", "is not known", "http, https");
    }
    if let Some(RedirectPort::Port(port)) = redirect.redirect_port {
        c.verify("port", values::port(port));
    }
    let other = |uri: &StringMatch| !matches!(uri, StringMatch::Prefix(_));
    if !redirect.prefix_rewrite.is_empty()
        && route
            .r#match
            .iter()
            .filter_map(|found| found.uri.as_ref())
            .any(other)
    {
        c.error("prefixRewrite", "works with prefix matches only");
    }
}

fn check_direct_response(c: &mut Check<'_>, response: &HttpDirectResponse) {
    if !(100..=599).contains(&response.status) {
        c.not_allowed("status", "out of range", "100 to 599");
    }
    let size = match response.body.as_ref().map(|body| &body.specifier) {
        Some(Some(BodySpecifier::String(text))) => text.len(),
        Some(Some(BodySpecifier::Bytes(text))) => text.len() / 4 * 3,
        Some(None) | None => 0,
    };
    if size > 1 << 20 {
        c.error("body", "is longer than 1 MiB");
    } else if size > 100 << 10 {
        c.warn(
            "body",
            "is long: it is kept in the configuration of every proxy",
        );
    }
}

/// Envoy's conditions for retries, HTTP then gRPC.
pub const RETRY_CONDITIONS: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

pub fn check_retry(c: &mut Check<'_>, retry: &HttpRetry) {
    if retry.attempts < 0 {
        c.error("attempts", "must not be negative");
    }
    let more = retry.per_try_timeout.is_some()
        || !retry.retry_on.is_empty()
        || retry.retry_remote_localities.is_some();
    if retry.attempts == 0 && more {
        c.error(
            "attempts",
            "must not be 0 when other retry settings are given",
        );
    }
    if let Some(timeout) = retry.per_try_timeout {
        c.verify("perTryTimeout", values::duration(timeout));
    }
    if let Some(backoff) = retry.backoff {
        c.verify("backoff", values::duration(backoff));
    }
    for word in retry
        .retry_on
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
    {
        let status = word.parse::<u32>().ok();
        let known = RETRY_CONDITIONS.contains(&word)
            || status.is_some_and(|status| (100..=599).contains(&status));
        if !known {
            let message = format!("unknown condition {:?}", values::cut(word));
            let allowed = format!("{}, or a status code", RETRY_CONDITIONS.join(", "));
            c.not_allowed("retryOn", message, &allowed);
        }
    }
}

fn check_rewrite(c: &mut Check<'_>, rewrite: &HttpRewrite) {
    let regex = rewrite.uri_regex_rewrite.as_ref();
    if rewrite.uri.is_empty() && rewrite.authority.is_empty() && regex.is_none() {
        c.error("", "uri, authority or uriRegexRewrite must be set");
    }
    if !rewrite.uri.is_empty() && regex.is_some() {
        c.error("uriRegexRewrite", "cannot stand beside uri");
    }
    c.some("uriRegexRewrite", regex, |c, regex| {
        c.verify("match", values::regex(&regex.r#match));
    });
}

/// The authority may be rewritten in one place only.
fn check_authority(c: &mut Check<'_>, route: &HttpRoute) {
    let is_authority = |name: &String| name == ":authority" || name.eq_ignore_ascii_case("host");
    let request = route
        .headers
        .as_ref()
        .and_then(|headers| headers.request.as_ref());
    let Some(request) = request else { return };
    let in_headers = request
        .set
        .keys()
        .chain(request.add.keys())
        .any(is_authority);
    let in_rewrite = route
        .rewrite
        .as_ref()
        .is_some_and(|r| !r.authority.is_empty());
    if in_headers && in_rewrite {
        c.error(
            "rewrite.authority",
            "the authority is set by the headers too",
        );
    }
}

fn check_destinations(c: &mut Check<'_>, route: &HttpRoute) {
    c.each("route", &route.route, |c, target| {
        match &target.destination {
            Some(destination) => c.at("destination", |c| check_destination(c, destination)),
            None => c.error("destination", "must be provided"),
        }
        c.some("headers", target.headers.as_ref(), check_headers);
    });
    let weights: Vec<i32> = route.route.iter().map(|target| target.weight).collect();
    check_weights(c, &weights);
}
