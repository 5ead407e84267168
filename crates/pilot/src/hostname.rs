//! Host names as rules write them: short names, wildcards, and which host is more specific.

use std::cmp::Ordering;

/// Completes a name without dots to the service of that name in `namespace`.
pub fn resolve(name: &str, namespace: &str, domain: &str) -> String {
    if name.contains('.') || name == "*" || name.is_empty() {
        return name.to_owned();
    }
    service(name, namespace, domain)
}

/// The host name of a platform's service.
pub fn service(name: &str, namespace: &str, domain: &str) -> String {
    if domain.is_empty() {
        return format!("{name}.{namespace}");
    }
    format!("{name}.{namespace}.svc.{domain}")
}

/// Whether every name that `inner` stands for is also covered by `outer`.
pub fn covers(outer: &str, inner: &str) -> bool {
    match outer.strip_prefix('*') {
        Some(suffix) => {
            inner.strip_prefix('*').unwrap_or(inner).ends_with(suffix)
                && (inner.len() > suffix.len() || suffix.is_empty())
        }
        None => outer.eq_ignore_ascii_case(inner),
    }
}

/// Whether some name is covered by both.
pub fn overlap(one: &str, other: &str) -> bool {
    covers(one, other) || covers(other, one)
}

/// Most specific first: names before wildcards, longer wildcards before shorter ones.
pub fn by_specificity(one: &str, other: &str) -> Ordering {
    match (one.starts_with('*'), other.starts_with('*')) {
        (false, true) => Ordering::Less,
        (true, false) => Ordering::Greater,
        (true, true) => other.len().cmp(&one.len()).then_with(|| one.cmp(other)),
        (false, false) => one.cmp(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_resolve() {
        for (name, domain, want) in [
            ("reviews", "cluster.local", "reviews.ns.svc.cluster.local"),
            ("reviews", "", "reviews.ns"),
            ("reviews.other", "cluster.local", "reviews.other"),
            ("*", "cluster.local", "*"),
            ("*.example.com", "cluster.local", "*.example.com"),
        ] {
            assert_eq!(resolve(name, "ns", domain), want);
        }
    }

    #[test]
    fn wildcards_cover() {
        for (outer, inner, want) in [
            ("*", "a.b", true),
            ("*", "*", true),
            ("*.b", "a.b", true),
            ("*.b", "*.a.b", true),
            ("*.b", "*.b", true),
            ("*.a.b", "*.b", false),
            ("*.b", "b", false),
            ("a.b", "a.b", true),
            ("a.b", "*.b", false),
        ] {
            assert_eq!(covers(outer, inner), want, "{outer} covers {inner}");
        }
    }
}
