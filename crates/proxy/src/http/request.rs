//! The one canonical request and response head that codecs, router, policies and logs share.
use bytes::Bytes;
use std::borrow::Cow;

use super::headers::Headers;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http10,
    Http11,
    Http2,
}

impl Protocol {
    /// As in Envoy's `%PROTOCOL%`.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Http10 => "HTTP/1.0",
            Protocol::Http11 => "HTTP/1.1",
            Protocol::Http2 => "HTTP/2",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// A request's head. `Host` is in `authority` only; hop-by-hop headers are already gone
/// (an upgrade's wish is in `upgrade`).
#[derive(Clone, Debug)]
pub struct RequestHead {
    pub method: Bytes,
    pub scheme: Scheme,
    /// `:authority` or `Host`, port as received unless the listener strips it.
    pub authority: Bytes,
    /// Canonical path with query; what routing, policies and the upstream see.
    pub path: Bytes,
    /// The path as received where normalisation changed it.
    pub original_path: Option<Bytes>,
    pub protocol: Protocol,
    /// Lower-case `Upgrade` token (`websocket`) of an HTTP/1.1 upgrade or extended CONNECT.
    pub upgrade: Option<Bytes>,
    pub headers: Headers,
}

impl RequestHead {
    /// A head for tests and simulation.
    pub fn new(method: &str, authority: &str, path: &str) -> RequestHead {
        RequestHead {
            method: Bytes::copy_from_slice(method.as_bytes()),
            scheme: Scheme::Http,
            authority: Bytes::copy_from_slice(authority.as_bytes()),
            path: Bytes::copy_from_slice(path.as_bytes()),
            original_path: None,
            protocol: Protocol::Http11,
            upgrade: None,
            headers: Headers::new(),
        }
    }

    /// A header's values joined with `,`; knows `:method`, `:authority`, `host`, `:path` and
    /// `:scheme`.
    pub fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        match name {
            ":method" => Some(Cow::Borrowed(&self.method)),
            ":authority" | "host" => {
                (!self.authority.is_empty()).then_some(Cow::Borrowed(&self.authority))
            }
            ":path" => Some(Cow::Borrowed(&self.path)),
            ":scheme" => Some(Cow::Borrowed(self.scheme.as_str().as_bytes())),
            "upgrade" if self.upgrade.is_some() => self.upgrade.as_deref().map(Cow::Borrowed),
            name => self.headers.joined(name),
        }
    }

    /// Each value of a header on its own; pseudo headers have one.
    pub fn values(&self, name: &str) -> HeaderValues<'_> {
        if name.starts_with(':') || name == "host" || name == "upgrade" {
            return self.header(name).into_iter().collect();
        }
        values_of(&self.headers, name)
    }

    /// The path without its query.
    pub fn path_only(&self) -> &[u8] {
        split_query(&self.path).0
    }

    /// The query without `?`.
    pub fn query(&self) -> Option<&[u8]> {
        split_query(&self.path).1
    }

    /// `application/grpc` or `application/grpc+…`.
    pub fn is_grpc(&self) -> bool {
        is_grpc_content_type(self.headers.get("content-type"))
    }
}

/// A response's head.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    pub status: u16,
    pub protocol: Protocol,
    pub headers: Headers,
}

impl ResponseHead {
    pub fn new(status: u16) -> ResponseHead {
        ResponseHead {
            status,
            protocol: Protocol::Http11,
            headers: Headers::new(),
        }
    }

    /// A header's values joined with `,`; knows `:status`.
    pub fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        match name {
            ":status" => Some(Cow::Owned(self.status.to_string().into_bytes())),
            name => self.headers.joined(name),
        }
    }

    /// Each value of a header on its own.
    pub fn values(&self, name: &str) -> HeaderValues<'_> {
        if name.starts_with(':') {
            return self.header(name).into_iter().collect();
        }
        values_of(&self.headers, name)
    }
}

fn values_of<'a>(headers: &'a Headers, name: &str) -> HeaderValues<'a> {
    let fits = |found: &[u8]| found.eq_ignore_ascii_case(name.as_bytes());
    headers
        .iter()
        .filter(|(found, _)| fits(found))
        .map(|(_, value)| Cow::Borrowed(value))
        .collect()
}

/// The values of one header; mostly there is one.
pub type HeaderValues<'a> = smallvec::SmallVec<[Cow<'a, [u8]>; 1]>;

/// True for the content types that Envoy treats as gRPC.
pub fn is_grpc_content_type(value: Option<&[u8]>) -> bool {
    let Some(rest) = value.and_then(|value| value.strip_prefix(b"application/grpc")) else {
        return false;
    };
    rest.is_empty() || rest[0] == b'+'
}

fn split_query(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'?', path) {
        Some(at) => (&path[..at], Some(&path[at + 1..])),
        None => (path, None),
    }
}
