//! Discovery responses on the wire: bodies are cut out of the received bytes and joined from
//! shared chunks without a copy, which prost (with its own `Any`) would make for every client.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use envoy_api::{Resource, ResourceType};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_varint};
use prost::encoding::{encoded_len_varint, skip_field};

/// A resource as received.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Received {
    /// Unique within its type.
    pub name: String,
    /// The resource's version (delta) or the response's (state of the world).
    pub version: String,
    /// The encoded message, that is `Any.value`.
    pub body: Bytes,
}

/// A decoded `DeltaDiscoveryResponse` or `DiscoveryResponse`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Response {
    /// `system_version_info` or `version_info`.
    pub version: String,
    /// The type of all resources.
    pub type_url: String,
    /// To be quoted when this response is acknowledged.
    pub nonce: String,
    /// What was added or changed.
    pub resources: Vec<Received>,
    /// Names that are gone (delta only).
    pub removed: Vec<String>,
}

/// Why a response could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes are no such message.
    #[error("the response does not decode: {0}")]
    Decode(String),
    /// A resource of another type than the response says.
    #[error("a resource of type {found} in a response of type {wanted}")]
    Type { found: String, wanted: String },
}

impl From<prost::DecodeError> for WireError {
    fn from(error: prost::DecodeError) -> Self {
        WireError::Decode(error.to_string())
    }
}

const RESOURCE_URL: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

/// Reads a `DeltaDiscoveryResponse`.
pub fn decode_delta(message: Bytes) -> Result<Response, WireError> {
    let mut response = Response::default();
    let mut types = Vec::new();
    fields(message, |tag, field| {
        match (tag, field) {
            (1, Field::Bytes(bytes)) => response.version = text(bytes)?,
            (2, Field::Bytes(bytes)) => {
                let (type_url, resource) = decode_resource(bytes)?;
                types.push(type_url);
                response.resources.push(resource);
            }
            (4, Field::Bytes(bytes)) => response.type_url = text(bytes)?,
            (5, Field::Bytes(bytes)) => response.nonce = text(bytes)?,
            (6, Field::Bytes(bytes)) => response.removed.push(text(bytes)?),
            _ => {}
        }
        Ok(())
    })?;
    // A resource without a body only answers a name (an alias); its type is not given.
    check_types(
        types.iter().filter(|url| !url.is_empty()),
        &response.type_url,
    )?;
    Ok(response)
}

/// Reads a `DiscoveryResponse`. Names are the first field of every resource type that we know.
pub fn decode_full(message: Bytes) -> Result<Response, WireError> {
    let mut response = Response::default();
    let mut types = Vec::new();
    fields(message, |tag, field| {
        match (tag, field) {
            (1, Field::Bytes(bytes)) => response.version = text(bytes)?,
            (2, Field::Bytes(bytes)) => {
                let (type_url, body) = decode_any(bytes)?;
                if type_url == RESOURCE_URL {
                    let (type_url, resource) = decode_resource(body)?;
                    types.push(type_url);
                    response.resources.push(resource);
                } else {
                    types.push(type_url);
                    let resource = Received {
                        body,
                        ..Received::default()
                    };
                    response.resources.push(resource);
                }
            }
            (4, Field::Bytes(bytes)) => response.type_url = text(bytes)?,
            (5, Field::Bytes(bytes)) => response.nonce = text(bytes)?,
            _ => {}
        }
        Ok(())
    })?;
    check_types(types.iter(), &response.type_url)?;
    let named = ResourceType::from_type_url(&response.type_url) != Some(ResourceType::NameTable);
    for resource in &mut response.resources {
        if resource.name.is_empty() && named {
            resource.name = first_field_text(&resource.body)?;
        }
        if resource.version.is_empty() {
            resource.version.clone_from(&response.version);
        }
    }
    Ok(response)
}

