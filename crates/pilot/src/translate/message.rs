//! Small constructors of Envoy messages that every translation uses.

use std::net::IpAddr;
use std::time::Duration;

use envoy_api::any::pack;
use envoy_api::core::{
    Address, AggregatedConfigSource, ConfigSource, Metadata, Pipe, SocketAddress, TransportSocket,
    address, config_source, socket_address,
};
use prost_types::{Struct, Value, value::Kind};

/// A TCP address.
pub fn socket(host: &str, port: u16) -> Address {
    let address = SocketAddress {
        address: host.to_owned(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(port.into())),
        ..Default::default()
    };
    Address {
        address: Some(address::Address::SocketAddress(address)),
    }
}

/// A unix socket's address.
pub fn pipe(path: &str) -> Address {
    let pipe = Pipe {
        path: path.to_owned(),
        ..Default::default()
    };
    Address {
        address: Some(address::Address::Pipe(pipe)),
    }
}

/// Over the stream on which the asking resource came; no time limit for the first answer.
pub fn ads() -> ConfigSource {
    ConfigSource {
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(
            AggregatedConfigSource::default(),
        )),
        initial_fetch_timeout: Some(prost_types::Duration::default()),
        resource_api_version: envoy_api::core::ApiVersion::V3 as i32,
        ..Default::default()
    }
}

pub fn duration(value: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(value.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(value.subsec_nanos()).unwrap_or_default(),
    }
}

pub fn seconds(value: u64) -> prost_types::Duration {
    duration(Duration::from_secs(value))
}

/// Metadata under one filter's name.
pub fn metadata(filter: &str, fields: impl IntoIterator<Item = (&'static str, Value)>) -> Metadata {
    let fields = fields
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    let mut metadata = Metadata::default();
    metadata
        .filter_metadata
        .insert(filter.to_owned(), Struct { fields });
    metadata
}

pub fn text(value: impl Into<String>) -> Value {
    Value {
        kind: Some(Kind::StringValue(value.into())),
    }
}

pub fn boolean(value: bool) -> Value {
    Value {
        kind: Some(Kind::BoolValue(value)),
    }
}

pub fn list(values: Vec<Value>) -> Value {
    Value {
        kind: Some(Kind::ListValue(prost_types::ListValue { values })),
    }
}

pub fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let fields = fields
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    Value {
        kind: Some(Kind::StructValue(Struct { fields })),
    }
}

/// The socket that speaks plain text.
pub fn raw_buffer() -> TransportSocket {
    TransportSocket {
        name: "envoy.transport_sockets.raw_buffer".to_owned(),
        config_type: Some(envoy_api::core::transport_socket::ConfigType::TypedConfig(
            pack(&envoy_api::raw_buffer::RawBuffer {}),
        )),
    }
}

/// A CIDR range; a single address covers itself.
pub fn cidr(net: &ipnet::IpNet) -> envoy_api::core::CidrRange {
    envoy_api::core::CidrRange {
        address_prefix: net.network().to_string(),
        prefix_len: Some(net.prefix_len().into()),
    }
}

/// Reads `1.2.3.4`, `1.2.3.0/24` or their IPv6 forms.
pub fn parse_net(text: &str) -> Option<ipnet::IpNet> {
    match text.parse::<ipnet::IpNet>() {
        Ok(net) => Some(net),
        Err(_) => text.parse::<IpAddr>().ok().map(ipnet::IpNet::from),
    }
}

/// Whether the range is one address.
pub fn is_single(net: &ipnet::IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

/// `[::1]` for IPv6, as authorities write it.
pub fn bracketed(address: &str) -> String {
    if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    }
}
