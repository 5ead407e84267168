//! Addresses, CIDR ranges, keepalive, bind settings.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use envoy_api::core;
use envoy_api::core::{address, socket_address};
use ipnet::IpNet;

use super::Context;
use super::compat::Message as _;

/// Where to listen or connect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    Socket(SocketAddr),
    /// A host name to resolve (clusters of type STRICT_DNS and LOGICAL_DNS only).
    Name {
        host: String,
        port: u16,
    },
    Pipe {
        path: PathBuf,
        mode: u32,
    },
}

impl Address {
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Address::Socket(address) => Some(*address),
            _ => None,
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Socket(address) => write!(out, "{address}"),
            Address::Name { host, port } => write!(out, "{host}:{port}"),
            Address::Pipe { path, .. } => write!(out, "{}", path.display()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpKeepalive {
    pub probes: Option<u32>,
    pub time: Option<Duration>,
    pub interval: Option<Duration>,
}

/// A numeric socket option, set by the engine at the stated moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketOption {
    pub level: i32,
    pub name: i32,
    pub value: SocketOptionValue,
    pub state: SocketState,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketOptionValue {
    Int(i32),
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketState {
    Prebind,
    Bound,
    Listening,
}

/// `upstream_bind_config`: the source of connections to the upstream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BindConfig {
    pub source: Option<SocketAddr>,
    /// Sources of the other address family.
    pub extra_sources: Vec<SocketAddr>,
    pub freebind: bool,
    pub socket_options: Vec<SocketOption>,
}

fields! {
    core::SocketAddress {
        read: address, protocol, port_specifier;
        reject: resolver_name, network_namespace_filepath;
        ignore: ipv4_compat = "an IPv6 wildcard accepts IPv4 as the system allows";
    }
    core::Pipe { read: path, mode; }
    core::CidrRange { read: address_prefix, prefix_len; }
    core::TcpKeepalive { read: keepalive_probes, keepalive_time, keepalive_interval; }
    core::SocketOption {
        read: level, name, state, value;
        reject: r#type, ip_version;
        ignore: description = "a comment";
    }
    core::BindConfig {
        read: source_address, freebind, socket_options, extra_source_addresses,
            additional_source_addresses;
        reject: local_address_selector, validate_network_namespaces;
    }
    core::ExtraSourceAddress {
        read: address;
        reject: socket_options;
    }
}

/// An address that may be a host name.
pub fn parse(context: &mut Context, message: &core::Address) -> Option<Address> {
    let Some(address) = &message.address else {
        context.error("address is required");
        return None;
    };
    match address {
        address::Address::SocketAddress(socket) => {
            context.field("socket_address", |context| parse_socket(context, socket))
        }
        address::Address::Pipe(pipe) => context.field("pipe", |context| {
            pipe.check(context);
            let core::Pipe { path, mode } = pipe;
            context.non_empty("path", path);
            if *mode > 0o777 {
                context.error_at("mode", "must be at most 0777");
            }
            Some(Address::Pipe {
                path: path.into(),
                mode: *mode,
            })
        }),
        address::Address::EnvoyInternalAddress(_) => {
            context.error_at("envoy_internal_address", "is not supported");
            None
        }
    }
}

fn parse_socket(context: &mut Context, message: &core::SocketAddress) -> Option<Address> {
    message.check(context);
    if message.protocol != core::socket_address::Protocol::Tcp as i32 {
        context.error_at("protocol", "only TCP is supported");
    }
    context.non_empty("address", &message.address);
    let port = match &message.port_specifier {
        Some(socket_address::PortSpecifier::PortValue(port)) => match u16::try_from(*port) {
            Ok(port) => port,
            Err(_) => {
                context.error_at("port_value", format!("{port} is not a port"));
                return None;
            }
        },
        Some(socket_address::PortSpecifier::NamedPort(_)) => {
            context.error_at("named_port", "is not supported");
            return None;
        }
        None => {
            context.error_at("port_specifier", "is required");
            return None;
        }
    };
    match message.address.parse::<IpAddr>() {
        Ok(ip) => Some(Address::Socket(SocketAddr::new(ip, port))),
        Err(_) => Some(Address::Name {
            host: message.address.clone(),
            port,
        }),
    }
}

/// An address that must be an IP address or a pipe.
pub fn parse_resolved(context: &mut Context, message: &core::Address) -> Option<Address> {
    match parse(context, message)? {
        Address::Name { host, .. } => {
            context.error(format!("malformed IP address: {host}"));
            None
        }
        address => Some(address),
    }
}

pub fn cidr(context: &mut Context, message: &core::CidrRange) -> Option<IpNet> {
    message.check(context);
    let length = message.prefix_len.unwrap_or(0);
    let net = message
        .address_prefix
        .parse::<IpAddr>()
        .ok()
        .and_then(|ip| IpNet::new(ip, u8::try_from(length).ok()?).ok());
    if net.is_none() {
        context.error(format!(
            "malformed CIDR: {}/{length}",
            message.address_prefix
        ));
    }
    net.map(|net| net.trunc())
}

pub fn keepalive(context: &mut Context, message: &core::TcpKeepalive) -> Option<TcpKeepalive> {
    message.check(context);
    let core::TcpKeepalive {
        keepalive_probes,
        keepalive_time,
        keepalive_interval,
    } = message;
    let seconds = |value: &Option<u32>| value.map(|value| Duration::from_secs(value.into()));
    Some(TcpKeepalive {
        probes: *keepalive_probes,
        time: seconds(keepalive_time),
        interval: seconds(keepalive_interval),
    })
}

pub fn socket_option(context: &mut Context, message: &core::SocketOption) -> Option<SocketOption> {
    message.check(context);
    let state = match context.enumeration("state", message.state)? {
        core::socket_option::SocketState::StatePrebind => SocketState::Prebind,
        core::socket_option::SocketState::StateBound => SocketState::Bound,
        core::socket_option::SocketState::StateListening => SocketState::Listening,
    };
    let value = match &message.value {
        Some(core::socket_option::Value::IntValue(value)) => {
            SocketOptionValue::Int(i32::try_from(*value).ok()?)
        }
        Some(core::socket_option::Value::BufValue(value)) => {
            SocketOptionValue::Bytes(value.to_vec())
        }
        None => {
            context.error_at("value", "is required");
            return None;
        }
    };
    let level = i32::try_from(message.level).ok()?;
    let name = i32::try_from(message.name).ok()?;
    Some(SocketOption {
        level,
        name,
        value,
        state,
    })
}

pub fn bind_config(context: &mut Context, message: &core::BindConfig) -> Option<BindConfig> {
    message.check(context);
    let source = message.source_address.as_ref();
    let source = context.optional("source_address", source, source_of);
    let mut extra_sources = context.each(
        "additional_source_addresses",
        &message.additional_source_addresses,
        source_of,
    );
    extra_sources.extend(context.each(
        "extra_source_addresses",
        &message.extra_source_addresses,
        |context, extra| {
            extra.check(context);
            context.required("address", extra.address.as_ref(), source_of)
        },
    ));
    let socket_options = context.each("socket_options", &message.socket_options, socket_option);
    let freebind = message.freebind.unwrap_or(false);
    Some(BindConfig {
        source,
        extra_sources,
        freebind,
        socket_options,
    })
}

fn source_of(context: &mut Context, message: &core::SocketAddress) -> Option<SocketAddr> {
    match parse_socket(context, message)? {
        Address::Socket(address) => Some(address),
        _ => {
            context.error(format!("malformed IP address: {}", message.address));
            None
        }
    }
}
