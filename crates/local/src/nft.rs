//! The node's rules for virtual IPs, as one text that `nft -f -` applies atomically: every new
//! connection to a service's address goes to one of its ready endpoints.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::network::{NODE_ADDRESS, POD_RANGE, SERVICE_RANGE};

/// One port of one service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VirtualPort {
    pub address: Ipv4Addr,
    pub protocol: Protocol,
    pub port: u16,
    /// Ready ones only, sorted.
    pub endpoints: Vec<SocketAddrV4>,
    /// `sessionAffinity: ClientIP`.
    pub by_client: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    fn word(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// The whole table; applying it replaces what stands.
pub fn ruleset(ports: &[VirtualPort]) -> String {
    let mut text = String::from("table ip stolos\ndelete table ip stolos\ntable ip stolos {\n");
    let served: Vec<&VirtualPort> = ports
        .iter()
        .filter(|one| !one.endpoints.is_empty())
        .collect();
    for port in &served {
        port_chains(&mut text, port);
    }
    text.push_str("  chain services {\n");
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let word = protocol.word();
        let entries: Vec<String> = served
            .iter()
            .filter(|one| one.protocol == protocol)
            .map(|one| format!("{} . {} : goto {}", one.address, one.port, chain_name(one)))
            .collect();
        if !entries.is_empty() {
            let entries = entries.join(", ");
            let _ = writeln!(text, "    ip daddr . {word} dport vmap {{ {entries} }}");
        }
    }
    text.push_str("  }\n");
    // pasta sends segments without flags, which the connection's table does not know and which
    // would be answered by a reset.
    let _ = write!(
        text,
        "  chain prerouting {{\n    type nat hook prerouting priority dstnat\n    \
         jump services\n  }}\n  \
         chain output {{\n    type nat hook output priority -100\n    jump services\n  }}\n  \
         chain postrouting {{\n    type nat hook postrouting priority srcnat\n    \
         meta mark 0x4000 snat to {NODE_ADDRESS}\n    \
         oifname \"outside\" ip saddr {POD_RANGE} masquerade\n  }}\n  \
         chain unserved {{\n    type filter hook prerouting priority dstnat + 10\n    \
         iifname \"outside\" ct state invalid drop\n    \
         {local}ip daddr {SERVICE_RANGE} meta l4proto tcp reject with tcp reset\n    \
         {local}ip daddr {SERVICE_RANGE} reject with icmp port-unreachable\n  }}\n}}\n",
        local = "fib daddr type != local ",
    );
    text
}

fn chain_name(port: &VirtualPort) -> String {
    let [_, _, high, low] = port.address.octets();
    format!("{}-{high}-{low}-{}", port.protocol.word(), port.port)
}

/// A chain that picks, and one per endpoint. A pod that calls itself by the virtual IP would
/// drop a packet from its own address: that one gets the node's.
fn port_chains(text: &mut String, port: &VirtualPort) {
    let name = chain_name(port);
    for (number, endpoint) in port.endpoints.iter().enumerate() {
        let _ = writeln!(
            text,
            "  chain {name}-{number} {{\n    ip saddr {ip} meta mark set 0x4000\n    \
             {word} dport {port} dnat to {endpoint}\n  }}",
            ip = endpoint.ip(),
            word = port.protocol.word(),
            port = port.port,
        );
    }
    let count = port.endpoints.len();
    let key = if port.by_client {
        format!("jhash ip saddr mod {count}")
    } else {
        format!("numgen random mod {count}")
    };
    let goto: Vec<String> = (0..count)
        .map(|n| format!("{n} : goto {name}-{n}"))
        .collect();
    let _ = writeln!(
        text,
        "  chain {name} {{\n    {key} vmap {{ {} }}\n  }}",
        goto.join(", ")
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(endpoints: &[&str]) -> VirtualPort {
        VirtualPort {
            address: Ipv4Addr::new(10, 96, 0, 20),
            protocol: Protocol::Tcp,
            port: 9080,
            endpoints: endpoints.iter().map(|one| one.parse().unwrap()).collect(),
            by_client: false,
        }
    }

    #[test]
    fn picks_among_ready_endpoints() {
        let text = ruleset(&[port(&["10.244.0.2:9080", "10.244.0.3:80"])]);
        for want in [
            "10.96.0.20 . 9080 : goto tcp-0-20-9080",
            "numgen random mod 2 vmap { 0 : goto tcp-0-20-9080-0, 1 : goto tcp-0-20-9080-1 }",
            "tcp dport 9080 dnat to 10.244.0.3:80",
        ] {
            assert!(text.contains(want), "{want} in\n{text}");
        }
    }

    #[test]
    fn a_service_without_endpoints_is_refused_not_lost() {
        let text = ruleset(&[port(&[])]);
        assert!(!text.contains("vmap"), "{text}");
        assert!(text.contains("reject with tcp reset"), "{text}");
    }
}
