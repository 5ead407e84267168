//! The names that are answered here, and Istio's rules for short names, search domains, wildcards.

use std::collections::BTreeMap;
use std::net::IpAddr;

use envoy_api::istio::NameTable;

/// Longest name that DNS can carry, and so the most labels that a wildcard search can take.
const LONGEST_NAME: usize = 255;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// Lower case, without the dot at the end; `*.` begins a wildcard.
    hosts: BTreeMap<String, Vec<IpAddr>>,
    search: Vec<String>,
    /// Domains below which an unknown name does not exist (instead of being asked elsewhere).
    authoritative: Vec<String>,
}

/// Who asks: decides about short names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    pub namespace: String,
    /// `NAMESPACE.svc.cluster.local`.
    pub dns_domain: String,
    pub search: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Not a name of this zone.
    Unknown,
    /// A name below an authoritative domain, which has it not.
    Absent,
    Found {
        /// The name without the search domain, if one was cut off.
        alias_of: Option<&'a str>,
        addresses: &'a [IpAddr],
    },
}

impl Zone {
    pub fn new(search: Vec<String>, authoritative: Vec<String>) -> Zone {
        Zone {
            hosts: BTreeMap::new(),
            search,
            authoritative,
        }
    }

    /// The control plane's table as one client sees it.
    pub fn from_name_table(table: &NameTable, client: &Client) -> Zone {
        let mut zone = Zone::new(client.search.clone(), Vec::new());
        let domain = client.dns_domain.to_lowercase();
        let suffix = domain
            .split_once('.')
            .map(|(_, suffix)| suffix)
            .unwrap_or_default();
        let svc = suffix.split('.').next().unwrap_or_default();
        for (host, entry) in &table.table {
            let addresses: Vec<IpAddr> = entry
                .ips
                .iter()
                .filter_map(|text| text.parse().ok())
                .collect();
            zone.insert(host, &addresses);
            let is_local = !suffix.is_empty()
                && host
                    .trim_end_matches('.')
                    .to_lowercase()
                    .ends_with(&format!(".{suffix}"));
            // Short names of another cluster's domain could not be told apart.
            if entry.registry != "Kubernetes" || entry.shortname.is_empty() || !is_local {
                continue;
            }
            let (short, namespace) = (&entry.shortname, &entry.namespace);
            zone.insert(&format!("{short}.{namespace}"), &addresses);
            zone.insert(&format!("{short}.{namespace}.{svc}"), &addresses);
            if *namespace == client.namespace {
                zone.insert(short, &addresses);
            }
        }
        zone
    }

