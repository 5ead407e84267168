//! Istio's TCP metadata exchange (istio.md 7.2): where ALPN settled on `istio-peer-exchange`, each
//! side says who it is before the first payload byte.
use std::future::poll_fn;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use envoy_api::core::Node;
use prost::Message;
use prost_types::{Any, Struct, Value, value::Kind};

use super::transport::Io;
use crate::http::filters::metadata_exchange::{Own, peer_of};
use crate::stream_info::{Peer, TlsPeer};

pub const ALPN: &[u8] = b"istio-peer-exchange";
const MAGIC: u32 = 0x3D23_0467;
const STRUCT: &str = "type.googleapis.com/google.protobuf.Struct";
const PEER: &str = "x-envoy-peer-metadata";
const PEER_ID: &str = "x-envoy-peer-metadata-id";
/// A larger message is not from a peer of ours.
const MAX_LENGTH: usize = 64 * 1024;
const LIMIT: Duration = Duration::from_secs(15);

/// ALPN settled on the exchange.
pub fn is_negotiated(tls: Option<&TlsPeer>) -> bool {
    tls.and_then(|tls| tls.alpn.as_deref()) == Some(ALPN)
}

/// The bytes that introduce this proxy.
pub fn introduction(node: &Node) -> Vec<u8> {
    let own = Own::of(node, &[]);
    let text = |text: &str| Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    };
    let fields = Struct {
        fields: [
            (
                PEER.to_owned(),
                Value {
                    kind: Some(Kind::StructValue(own.fields)),
                },
            ),
            (PEER_ID.to_owned(), text(&node.id)),
        ]
        .into(),
    };
    let any = Any {
        type_url: STRUCT.to_owned(),
        value: fields.encode_to_vec(),
    };
    let body = any.encode_to_vec();
    let mut out = Vec::with_capacity(body.len() + 8);
    out.extend_from_slice(&MAGIC.to_be_bytes());
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(&body);
    out
}

/// Says who we are and hears who they are. What was read beyond that stays in `rest`.
pub async fn exchange(
    io: &Io,
    node: &Node,
    rest: &mut BytesMut,
) -> std::io::Result<Option<Box<Peer>>> {
    let own = introduction(node);
    let mut at = 0;
    while at < own.len() {
        at += poll_fn(|cx| io.poll_write(cx, &own[at..])).await?;
    }
    poll_fn(|cx| io.poll_flush(cx)).await?;
    match tokio::time::timeout(LIMIT, hear(io, rest)).await {
        Ok(peer) => peer,
        Err(_) => Ok(None),
    }
}

async fn hear(io: &Io, rest: &mut BytesMut) -> std::io::Result<Option<Box<Peer>>> {
    loop {
        match parse(rest) {
            Parsed::Peer(peer) => return Ok(peer),
            Parsed::NotOurs => return Ok(None),
            Parsed::Partial => {}
        }
        rest.reserve(4096);
        if poll_fn(|cx| io.poll_read(cx, rest)).await? == 0 {
            return Ok(None);
        }
    }
}

enum Parsed {
    Partial,
    /// Another protocol: the bytes are payload.
    NotOurs,
    Peer(Option<Box<Peer>>),
}

fn parse(rest: &mut BytesMut) -> Parsed {
    let known = rest.len().min(4);
    if rest[..known] != MAGIC.to_be_bytes()[..known] {
        return Parsed::NotOurs;
    }
    let Some(Ok(length)) = rest.get(4..8).map(<[u8; 4]>::try_from) else {
        return Parsed::Partial;
    };
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_LENGTH {
        return Parsed::NotOurs;
    }
    if rest.len() < 8 + length {
        return Parsed::Partial;
    }
    rest.advance(8);
    let body = rest.split_to(length);
    Parsed::Peer(decode(&body))
}

fn decode(body: &[u8]) -> Option<Box<Peer>> {
    let any = Any::decode(body)
        .ok()
        .filter(|any| any.type_url == STRUCT)?;
    let outer = Struct::decode(any.value.as_slice()).ok()?;
    let kind = |name: &str| outer.fields.get(name).and_then(|value| value.kind.as_ref());
    let id = match kind(PEER_ID) {
        Some(Kind::StringValue(id)) => id.clone(),
        _ => String::new(),
    };
    match kind(PEER) {
        Some(Kind::StructValue(fields)) => Some(Box::new(peer_of(&id, fields))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn introductions_are_understood_and_the_rest_is_payload() {
        let node = Node {
            id: "sidecar~1.1.1.1~a.b~b.svc".to_owned(),
            ..Node::default()
        };
        let mut bytes = BytesMut::from(&introduction(&node)[..]);
        bytes.extend_from_slice(b"payload");
        let Parsed::Peer(Some(peer)) = parse(&mut bytes) else {
            panic!("no peer")
        };
        assert_eq!(
            (peer.id.as_str(), &bytes[..]),
            (node.id.as_str(), &b"payload"[..])
        );
        let mut other = BytesMut::from(&b"GET / "[..]);
        assert!(matches!(parse(&mut other), Parsed::NotOurs));
        let mut half = BytesMut::from(&introduction(&node)[..6]);
        assert!(matches!(parse(&mut half), Parsed::Partial));
    }
}
