//! Which virtual host a host name belongs to: exact, longest suffix wildcard, longest prefix
//! wildcard, `*`. Names compare without case.

use std::collections::HashMap;

/// Wildcards by length, longest first.
type ByLength = Vec<(usize, HashMap<Box<[u8]>, usize>)>;

#[derive(Debug, Default)]
pub struct HostIndex {
    exact: HashMap<Box<[u8]>, usize>,
    /// `*.foo.com` by its `.foo.com`; sorted by length, longest first.
    suffixes: ByLength,
    /// `foo.*` by its `foo.`; sorted by length, longest first.
    prefixes: ByLength,
    any: Option<usize>,
}

/// Longer host names match nothing but `*`; no DNS name is longer.
const MAX_HOST: usize = 1024;

impl HostIndex {
    /// False where the domain is there already.
    pub fn insert(&mut self, domain: &str, at: usize) -> bool {
        let domain = domain.to_ascii_lowercase().into_bytes();
        if domain == b"*" {
            let new = self.any.is_none();
            self.any.get_or_insert(at);
            return new;
        }
        if let Some(suffix) = domain.strip_prefix(b"*") {
            return insert_by_length(&mut self.suffixes, suffix, at);
        }
        if let Some(prefix) = domain.strip_suffix(b"*") {
            return insert_by_length(&mut self.prefixes, prefix, at);
        }
        insert_new(&mut self.exact, &domain, at)
    }

    pub fn find(&self, host: &[u8], ignore_port: bool) -> Option<usize> {
        if host.len() > MAX_HOST || host.is_empty() {
            return self.any;
        }
        let mut buffer = smallvec::SmallVec::<[u8; 128]>::from_slice(host);
        buffer.make_ascii_lowercase();
        let host = if ignore_port {
            without_port(&buffer)
        } else {
            &buffer[..]
        };
        if let Some(at) = self.exact.get(host) {
            return Some(*at);
        }
        for (length, map) in &self.suffixes {
            // The wildcard stands for at least one character.
            if host.len() > *length
                && let Some(at) = map.get(&host[host.len() - length..])
            {
                return Some(*at);
            }
        }
        for (length, map) in &self.prefixes {
            if host.len() > *length
                && let Some(at) = map.get(&host[..*length])
            {
                return Some(*at);
            }
        }
        self.any
    }
}

fn insert_by_length(list: &mut ByLength, text: &[u8], at: usize) -> bool {
    let place = match list.binary_search_by(|(length, _)| text.len().cmp(length)) {
        Ok(place) => place,
        Err(place) => {
            list.insert(place, (text.len(), HashMap::new()));
            place
        }
    };
    insert_new(&mut list[place].1, text, at)
}

/// The first of equal domains stays.
fn insert_new(map: &mut HashMap<Box<[u8]>, usize>, text: &[u8], at: usize) -> bool {
    let new = !map.contains_key(text);
    map.entry(text.into()).or_insert(at);
    new
}

/// `host:port` without its port; an IPv6 address keeps its brackets.
pub fn without_port(host: &[u8]) -> &[u8] {
    match port_start(host) {
        Some(at) => &host[..at],
        None => host,
    }
}

/// Where `:port` begins.
pub fn port_start(host: &[u8]) -> Option<usize> {
    let colon = memchr::memrchr(b':', host)?;
    let digits = &host[colon + 1..];
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // The colon may belong to an IPv6 address.
    let bracket = memchr::memrchr(b']', host);
    match bracket {
        Some(bracket) => (bracket < colon).then_some(colon),
        None if host.starts_with(b"[") => None,
        None => Some(colon),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_as_envoy() {
        let mut index = HostIndex::default();
        for (at, domain) in [
            "foo.com",
            "*.foo.com",
            "*.com",
            "*-bar.foo.com",
            "foo.*",
            "foo.b*",
            "[::1]",
            "*",
        ]
        .iter()
        .enumerate()
        {
            assert!(index.insert(domain, at), "{domain} is new");
        }
        assert!(!index.insert("FOO.com", 9), "a duplicate");
        for (host, want, why) in [
            ("foo.com", 0, "exact"),
            ("FOO.COM", 0, "without case"),
            ("a.foo.com", 1, "suffix"),
            ("a-bar.foo.com", 3, "the longest suffix"),
            ("b.com", 2, "a shorter suffix"),
            ("-bar.foo.com", 1, "the wildcard is not empty"),
            ("foo.org", 4, "prefix"),
            ("foo.bar", 5, "the longest prefix"),
            ("[::1]", 6, "IPv6"),
            ("other", 7, "anything"),
            ("foo.com:80", 4, "a port counts"),
        ] {
            assert_eq!(
                index.find(host.as_bytes(), false),
                Some(want),
                "{host}: {why}"
            );
        }
        for (host, want) in [("foo.com:80", 0), ("[::1]:443", 6), ("[::1]", 6)] {
            assert_eq!(
                index.find(host.as_bytes(), true),
                Some(want),
                "{host} without port"
            );
        }
    }
}