    pub fn insert(&mut self, host: &str, addresses: &[IpAddr]) {
        let host = host.trim_end_matches('.').to_lowercase();
        self.hosts.insert(host, addresses.to_vec());
    }

    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// `name` in lower case, without the dot at the end.
    pub fn lookup<'a>(&'a self, name: &'a str) -> Answer<'a> {
        if name.len() > LONGEST_NAME {
            return Answer::Unknown;
        }
        if let Some(addresses) = self.find(name) {
            return Answer::Found {
                alias_of: None,
                addresses,
            };
        }
        for domain in &self.search {
            let cut = name
                .strip_suffix(domain.as_str())
                .and_then(|name| name.strip_suffix('.'));
            if let Some(short) = cut
                && let Some(addresses) = self.find(short)
            {
                return Answer::Found {
                    alias_of: Some(short),
                    addresses,
                };
            }
        }
        let is_below = |domain: &String| {
            name.strip_suffix(domain.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        if self.authoritative.iter().any(is_below) {
            Answer::Absent
        } else {
            Answer::Unknown
        }
    }

    fn find(&self, name: &str) -> Option<&[IpAddr]> {
        if let Some(addresses) = self.hosts.get(name) {
            return Some(addresses);
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(addresses) = self.hosts.get(&format!("*.{parent}")) {
                return Some(addresses);
            }
            rest = parent;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use envoy_api::istio::name_table::NameInfo;

    use super::*;

    fn table() -> NameTable {
        let kubernetes = |short: &str, namespace: &str, ips: &[&str]| NameInfo {
            ips: ips.iter().map(|ip| ip.to_string()).collect(),
            registry: "Kubernetes".into(),
            shortname: short.into(),
            namespace: namespace.into(),
        };
        let external = |ips: &[&str]| NameInfo {
            ips: ips.iter().map(|ip| ip.to_string()).collect(),
            registry: "External".into(),
            ..Default::default()
        };
        let entries = [
            ("www.google.com", external(&["1.1.1.1"])),
            (
                "productpage.ns1.svc.cluster.local",
                kubernetes("productpage", "ns1", &["9.9.9.9"]),
            ),
            (
                "example.ns2.svc.cluster.local",
                kubernetes("example", "ns2", &["10.10.10.10"]),
            ),
            (
                "details.ns2.svc.cluster.remote",
                kubernetes("details", "ns2", &["11.11.11.11", "12.12.12.12"]),
            ),
            ("dual.localhost", external(&["2.2.2.2", "2001:db8::1"])),
            ("*.b.wildcard", external(&["11.11.11.11"])),
            ("*.wildcard", external(&["10.10.10.10"])),
            ("example.localhost.", external(&["3.3.3.3"])),
        ];
        let table = entries
            .into_iter()
            .map(|(host, entry)| (host.to_string(), entry))
            .collect();
        NameTable { table }
    }

    #[test]
    fn istios_rules() {
        let client = Client {
            namespace: "ns1".into(),
            dns_domain: "ns1.svc.cluster.local".into(),
            search: vec!["ns1.svc.cluster.local".into(), "svc.cluster.local".into()],
        };
        let zone = Zone::from_name_table(&table(), &client);
        for (name, want, why) in [
            (
                "www.google.com",
                Some((None, "1.1.1.1")),
                "a host of a ServiceEntry",
            ),
            (
                "www.google.com.ns1.svc.cluster.local",
                Some((Some("www.google.com"), "1.1.1.1")),
                "with a search domain",
            ),
            (
                "www.google.com.svc.cluster.local",
                Some((Some("www.google.com"), "1.1.1.1")),
                "with the second search domain",
            ),
            (
                "productpage",
                Some((None, "9.9.9.9")),
                "short, in the own namespace",
            ),
            (
                "productpage.ns1",
                Some((None, "9.9.9.9")),
                "with the namespace",
            ),
            ("productpage.ns1.svc", Some((None, "9.9.9.9")), "with svc"),
            (
                "productpage.ns1.svc.cluster.local",
                Some((None, "9.9.9.9")),
                "whole",
            ),
            ("example", None, "another namespace has no short name"),
            ("example.ns2", Some((None, "10.10.10.10")), "but this one"),
            (
                "example.ns2.ns1.svc.cluster.local",
                Some((Some("example.ns2"), "10.10.10.10")),
                "expanded",
            ),
            (
                "details.ns2.svc.cluster.remote",
                Some((None, "11.11.11.11")),
                "another domain",
            ),
            ("details.ns2.svc", None, "of which there are no short names"),
            ("a.wildcard", Some((None, "10.10.10.10")), "a wildcard"),
            (
                "a.b.c.wildcard",
                Some((None, "10.10.10.10")),
                "at any depth",
            ),
            (
                "a.b.wildcard",
                Some((None, "11.11.11.11")),
                "the longest one",
            ),
            ("wildcard", None, "not the domain itself"),
            (
                "example.localhost",
                Some((None, "3.3.3.3")),
                "written with a dot at the end",
            ),
            ("nowhere", None, "unknown"),
            ("", None, "the root"),
        ] {
            let got = match zone.lookup(name) {
                Answer::Found {
                    alias_of,
                    addresses,
                } => Some((alias_of, addresses[0].to_string())),
                _ => None,
            };
            let want = want.map(|(alias, ip)| (alias, ip.to_string()));
            assert_eq!(got, want, "{name}: {why}");
        }
        let name = ["a"; 200].join(".");
        assert_eq!(zone.lookup(&name), Answer::Unknown, "longer than any name");
    }

    #[test]
    fn authoritative_domains() {
        let zone = Zone::new(Vec::new(), vec!["cluster.local".into()]);
        assert_eq!(zone.lookup("x.svc.cluster.local"), Answer::Absent);
        assert_eq!(zone.lookup("cluster.local"), Answer::Absent);
        assert_eq!(zone.lookup("notcluster.local"), Answer::Unknown);
    }
}