/// Writes a `DeltaDiscoveryResponse`; the bodies stay the chunks they were.
pub fn encode_delta(response: &Outgoing<'_>) -> Vec<Bytes> {
    let mut out = Chunks::default();
    out.text(1, response.version);
    for resource in response.resources {
        let any = any_len(resource.kind, &resource.body);
        let len = text_len(1, &resource.version)
            + 1
            + encoded_len_varint(any as u64)
            + any
            + text_len(3, &resource.name);
        out.header(2, len);
        out.text(1, &resource.version);
        out.header(2, any);
        out.any(resource.kind, &resource.body);
        out.text(3, &resource.name);
    }
    out.text(4, response.kind.type_url());
    out.text(5, response.nonce);
    for name in response.removed {
        out.text(6, name);
    }
    out.finish()
}

/// Writes a `DiscoveryResponse`; the bodies stay the chunks they were.
pub fn encode_full(response: &Outgoing<'_>) -> Vec<Bytes> {
    let mut out = Chunks::default();
    out.text(1, response.version);
    for resource in response.resources {
        out.header(2, any_len(resource.kind, &resource.body));
        out.any(resource.kind, &resource.body);
    }
    out.text(4, response.kind.type_url());
    out.text(5, response.nonce);
    out.finish()
}

/// What a response holds when it is written.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The type of all resources.
    pub kind: ResourceType,
    /// `system_version_info` or `version_info`.
    pub version: &'a str,
    /// To be quoted by the client.
    pub nonce: &'a str,
    /// Added or changed (delta); all (state of the world).
    pub resources: &'a [Resource],
    /// Removed names (delta only).
    pub removed: &'a [String],
}

/// Whether an encoded `Cluster` waits for endpoints from EDS (its field `type` is EDS).
pub fn is_eds_cluster(body: &Bytes) -> bool {
    const DISCOVERY_TYPE_FIELD: u32 = 2;
    const EDS: u64 = 3;
    let mut found = false;
    let read = fields(body.clone(), |tag, field| {
        if let (DISCOVERY_TYPE_FIELD, Field::Varint(value)) = (tag, field) {
            found = value == EDS;
        }
        Ok(())
    });
    read.is_ok() && found
}

/// The names of the route configurations that an encoded `Listener` asks for by RDS.
pub fn route_names(body: &Bytes) -> Vec<String> {
    const FILTER_CHAINS: [u32; 2] = [3, 25];
    const HTTP_CONNECTION_MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.\
                                           http_connection_manager.v3.HttpConnectionManager";
    let mut names = Vec::new();
    for chain in messages(body, &FILTER_CHAINS) {
        for filter in messages(&chain, &[3]) {
            for config in messages(&filter, &[4]) {
                let Ok((type_url, manager)) = decode_any(config) else {
                    continue;
                };
                if type_url != HTTP_CONNECTION_MANAGER {
                    continue;
                }
                let route_sources = messages(&manager, &[3]);
                let found = route_sources.iter().flat_map(|rds| messages(rds, &[2]));
                names.extend(found.filter_map(|name| text(name).ok()));
            }
        }
    }
    names
}

/// The length-delimited fields with one of these numbers; none where the bytes are no message.
fn messages(body: &Bytes, numbers: &[u32]) -> Vec<Bytes> {
    let mut found = Vec::new();
    let read = fields(body.clone(), |tag, field| {
        if let Field::Bytes(bytes) = field
            && numbers.contains(&tag)
        {
            found.push(bytes);
        }
        Ok(())
    });
    if read.is_err() {
        found.clear();
    }
    found
}

enum Field {
    Bytes(Bytes),
    Varint(u64),
}

fn fields(
    mut message: Bytes,
    mut visit: impl FnMut(u32, Field) -> Result<(), WireError>,
) -> Result<(), WireError> {
    while message.has_remaining() {
        let (tag, wire_type) = decode_key(&mut message)?;
        match wire_type {
            WireType::LengthDelimited => {
                let len = decode_varint(&mut message)?;
                if len > message.remaining() as u64 {
                    return Err(WireError::Decode("a field is cut short".to_owned()));
                }
                visit(tag, Field::Bytes(message.copy_to_bytes(len as usize)))?;
            }
            WireType::Varint => visit(tag, Field::Varint(decode_varint(&mut message)?))?,
            other => skip_field(other, tag, &mut message, DecodeContext::default())?,
        }
    }
    Ok(())
}

