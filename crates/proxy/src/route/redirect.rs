//! Redirects and direct responses.

use bytes::Bytes;

use super::virtual_host::port_start;
use super::{Criteria, RequireTls};
use crate::http::request::RequestHead;
use crate::matcher::Substitution;

#[derive(Debug, Clone)]
pub struct DirectResponse {
    pub status: u16,
    pub body: Bytes,
    pub content_type: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Redirect {
    pub status: u16,
    pub scheme: SchemeRewrite,
    pub host: Option<String>,
    pub port: Option<u16>,
    pub path: RedirectPath,
    pub strip_query: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemeRewrite {
    Keep,
    Https,
    To(String),
}

#[derive(Debug, Clone)]
pub enum RedirectPath {
    Keep,
    /// A whole path; a query of its own replaces the request's.
    Whole(String),
    Prefix(String),
    Regex(Substitution),
}

impl DirectResponse {
    /// Envoy sends the request's own URL along with 201 and 3xx.
    pub fn location(&self, head: &RequestHead) -> Option<Vec<u8>> {
        if self.status != 201 && !(300..400).contains(&self.status) {
            return None;
        }
        let scheme = head.scheme.as_str().as_bytes();
        Some([scheme, b"://", &head.authority[..], &head.path[..]].concat())
    }
}

/// The scheme that the client used, as the connection manager recorded it.
fn client_scheme(head: &RequestHead) -> String {
    let forwarded = head.headers.get_str("x-forwarded-proto");
    forwarded
        .unwrap_or(head.scheme.as_str())
        .to_ascii_lowercase()
}

/// The `location` where a virtual host demands TLS of a plain request.
pub(super) fn to_https(require: RequireTls, head: &RequestHead) -> Option<Vec<u8>> {
    let demanded = match require {
        RequireTls::No => false,
        RequireTls::All => true,
        RequireTls::External => head.headers.get("x-envoy-internal") != Some(b"true"),
    };
    if !demanded || client_scheme(head) == "https" {
        return None;
    }
    Some([b"https://", &head.authority[..], &head.path[..]].concat())
}

impl Redirect {
    /// Envoy's new URI.
    pub fn location(&self, head: &RequestHead, criteria: &Criteria) -> Vec<u8> {
        let old_scheme = head.scheme.as_str();
        let scheme = match &self.scheme {
            SchemeRewrite::Keep => old_scheme,
            SchemeRewrite::Https => "https",
            SchemeRewrite::To(scheme) => scheme,
        };
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(scheme.as_bytes());
        out.extend_from_slice(b"://");
        match &self.host {
            Some(host) => out.extend_from_slice(host.as_bytes()),
            None => out.extend_from_slice(self.kept_host(&head.authority, scheme, old_scheme)),
        }
        if let Some(port) = self.port {
            out.extend_from_slice(format!(":{port}").as_bytes());
        }
        out.extend_from_slice(&self.new_path(head, criteria));
        out
    }

    /// The request's host; its port goes where a new one comes or where it was its scheme's own.
    fn kept_host<'a>(&self, host: &'a [u8], scheme: &str, old_scheme: &str) -> &'a [u8] {
        let Some(at) = port_start(host) else {
            return host;
        };
        let port = &host[at..];
        let was_default =
            (old_scheme == "https" && port == b":443") || (old_scheme == "http" && port == b":80");
        if self.port.is_some() || (scheme != old_scheme && was_default) {
            return &host[..at];
        }
        host
    }

    fn new_path(&self, head: &RequestHead, criteria: &Criteria) -> Vec<u8> {
        let path: &[u8] = &head.path;
        let cut = memchr::memchr(b'?', path).unwrap_or(path.len());
        let (bare, query) = path.split_at(cut);
        let new = match &self.path {
            RedirectPath::Keep => bare.to_vec(),
            RedirectPath::Whole(whole) if whole.contains('?') => return whole.clone().into_bytes(),
            RedirectPath::Whole(whole) => whole.clone().into_bytes(),
            RedirectPath::Prefix(prefix) => {
                let matched = criteria.matched_length(bare);
                [prefix.as_bytes(), &bare[matched..]].concat()
            }
            RedirectPath::Regex(substitution) => substitution.apply(bare),
        };
        if self.strip_query {
            new
        } else {
            [&new[..], query].concat()
        }
    }
}
