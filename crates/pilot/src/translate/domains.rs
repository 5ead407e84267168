//! The names under which a client reaches a service: complete, short, and its addresses
//! (istio.md 2.4).

use std::net::IpAddr;

use crate::model::Service;

use super::message::{bracketed, is_single};

/// What of a client shapes domains.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientNames<'a> {
    /// `NAMESPACE.svc.cluster.local`, or any other domain.
    pub dns_domain: &'a str,
    pub ipv4: bool,
    pub ipv6: bool,
}

/// All domains of a service, the complete name first.
pub fn of_service(service: &Service, client: &ClientNames<'_>) -> Vec<String> {
    let hostname = &service.key.hostname;
    let mut domains = of_host(hostname, client.dns_domain);
    if service.is_headless() {
        // Pods behind a headless service have names of their own below it.
        let below: Vec<String> = domains.iter().map(|domain| format!("*.{domain}")).collect();
        domains.extend(below);
    }
    for net in service.virtual_addresses() {
        let family = if net.addr().is_ipv4() {
            client.ipv4
        } else {
            client.ipv6
        };
        if is_single(&net) && family && !net.addr().is_unspecified() {
            domains.push(bracketed(&net.addr().to_string()));
        }
    }
    domains
}

/// A host name, its absolute form and its short forms.
pub fn of_host(hostname: &str, dns_domain: &str) -> Vec<String> {
    if hostname.parse::<IpAddr>().is_ok() {
        return vec![bracketed(hostname)];
    }
    let mut domains = vec![hostname.to_owned()];
    if !hostname.starts_with('*') {
        domains.push(format!("{hostname}."));
    }
    domains.extend(short_names(hostname, dns_domain));
    domains
}

/// The forms that the client's resolver would complete to `hostname`.
pub fn short_names(hostname: &str, dns_domain: &str) -> Vec<String> {
    if let Some(at) = dns_domain.find(".svc.") {
        return kubernetes_names(hostname, &dns_domain[..at], &dns_domain[at..]);
    }
    let host: Vec<&str> = hostname.split('.').collect();
    let domain: Vec<&str> = dns_domain.split('.').collect();
    let shared = host
        .iter()
        .rev()
        .zip(domain.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    if shared == 0 || shared == host.len() || dns_domain.is_empty() {
        return Vec::new();
    }
    let (unique, rest) = host.split_at(host.len() - shared);
    let unique = unique.join(".");
    if shared == domain.len() {
        return vec![unique];
    }
    let longer = format!("{unique}.{}", rest[0]);
    vec![unique, longer]
}

fn kubernetes_names(hostname: &str, namespace: &str, suffix: &str) -> Vec<String> {
    let Some(at) = hostname.find(".svc.") else {
        return Vec::new();
    };
    if &hostname[at..] != suffix {
        return Vec::new();
    }
    let short = &hostname[..at];
    let Some((name, host_namespace)) = short.split_once('.') else {
        return Vec::new();
    };
    if host_namespace == namespace {
        return vec![name.to_owned(), format!("{short}.svc"), short.to_owned()];
    }
    vec![short.to_owned(), format!("{short}.svc")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms() {
        for (host, domain, want) in [
            (
                "foo.ns.svc.cluster.local",
                "ns.svc.cluster.local",
                vec!["foo", "foo.ns.svc", "foo.ns"],
            ),
            (
                "foo.ns.svc.cluster.local",
                "other.svc.cluster.local",
                vec!["foo.ns", "foo.ns.svc"],
            ),
            ("www.example.com", "ns.svc.cluster.local", vec![]),
            ("foo.local.campus.net", "local.campus.net", vec!["foo"]),
        ] {
            assert_eq!(short_names(host, domain), want, "{host} from {domain}");
        }
    }
}
