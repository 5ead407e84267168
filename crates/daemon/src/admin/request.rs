//! A request with its whole body, as handlers see it.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Tcp(SocketAddr),
    Unix { uid: Option<u32> },
}

#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    /// Percent-decoded.
    pub path: String,
    /// Without the question mark, as received.
    pub raw_query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub peer: Peer,
}

impl Peer {
    /// Whether the peer is on this machine (or in this pod).
    pub fn is_local(&self) -> bool {
        match self {
            Peer::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Peer::Unix { .. } => true,
        }
    }
}

impl Request {
    pub(super) fn new(head: http::request::Parts, body: Bytes, peer: Peer) -> Request {
        Request {
            method: head.method,
            path: percent_decode(head.uri.path(), false),
            raw_query: head.uri.query().unwrap_or_default().to_string(),
            headers: head.headers,
            body,
            peer,
        }
    }

    /// The first value of a query parameter, decoded; a bare name is the empty value.
    pub fn query(&self, name: &str) -> Option<String> {
        self.query_pairs()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    }

    pub fn query_pairs(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.raw_query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (percent_decode(name, true), percent_decode(value, true))
            })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The path after `prefix`, split at slashes, empty parts left out.
    pub fn path_after(&self, prefix: &str) -> Vec<&str> {
        let rest = self.path.strip_prefix(prefix).unwrap_or_default();
        rest.split('/').filter(|part| !part.is_empty()).collect()
    }
}

fn percent_decode(text: &str, plus_is_space: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
        match byte {
            b'+' if plus_is_space => bytes.push(b' '),
            b'%' => match after {
                [high, low, after @ ..] => match (digit(*high), digit(*low)) {
                    (Some(high), Some(low)) => {
                        bytes.push(high << 4 | low);
                        rest = after;
                    }
                    _ => bytes.push(byte),
                },
                _ => bytes.push(byte),
            },
            byte => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_decoding() {
        for (input, plus, want, why) in [
            ("/a%2Fb", false, "/a/b", "a pair"),
            ("a+b", false, "a+b", "plus is literal in a path"),
            ("a+b%2b", true, "a b+", "and a space in a query"),
            ("100%", false, "100%", "a lone percent sign stays"),
            ("%zz%4", false, "%zz%4", "no hexadecimal digits"),
            ("%ff", false, "\u{fffd}", "not UTF-8"),
        ] {
            assert_eq!(percent_decode(input, plus), want, "{why}");
        }
    }
}
