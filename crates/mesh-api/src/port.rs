//! Which protocol a port speaks, by what its owner wrote.

use crate::kinds::core::service::ServicePort;

/// The protocols that a port may name. `Unsupported`: none was named; the proxy has to look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Grpc,
    GrpcWeb,
    Http,
    HttpProxy,
    Http2,
    Https,
    Tls,
    Mongo,
    Redis,
    Mysql,
    #[default]
    Unsupported,
}

impl Protocol {
    /// Of the whole word, in any case.
    pub fn parse(word: &str) -> Protocol {
        match word.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "grpc" => Protocol::Grpc,
            "grpc-web" => Protocol::GrpcWeb,
            "http" => Protocol::Http,
            "http_proxy" => Protocol::HttpProxy,
            "http2" => Protocol::Http2,
            "https" => Protocol::Https,
            "tls" => Protocol::Tls,
            "mongo" => Protocol::Mongo,
            "redis" => Protocol::Redis,
            "mysql" => Protocol::Mysql,
            _ => Protocol::Unsupported,
        }
    }

    /// Of a Kubernetes Service's port.
    pub fn of_service_port(port: &ServicePort) -> Protocol {
        Protocol::of_port(port.port, &port.name, &port.protocol, &port.app_protocol)
    }

    /// `app_protocol` wins over the name (the part before the first `-`); well-known TCP ports
    /// on which the server speaks first are never looked into.
    pub fn of_port(number: i32, name: &str, transport: &str, app_protocol: &str) -> Protocol {
        if transport == "UDP" {
            return Protocol::Udp;
        }
        let name = match app_protocol {
            "kubernetes.io/h2c" => return Protocol::Http2,
            "kubernetes.io/ws" => return Protocol::Http,
            "kubernetes.io/wss" => return Protocol::Https,
            "" => name,
            other => other,
        };
        let web = name.get(.."grpc-web".len());
        if web.is_some_and(|prefix| prefix.eq_ignore_ascii_case("grpc-web")) {
            return Protocol::GrpcWeb;
        }
        let word = name.split_once('-').map_or(name, |(word, _)| word);
        match (Protocol::parse(word), number) {
            (Protocol::Unsupported, 25 | 53 | 3306 | 27017) => Protocol::Tcp,
            (protocol, _) => protocol,
        }
    }

    /// HTTP that a proxy may read.
    pub fn is_http(self) -> bool {
        matches!(
            self,
            Protocol::Http
                | Protocol::HttpProxy
                | Protocol::Http2
                | Protocol::Grpc
                | Protocol::GrpcWeb
        )
    }

    pub fn is_http2(self) -> bool {
        matches!(self, Protocol::Http2 | Protocol::Grpc)
    }

    pub fn is_tls(self) -> bool {
        matches!(self, Protocol::Https | Protocol::Tls)
    }

    /// Bytes that a proxy passes on (plain or encrypted).
    pub fn is_tcp(self) -> bool {
        matches!(
            self,
            Protocol::Tcp
                | Protocol::Https
                | Protocol::Tls
                | Protocol::Mongo
                | Protocol::Redis
                | Protocol::Mysql
        )
    }

    pub fn is_unsupported(self) -> bool {
        self == Protocol::Unsupported
    }

    /// As Istio shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Grpc => "GRPC",
            Protocol::GrpcWeb => "GRPC-Web",
            Protocol::Http => "HTTP",
            Protocol::HttpProxy => "HTTP_PROXY",
            Protocol::Http2 => "HTTP2",
            Protocol::Https => "HTTPS",
            Protocol::Tls => "TLS",
            Protocol::Mongo => "Mongo",
            Protocol::Redis => "Redis",
            Protocol::Mysql => "MySQL",
            Protocol::Unsupported => "UnsupportedProtocol",
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
