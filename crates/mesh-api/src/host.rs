//! Host names as the kinds write them: short names, left-most wildcards, which of two is closer.

use std::cmp::Ordering;

/// `*` or `*.suffix`.
pub fn is_wildcard(host: &str) -> bool {
    host.starts_with('*')
}

/// Whether some name is meant by both.
pub fn matches(a: &str, b: &str) -> bool {
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (Some(a), Some(b)) => a.ends_with(b) || b.ends_with(a),
        (Some(suffix), None) => b.ends_with(suffix),
        (None, Some(suffix)) => a.ends_with(suffix),
        (None, None) => a == b,
    }
}

/// Whether every name meant by `a` is meant by `b` too.
pub fn is_subset(a: &str, b: &str) -> bool {
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (Some(a), Some(b)) => a.ends_with(b),
        (Some(_), None) => false,
        (None, Some(suffix)) => a.ends_with(suffix),
        (None, None) => a == b,
    }
}

/// Orders hosts so that the more specific one comes first: names before wildcards, longer ones
/// before shorter ones, then by alphabet.
pub fn by_specificity(a: &str, b: &str) -> Ordering {
    is_wildcard(a)
        .cmp(&is_wildcard(b))
        .then_with(|| b.len().cmp(&a.len()))
        .then_with(|| a.cmp(b))
}

/// Whether `a` is at least as specific as `b`.
pub fn is_more_specific(a: &str, b: &str) -> bool {
    by_specificity(a, b) != Ordering::Greater
}

/// The most specific of `candidates` that means all of `host`.
pub fn closest<'c>(host: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    candidates
        .filter(|c| is_subset(host, c))
        .min_by(|a, b| by_specificity(a, b))
}

/// `reviews` in namespace `default` -> `reviews.default.svc.cluster.local`. Names with a dot,
/// wildcards and addresses stay. An empty namespace or domain adds nothing.
pub fn resolve_short_name(host: &str, namespace: &str, domain: &str) -> String {
    let is_full = host.is_empty()
        || host == "*"
        || host.contains('.')
        || host.parse::<std::net::IpAddr>().is_ok();
    if is_full {
        return host.to_owned();
    }
    let mut full = host.to_owned();
    if !namespace.is_empty() {
        full.push('.');
        full.push_str(namespace);
    }
    if !domain.is_empty() {
        full.push_str(".svc.");
        full.push_str(domain);
    }
    full
}

/// `a-z`, `0-9` and dashes, not at the ends, up to 63 bytes; capitals are let through as Istio
/// does.
pub fn is_dns_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

/// A fully qualified name; one dot may end it.
pub fn check_fqdn(host: &str) -> Result<(), String> {
    check_length(host)?;
    check_labels(host, host)
}

/// A name whose first label may be `*`, `*label` or `*-label`.
pub fn check_wildcard_domain(host: &str) -> Result<(), String> {
    check_length(host)?;
    let (first, rest) = match host.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (host, None),
    };
    let label = first
        .strip_prefix("*-")
        .or_else(|| first.strip_prefix('*'))
        .unwrap_or(first);
    if first != "*" && !is_dns_label(label) {
        return Err(format!(
            "{:?} is not a valid domain name (label {:?})",
            cut(host),
            cut(first)
        ));
    }
    match rest {
        Some(rest) => check_labels(rest, host),
        None => Ok(()),
    }
}

/// The same, or a name that Istio makes for SNI: `outbound_.80_.subset_.host`.
pub fn check_sni_domain(host: &str) -> Result<(), String> {
    if !host.starts_with("outbound_") {
        return check_wildcard_domain(host);
    }
    check_length(host)?;
    let parts: Vec<&str> = host.splitn(4, '.').collect();
    let [_, port, subset, name] = parts.as_slice() else {
        return Err(format!("{:?} is not a valid SNI domain", cut(host)));
    };
    let port = port
        .strip_suffix('_')
        .and_then(|port| port.parse::<u16>().ok());
    if port.is_none() || !subset.ends_with('_') {
        return Err(format!("{:?} is not a valid SNI domain", cut(host)));
    }
    check_labels(name, host)
}

fn check_length(host: &str) -> Result<(), String> {
    match host.len() {
        0 => Err("the empty domain name is not allowed".to_owned()),
        1..=255 => Ok(()),
        _ => Err("the domain name is longer than 255 characters".to_owned()),
    }
}

fn check_labels(name: &str, whole: &str) -> Result<(), String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if let Some(bad) = name.split('.').find(|label| !is_dns_label(label)) {
        return Err(format!(
            "{:?} is not a valid domain name (label {:?})",
            cut(whole),
            cut(bad)
        ));
    }
    match name.rsplit('.').next() {
        Some(top) if top.bytes().all(|b| b.is_ascii_digit()) => Err(format!(
            "{:?} is not a valid domain name (its last label is a number)",
            cut(whole)
        )),
        _ => Ok(()),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closest_prefers_the_name_then_the_longest_wildcard() {
        let candidates = ["*", "*.com", "*.example.com", "www.example.com"];
        for (host, want) in [
            ("www.example.com", Some("www.example.com")),
            ("a.b.example.com", Some("*.example.com")),
            ("*.example.com", Some("*.example.com")),
            ("x.com", Some("*.com")),
            ("*.org", Some("*")),
        ] {
            assert_eq!(closest(host, candidates.iter().copied()), want, "{host}");
        }
    }

    #[test]
    fn short_names_get_namespace_and_domain() {
        for (host, namespace, domain, want) in [
            (
                "reviews",
                "default",
                "cluster.local",
                "reviews.default.svc.cluster.local",
            ),
            ("reviews.prod", "default", "cluster.local", "reviews.prod"),
            ("*", "default", "cluster.local", "*"),
            ("::1", "default", "cluster.local", "::1"),
            ("a", "default", "", "a.default"),
            ("", "default", "cluster.local", ""),
        ] {
            assert_eq!(resolve_short_name(host, namespace, domain), want);
        }
    }
}
