//! Service ports and the protocol that a port declares.

use std::fmt;

/// What a port declares to speak (istio.md 6.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Http,
    Http2,
    Grpc,
    GrpcWeb,
    HttpProxy,
    Https,
    Tls,
    Tcp,
    Mongo,
    Redis,
    Mysql,
    Udp,
    /// Nothing is declared: the proxy looks at the first bytes.
    #[default]
    Auto,
}

/// Ports on which servers speak first: they are never sniffed.
const SERVER_FIRST: [u16; 4] = [25, 53, 3306, 27017];

impl Protocol {
    /// Protocol names as Gateway and ServiceEntry ports write them; unknown ones are sniffed.
    pub fn parse(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "http" => Self::Http,
            "http2" => Self::Http2,
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "http_proxy" => Self::HttpProxy,
            "https" => Self::Https,
            "tls" => Self::Tls,
            "tcp" => Self::Tcp,
            "mongo" => Self::Mongo,
            "redis" => Self::Redis,
            "mysql" => Self::Mysql,
            "udp" => Self::Udp,
            _ => Self::Auto,
        }
    }

    /// A ServiceEntry's port: its protocol, or sniffing unless servers speak first there.
    pub fn declared(name: &str, port: u16) -> Self {
        match Self::parse(name) {
            Self::Auto if SERVER_FIRST.contains(&port) => Self::Tcp,
            protocol => protocol,
        }
    }

    /// Kubernetes' rule: transport, then appProtocol, then the port name up to the first `-`.
    pub fn of_kubernetes(transport: &str, app: Option<&str>, name: &str, port: u16) -> Self {
        if transport.eq_ignore_ascii_case("UDP") {
            return Self::Udp;
        }
        let text = match app {
            Some("kubernetes.io/h2c") => return Self::Http2,
            Some("kubernetes.io/ws") => return Self::Http,
            Some("kubernetes.io/wss") => return Self::Https,
            Some(app) => app,
            None => name,
        };
        let lower = text.to_ascii_lowercase();
        let known = if lower.starts_with("grpc-web") {
            Self::GrpcWeb
        } else {
            Self::parse(lower.split('-').next().unwrap_or_default())
        };
        match known {
            Self::Auto if SERVER_FIRST.contains(&port) => Self::Tcp,
            protocol => protocol,
        }
    }

    pub fn is_http(self) -> bool {
        matches!(
            self,
            Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb | Self::HttpProxy
        )
    }

    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    pub fn is_grpc(self) -> bool {
        matches!(self, Self::Grpc | Self::GrpcWeb)
    }

    /// TLS that the application itself speaks.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }

    pub fn is_tcp(self) -> bool {
        matches!(
            self,
            Self::Tcp | Self::Https | Self::Tls | Self::Mongo | Self::Redis | Self::Mysql
        )
    }

    pub fn is_auto(self) -> bool {
        self == Self::Auto
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Http2 => "HTTP2",
            Self::Grpc => "GRPC",
            Self::GrpcWeb => "GRPC-Web",
            Self::HttpProxy => "HTTP_PROXY",
            Self::Https => "HTTPS",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
            Self::Mongo => "Mongo",
            Self::Redis => "Redis",
            Self::Mysql => "MySQL",
            Self::Udp => "UDP",
            Self::Auto => "UnsupportedProtocol",
        })
    }
}

/// The workload's port behind a service port.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetPort {
    /// The service port's own number.
    #[default]
    Same,
    Number(u16),
    /// A container port by name, which may differ from workload to workload.
    Name(String),
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    pub number: u16,
    pub protocol: Protocol,
    pub target: TargetPort,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_protocols() {
        for (transport, app, name, port, want) in [
            ("TCP", None, "http", 80, Protocol::Http),
            ("TCP", None, "http2-x", 80, Protocol::Http2),
            ("TCP", None, "grpc-web-x", 80, Protocol::GrpcWeb),
            ("TCP", None, "GRPC", 80, Protocol::Grpc),
            ("TCP", Some("kubernetes.io/h2c"), "tcp", 80, Protocol::Http2),
            ("TCP", Some("https"), "http", 80, Protocol::Https),
            ("TCP", None, "web", 80, Protocol::Auto),
            ("TCP", None, "", 3306, Protocol::Tcp),
            ("UDP", None, "http", 80, Protocol::Udp),
        ] {
            let got = Protocol::of_kubernetes(transport, app, name, port);
            assert_eq!(got, want, "{transport} {app:?} {name} {port}");
        }
    }
}