fn decode_resource(bytes: Bytes) -> Result<(String, Received), WireError> {
    let mut resource = Received::default();
    let mut type_url = String::new();
    fields(bytes, |tag, field| {
        match (tag, field) {
            (1, Field::Bytes(bytes)) => resource.version = text(bytes)?,
            (2, Field::Bytes(bytes)) => (type_url, resource.body) = decode_any(bytes)?,
            (3, Field::Bytes(bytes)) => resource.name = text(bytes)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok((type_url, resource))
}

fn decode_any(bytes: Bytes) -> Result<(String, Bytes), WireError> {
    let mut type_url = String::new();
    let mut value = Bytes::new();
    fields(bytes, |tag, field| {
        match (tag, field) {
            (1, Field::Bytes(bytes)) => type_url = text(bytes)?,
            (2, Field::Bytes(bytes)) => value = bytes,
            _ => {}
        }
        Ok(())
    })?;
    Ok((type_url, value))
}

fn first_field_text(body: &Bytes) -> Result<String, WireError> {
    let mut name = String::new();
    fields(body.clone(), |tag, field| {
        if let (1, Field::Bytes(bytes)) = (tag, field) {
            name = text(bytes)?;
        }
        Ok(())
    })?;
    Ok(name)
}

fn text(bytes: Bytes) -> Result<String, WireError> {
    String::from_utf8(bytes.into()).map_err(|error| WireError::Decode(error.to_string()))
}

fn check_types<'a>(
    mut types: impl Iterator<Item = &'a String>,
    wanted: &str,
) -> Result<(), WireError> {
    match types.find(|url| *url != wanted) {
        Some(found) => Err(WireError::Type {
            found: found.clone(),
            wanted: wanted.to_owned(),
        }),
        None => Ok(()),
    }
}

fn text_len(tag: u32, value: &str) -> usize {
    debug_assert!(tag < 16, "one byte of key");
    if value.is_empty() {
        0
    } else {
        1 + encoded_len_varint(value.len() as u64) + value.len()
    }
}

fn any_len(kind: ResourceType, body: &Bytes) -> usize {
    let body_len = match body.len() {
        0 => 0,
        len => 1 + encoded_len_varint(len as u64) + len,
    };
    text_len(1, kind.type_url()) + body_len
}

/// Bodies smaller than this are copied beside their neighbours: a chunk costs more than the copy.
const COPY_BELOW: usize = 256;

#[derive(Default)]
struct Chunks {
    done: Vec<Bytes>,
    open: BytesMut,
}

impl Chunks {
    fn header(&mut self, tag: u32, len: usize) {
        self.open.put_u8((tag << 3 | 2) as u8);
        encode_varint(len as u64, &mut self.open);
    }

    fn text(&mut self, tag: u32, value: &str) {
        if !value.is_empty() {
            self.header(tag, value.len());
            self.open.put_slice(value.as_bytes());
        }
    }

    fn any(&mut self, kind: ResourceType, body: &Bytes) {
        self.text(1, kind.type_url());
        if body.is_empty() {
            return;
        }
        self.header(2, body.len());
        if body.len() < COPY_BELOW {
            self.open.put_slice(body);
        } else {
            self.done.push(self.open.split().freeze());
            self.done.push(body.clone());
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        if !self.open.is_empty() {
            self.done.push(self.open.freeze());
        }
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_api::cluster::Cluster;
    use envoy_api::discovery::{DeltaDiscoveryResponse, DiscoveryResponse};
    use prost::Message;

    fn clusters() -> Vec<Resource> {
        let names = [("a", 1), ("b", 400)];
        names
            .into_iter()
            .map(|(name, padding)| {
                let cluster = Cluster {
                    name: name.to_owned(),
                    alt_stat_name: "x".repeat(padding),
                    ..Default::default()
                };
                Resource {
                    kind: ResourceType::Cluster,
                    name: name.to_owned(),
                    version: format!("v-{name}"),
                    body: cluster.encode_to_vec().into(),
                }
            })
            .collect()
    }

    fn outgoing(resources: &[Resource]) -> Outgoing<'_> {
        let kind = ResourceType::Cluster;
        Outgoing {
            kind,
            version: "7",
            nonce: "n1",
            resources,
            removed: &[],
        }
    }

    #[test]
    fn delta_is_what_prost_reads_and_we_read_again() {
        let resources = clusters();
        let removed = ["gone".to_owned()];
        let bytes = encode_delta(&Outgoing {
            removed: &removed,
            ..outgoing(&resources)
        })
        .concat();
        let prost = DeltaDiscoveryResponse::decode(bytes.as_slice()).expect("prost reads it");
        assert_eq!(prost.encode_to_vec(), bytes, "canonical bytes");
        assert_eq!(prost.removed_resources, removed, "removed names");
        let ours = decode_delta(bytes.into()).expect("we read it");
        assert_eq!((ours.version.as_str(), ours.nonce.as_str()), ("7", "n1"));
        for (want, got) in resources.iter().zip(&ours.resources) {
            assert_eq!(
                (&want.name, &want.version, &want.body),
                (&got.name, &got.version, &got.body)
            );
        }
    }

    #[test]
    fn full_is_what_prost_reads_and_names_come_from_the_bodies() {
        let resources = clusters();
        let bytes = encode_full(&outgoing(&resources)).concat();
        let prost = DiscoveryResponse::decode(bytes.as_slice()).expect("prost reads it");
        assert_eq!(prost.encode_to_vec(), bytes, "canonical bytes");
        let ours = decode_full(bytes.into()).expect("we read it");
        let names: Vec<_> = ours
            .resources
            .iter()
            .map(|r| (&*r.name, &*r.version))
            .collect();
        assert_eq!(
            names,
            [("a", "7"), ("b", "7")],
            "name from field 1, version of the response"
        );
    }

    #[test]
    fn knows_the_routes_that_a_listener_asks_for() {
        use envoy_api::hcm::http_connection_manager::RouteSpecifier;
        use envoy_api::hcm::{HttpConnectionManager, Rds};
        use envoy_api::listener::filter::ConfigType;
        use envoy_api::listener::{Filter, FilterChain, Listener};
        let chain = |name: &str| {
            let manager = HttpConnectionManager {
                route_specifier: Some(RouteSpecifier::Rds(Rds {
                    route_config_name: name.to_owned(),
                    ..Default::default()
                })),
                ..Default::default()
            };
            let filter = Filter {
                config_type: Some(ConfigType::TypedConfig(envoy_api::any::pack(&manager))),
                ..Default::default()
            };
            FilterChain {
                filters: vec![Filter::default(), filter],
                ..Default::default()
            }
        };
        let listener = Listener {
            filter_chains: vec![FilterChain::default(), chain("9080")],
            default_filter_chain: Some(chain("other")),
            ..Default::default()
        };
        assert_eq!(
            route_names(&listener.encode_to_vec().into()),
            ["9080", "other"]
        );
        assert!(
            route_names(&Bytes::from_static(&[0x1a, 0xff])).is_empty(),
            "cut bytes"
        );
    }

    #[test]
    fn bad_bytes_are_errors() {
        let mixed = DiscoveryResponse {
            type_url: ResourceType::Listener.type_url().to_owned(),
            resources: vec![envoy_api::any::pack(&Cluster::default())],
            ..Default::default()
        };
        let cases: [(Vec<u8>, &str); 3] = [
            (vec![0x12, 0xff], "a cut length"),
            (vec![0x0a, 0x02, 0xff, 0xfe], "no UTF-8"),
            (mixed.encode_to_vec(), "another type inside"),
        ];
        for (bytes, why) in cases {
            assert!(decode_full(bytes.into()).is_err(), "{why}");
        }
    }

    #[test]
    fn knows_clusters_that_wait_for_endpoints() {
        use envoy_api::cluster::cluster::ClusterDiscoveryType;
        for (value, want) in [(3, true), (4, false), (0, false)] {
            let cluster = Cluster {
                cluster_discovery_type: Some(ClusterDiscoveryType::Type(value)),
                ..Default::default()
            };
            assert_eq!(
                is_eds_cluster(&cluster.encode_to_vec().into()),
                want,
                "type {value}"
            );
        }
    }
}
