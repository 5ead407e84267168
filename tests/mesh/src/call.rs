//! What a case file says: calls, upstreams and how upstreams behave. The fields are the format.

use crate::wire::{ClientTls, ServerTls};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// `calls.yaml`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Calls {
    /// One sentence: what this case shows.
    pub about: String,
    /// Table members that this case backs (`http_filter/cors`); the folder's name counts too.
    pub covers: Vec<String>,
    /// Servers behind the proxy, by name; `a`, HTTP/1.1, unless said otherwise.
    pub upstreams: BTreeMap<String, Upstream>,
    /// Threads of the proxy; 1 makes load balancing predictable.
    pub concurrency: Option<usize>,
    pub calls: Vec<Call>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[default]
    H1,
    H10,
    H2,
    Tcp,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upstream {
    pub protocol: Protocol,
    pub tls: Option<ServerTls>,
    /// The port exists, nobody listens.
    pub down: bool,
}

/// How the results of a repeated call are written down.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Record {
    /// Every result in full.
    #[default]
    Each,
    /// How often each status, upstream and flag occurred; not compared unless `exact`.
    Counts,
    /// The order of upstreams, turned to begin with the first by name.
    Cycle,
}

/// One step of a case.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Call {
    pub name: String,
    /// `GET /path`.
    pub call: String,
    /// The listener; `http` unless said otherwise.
    pub to: Option<String>,
    pub host: Option<String>,
    #[serde(deserialize_with = "pairs")]
    pub headers: Vec<(String, String)>,
    pub body: Option<String>,
    pub body_bytes: Option<usize>,
    /// A body in pieces: chunked, DATA frames, or plain writes.
    pub chunks: Vec<String>,
    /// Each message framed as gRPC does; the response is unframed.
    pub grpc: Vec<String>,
    #[serde(deserialize_with = "pairs")]
    pub trailers: Vec<(String, String)>,
    /// Wait for as many bytes to return as were sent before the next piece is sent.
    pub lockstep: bool,
    pub protocol: Protocol,
    /// Upgrade to a byte stream (WebSocket), then `chunks` in lockstep.
    pub upgrade: Option<String>,
    /// Exactly these bytes.
    pub raw: Option<String>,
    /// Read so many responses after `raw` (pipelining); 1 unless said otherwise.
    pub responses: Option<usize>,
    pub tls: Option<ClientTls>,
    pub source: Option<IpAddr>,
    /// Calls with the same name here share one connection.
    pub keep: Option<String>,
    /// Give up and close after so many milliseconds.
    pub abandon_ms: Option<u64>,
    /// Ask the proxy's admin page instead.
    pub admin: Option<String>,
    /// JSON pointers of the admin answer that are compared; empty: status and content type only.
    pub select: Vec<String>,
    /// Counters to compare, by Envoy's names.
    pub stats: Vec<String>,
    pub upstream: Vec<Behaviour>,
    /// What Envoy's result must contain; the case's own meaning.
    pub want: Value,
    pub took_ms: Option<[u64; 2]>,
    pub repeat: Option<usize>,
    pub parallel: bool,
    pub record: Record,
    /// Counts are compared too.
    pub exact: bool,
    /// Share of the answers by upstream or status, both inclusive.
    pub within: BTreeMap<String, [f64; 2]>,
    /// Access log lines to wait for; as many as calls unless said otherwise.
    pub log: Option<usize>,
    /// Repeat until the result contains this (bounded).
    pub until: Value,
    /// Parts of the result that are not compared, each with its reason beside it in the file.
    pub ignore: Vec<String>,
}

/// What an upstream does with one request; the last of a list stays in force.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Behaviour {
    /// Only this upstream.
    pub at: Option<String>,
    pub status: Option<u16>,
    #[serde(deserialize_with = "pairs")]
    pub headers: Vec<(String, String)>,
    pub body: Option<String>,
    pub body_bytes: Option<usize>,
    pub chunked: bool,
    #[serde(deserialize_with = "pairs")]
    pub trailers: Vec<(String, String)>,
    pub delay_ms: u64,
    /// 1xx answers first.
    pub informational: Vec<u16>,
    /// Send the request's body back.
    pub echo: bool,
    /// Reset instead of an answer.
    pub reset: bool,
    /// Close instead of an answer.
    pub close: bool,
    /// Half of the body, then a reset.
    pub cut: bool,
    /// Exactly these bytes instead of an answer.
    pub raw: Option<String>,
}

/// A map, or a list of pairs where a name comes twice.
fn pairs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, String)>, D::Error> {
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(Vec::new()),
        Value::Object(map) => Ok(map.into_iter().map(|(name, v)| (name, text(v))).collect()),
        Value::Array(list) => list
            .into_iter()
            .map(|pair| match pair {
                Value::Array(pair) if pair.len() == 2 => {
                    let mut pair = pair.into_iter().map(text);
                    Ok((
                        pair.next().unwrap_or_default(),
                        pair.next().unwrap_or_default(),
                    ))
                }
                other => Err(serde::de::Error::custom(format!(
                    "not [name, value]: {other}"
                ))),
            })
            .collect(),
        other => Err(serde::de::Error::custom(format!("not headers: {other}"))),
    }
}
