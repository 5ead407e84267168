//! The hash of a request for balancers that keep clients on hosts.

use std::time::Duration;

use xxhash_rust::xxh64::xxh64;

use crate::http::request::RequestHead;
use crate::matcher::{Substitution, query};
use crate::stream_info::{FilterState, StreamInfo};

#[derive(Debug, Clone)]
pub struct HashPolicy {
    pub kind: HashKind,
    /// When this one gives a hash, later ones are not asked.
    pub terminal: bool,
}

#[derive(Debug, Clone)]
pub enum HashKind {
    Header {
        name: String,
        rewrite: Option<Substitution>,
    },
    Cookie {
        name: String,
        ttl: Option<Duration>,
        path: String,
        attributes: Vec<(String, String)>,
    },
    SourceIp,
    Query(String),
    FilterState(String),
}

/// A hash, and the cookie to give to the client where it had none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestHash {
    pub hash: Option<u64>,
    pub set_cookie: Option<NewCookie>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCookie {
    /// The whole `set-cookie` value.
    pub line: String,
}

/// Envoy's combination of all policies.
pub fn hash_of(policies: &[HashPolicy], head: &RequestHead, stream: &StreamInfo) -> RequestHash {
    let mut result = RequestHash::default();
    for policy in policies {
        let one = policy.kind.hash(head, stream, &mut result.set_cookie);
        if let Some(one) = one {
            // Rotated, so that the order of the policies counts.
            result.hash = Some(result.hash.map_or(0, |old| old.rotate_left(1)) ^ one);
            if policy.terminal {
                break;
            }
        }
    }
    result
}

impl HashKind {
    fn hash(
        &self,
        head: &RequestHead,
        stream: &StreamInfo,
        new_cookie: &mut Option<NewCookie>,
    ) -> Option<u64> {
        match self {
            HashKind::Header { name, rewrite } => header_hash(head, name, rewrite.as_ref()),
            HashKind::Cookie {
                name,
                ttl,
                path,
                attributes,
            } => {
                if let Some(value) = cookie(head, name) {
                    return Some(xxh64(&value, 0));
                }
                let ttl = (*ttl)?;
                // The hash of both addresses is the new cookie's value, as in Envoy.
                let downstream = &stream.downstream;
                let key = format!("{}{}", downstream.remote, downstream.local);
                let value = format!("{:016x}", xxh64(key.as_bytes(), 0));
                *new_cookie = Some(new_cookie_line(name, &value, (ttl, path, attributes)));
                Some(xxh64(value.as_bytes(), 0))
            }
            HashKind::SourceIp => Some(xxh64(stream.client.ip().to_string().as_bytes(), 0)),
            HashKind::Query(name) => {
                let value = query::find(head.query()?, name.as_bytes())?;
                Some(xxh64(&value, 0))
            }
            HashKind::FilterState(key) => match stream.filter_state.get(key)? {
                FilterState::Text(value) => Some(xxh64(value.as_bytes(), 0)),
                _ => None,
            },
        }
    }
}

/// Several values are hashed in sorted order.
fn header_hash(head: &RequestHead, name: &str, rewrite: Option<&Substitution>) -> Option<u64> {
    let rewritten = |value: &[u8]| match rewrite {
        Some(rewrite) => rewrite.apply(value),
        None => value.to_vec(),
    };
    if name.starts_with(':') || name == "host" {
        return head.header(name).map(|value| xxh64(&rewritten(&value), 0));
    }
    let mut values: Vec<Vec<u8>> = head.headers.get_all(name).map(rewritten).collect();
    values.sort_unstable();
    let first = values.first()?;
    let mut hash = xxh64(first, 0);
    for value in &values[1..] {
        hash = xxh64(value, hash);
    }
    Some(hash)
}

/// The value of a cookie, without quotes.
fn cookie(head: &RequestHead, name: &str) -> Option<Vec<u8>> {
    head.headers.get_all("cookie").find_map(|line| {
        line.split(|byte| *byte == b';').find_map(|pair| {
            let pair = pair.trim_ascii();
            let at = memchr::memchr(b'=', pair)?;
            if &pair[..at] != name.as_bytes() {
                return None;
            }
            let value = &pair[at + 1..];
            let quoted = value
                .strip_prefix(b"\"")
                .and_then(|value| value.strip_suffix(b"\""));
            Some(quoted.unwrap_or(value).to_vec())
        })
    })
}

fn new_cookie_line(
    name: &str,
    value: &str,
    (ttl, path, attributes): (Duration, &str, &[(String, String)]),
) -> NewCookie {
    let mut line = format!("{name}=\"{value}\"");
    if !ttl.is_zero() {
        line.push_str(&format!("; Max-Age={}", ttl.as_secs()));
    }
    if !path.is_empty() {
        line.push_str(&format!("; Path={path}"));
    }
    for (name, value) in attributes {
        line.push_str(&format!("; {name}"));
        if !value.is_empty() {
            line.push_str(&format!("={value}"));
        }
    }
    line.push_str("; HttpOnly");
    NewCookie { line }
}
