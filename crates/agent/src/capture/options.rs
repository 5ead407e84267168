//! What to capture, with Istio's defaults.

use std::net::IpAddr;

use super::CaptureError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub proxy_port: u16,
    pub inbound_capture_port: u16,
    pub inbound_tunnel_port: u16,
    pub exempt: Exempt,
    pub mode: Mode,
    pub tproxy_mark: u32,
    pub tproxy_route_table: u32,
    pub inbound_ports: Ports,
    pub inbound_ports_exclude: Vec<u16>,
    pub outbound_ranges: Ranges,
    pub outbound_ranges_exclude: Vec<Cidr>,
    pub outbound_ports: Vec<u16>,
    pub outbound_ports_exclude: Vec<u16>,
    /// Groups whose traffic is captured; `None` means all.
    pub owner_groups: Option<Vec<String>>,
    pub owner_groups_exclude: Vec<String>,
    pub virtual_interfaces: Vec<String>,
    pub exclude_interfaces: Vec<String>,
    pub redirect_dns: bool,
    pub capture_all_dns: bool,
    pub dns_servers: Vec<Cidr>,
    pub drop_invalid: bool,
    pub ipv6: bool,
    /// Destinations of the application's own loopback traffic.
    pub loopback: String,
}

/// How the proxy's own sockets are told from the application's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exempt {
    Owner {
        users: Vec<String>,
        groups: Vec<String>,
    },
    /// SO_MARK, where there is only one user to go by.
    Mark(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Redirect,
    Tproxy,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    All,
    Only(Vec<u16>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    All,
    Only(Vec<Cidr>),
}

/// An address range; the text stays as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub text: String,
    pub address: IpAddr,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            proxy_port: 15001,
            inbound_capture_port: 15006,
            inbound_tunnel_port: 15008,
            exempt: Exempt::Owner {
                users: vec!["1337".into()],
                groups: vec!["1337".into()],
            },
            mode: Mode::Redirect,
            tproxy_mark: 1337,
            tproxy_route_table: 133,
            inbound_ports: Ports::Only(Vec::new()),
            inbound_ports_exclude: Vec::new(),
            outbound_ranges: Ranges::Only(Vec::new()),
            outbound_ranges_exclude: Vec::new(),
            outbound_ports: Vec::new(),
            outbound_ports_exclude: Vec::new(),
            owner_groups: None,
            owner_groups_exclude: Vec::new(),
            virtual_interfaces: Vec::new(),
            exclude_interfaces: Vec::new(),
            redirect_dns: false,
            capture_all_dns: false,
            dns_servers: Vec::new(),
            drop_invalid: false,
            ipv6: false,
            loopback: "127.0.0.1/32".into(),
        }
    }
}

impl Options {
    /// DNS is captured only if there is a server whose traffic could be.
    pub fn captures_dns(&self) -> bool {
        self.redirect_dns && (self.capture_all_dns || !self.dns_servers.is_empty())
    }

    /// Whether the included ranges hold a loopback address: then the application's own loopback
    /// traffic is meant to pass through the proxy.
    pub fn includes_loopback(&self) -> bool {
        match &self.outbound_ranges {
            Ranges::All => false,
            Ranges::Only(ranges) => ranges.iter().any(|range| range.address.is_loopback()),
        }
    }
}

impl Cidr {
    pub fn parse(text: &str) -> Result<Cidr, String> {
        let (address, bits) = text.split_once('/').unwrap_or((text, ""));
        let parsed: IpAddr = address
            .parse()
            .map_err(|_| format!("{text:?} is not an address or CIDR range"))?;
        let most = if parsed.is_ipv4() { 32 } else { 128 };
        if text.contains('/') && !bits.parse::<u8>().is_ok_and(|bits| bits <= most) {
            return Err(format!("{text:?}: the prefix length must be 0 to {most}"));
        }
        let text = if text.contains('/') {
            text.to_string()
        } else {
            format!("{text}/{most}")
        };
        Ok(Cidr {
            text,
            address: parsed,
        })
    }
}

/// A comma list without its empty parts (users end lists with a comma).
pub fn list(text: &str) -> Vec<String> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(String::from)
        .collect()
}

pub fn ports(flag: &str, text: &str) -> Result<Vec<u16>, CaptureError> {
    let parse = |part: String| {
        part.parse().map_err(|_| CaptureError::Option {
            flag: flag.to_string(),
            reason: format!("{part:?} is not a port (0 to 65535)"),
        })
    };
    list(text).into_iter().map(parse).collect()
}

pub fn cidrs(flag: &str, text: &str) -> Result<Vec<Cidr>, CaptureError> {
    let parse = |part: String| {
        Cidr::parse(&part).map_err(|reason| CaptureError::Option {
            flag: flag.to_string(),
            reason,
        })
    };
    list(text).into_iter().map(parse).collect()
}
