//! Which filter chain a connection gets: Envoy's criteria in Envoy's order, each narrowing to the
//! most specific group, without going back.
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::parse::listener::{FilterChainMatch, SourceType};
use crate::stream_info::Connection;

/// What is matched, from the connection's record.
#[derive(Debug)]
pub struct Facts<'a> {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub direct_remote: SocketAddr,
    /// Lower case.
    pub server_name: Option<String>,
    pub transport_protocol: &'a str,
    pub application_protocols: &'a [Vec<u8>],
}

impl<'a> Facts<'a> {
    pub fn of(connection: &'a Connection) -> Facts<'a> {
        Facts {
            local: connection.local,
            remote: connection.remote,
            direct_remote: connection.direct_remote,
            server_name: connection
                .requested_server_name
                .as_deref()
                .filter(|name| !name.is_empty())
                .map(str::to_ascii_lowercase),
            transport_protocol: connection.transport_protocol,
            application_protocols: &connection.application_protocols,
        }
    }
}

/// The position of the chain, or `None` for the default chain.
pub fn find<'a, I>(chains: I, facts: &Facts<'_>) -> Option<usize>
where
    I: Iterator<Item = &'a FilterChainMatch>,
{
    let mut left: Vec<(usize, &FilterChainMatch)> = chains.enumerate().collect();
    by_group(&mut left, |one| match one.destination_port {
        Some(port) => (port == facts.local.port()).then_some(1),
        None => Some(0),
    });
    by_group(&mut left, |one| prefix(&one.destination, facts.local.ip()));
    by_group(&mut left, |one| {
        server_name(&one.server_names, facts.server_name.as_deref())
    });
    by_group(&mut left, |one| match one.transport_protocol.as_str() {
        "" => Some(0),
        wanted => (wanted == facts.transport_protocol).then_some(1),
    });
    by_group(&mut left, |one| {
        application_protocol(&one.application_protocols, facts.application_protocols)
    });
    by_group(&mut left, |one| {
        prefix(&one.direct_source, facts.direct_remote.ip())
    });
    let local_source = is_local_source(facts);
    by_group(&mut left, |one| match one.source_type {
        SourceType::Any => Some(0),
        SourceType::SameIpOrLoopback => local_source.then_some(1),
        SourceType::External => (!local_source).then_some(1),
    });
    by_group(&mut left, |one| prefix(&one.source, facts.remote.ip()));
    by_group(&mut left, |one| {
        if one.source_ports.is_empty() {
            return Some(0);
        }
        one.source_ports.contains(&facts.remote.port()).then_some(1)
    });
    left.first().map(|(index, _)| *index)
}

/// Keeps the candidates of the highest rank.
fn by_group<'a>(
    left: &mut Vec<(usize, &'a FilterChainMatch)>,
    rank: impl Fn(&'a FilterChainMatch) -> Option<usize>,
) {
    let best = left.iter().filter_map(|(_, one)| rank(one)).max();
    left.retain(|(_, one)| best.is_some() && rank(one) == best);
}

/// No ranges: any address (rank 0); else the longest prefix that holds it.
fn prefix(ranges: &[IpNet], ip: IpAddr) -> Option<usize> {
    if ranges.is_empty() {
        return Some(0);
    }
    let holding = ranges.iter().filter(|range| range.contains(&ip));
    holding
        .map(|range| usize::from(range.prefix_len()) + 1)
        .max()
}

/// Exact names rank above suffixes, longer suffixes above shorter ones.
fn server_name(names: &[String], name: Option<&str>) -> Option<usize> {
    if names.is_empty() {
        return Some(0);
    }
    let name = name?;
    names
        .iter()
        .filter_map(|wanted| match wanted.strip_prefix('*') {
            None => (wanted == name).then_some(usize::MAX),
            Some(suffix) => {
                (name.len() > suffix.len() && name.ends_with(suffix)).then_some(suffix.len())
            }
        })
        .max()
}

/// The client's first protocol that a chain names wins.
fn application_protocol(wanted: &[Vec<u8>], offered: &[Vec<u8>]) -> Option<usize> {
    if wanted.is_empty() {
        return Some(0);
    }
    let at = offered.iter().position(|one| wanted.contains(one))?;
    Some(offered.len() - at)
}

fn is_local_source(facts: &Facts<'_>) -> bool {
    facts.remote.ip().to_canonical().is_loopback() || facts.remote.ip() == facts.local.ip()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(edit: impl FnOnce(&mut FilterChainMatch)) -> FilterChainMatch {
        let mut chain = FilterChainMatch::default();
        edit(&mut chain);
        chain
    }

    fn facts<'a>(
        server_name: Option<&str>,
        transport: &'a str,
        protocols: &'a [Vec<u8>],
    ) -> Facts<'a> {
        Facts {
            local: "10.0.0.1:80".parse().unwrap(),
            remote: "10.0.0.9:4000".parse().unwrap(),
            direct_remote: "10.0.0.9:4000".parse().unwrap(),
            server_name: server_name.map(str::to_owned),
            transport_protocol: transport,
            application_protocols: protocols,
        }
    }

    #[test]
    fn narrows_in_envoys_order() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let alpn = |names: &[&str]| {
            names
                .iter()
                .map(|n| n.as_bytes().to_vec())
                .collect::<Vec<_>>()
        };
        let chains = [
            chain(|_| {}),
            chain(|one| one.destination_port = Some(80)),
            chain(|one| {
                one.destination_port = Some(80);
                one.transport_protocol = "tls".to_owned();
            }),
            chain(|one| {
                one.destination_port = Some(80);
                one.transport_protocol = "tls".to_owned();
                one.application_protocols = alpn(&["istio", "h2"]);
            }),
            chain(|one| {
                one.destination_port = Some(80);
                one.server_names = vec!["*.example.com".to_owned(), "a.b".to_owned()];
            }),
            chain(|one| {
                one.destination_port = Some(80);
                one.destination = vec![net("10.9.0.0/16")];
            }),
        ];
        let h2 = alpn(&["x", "h2"]);
        let other = alpn(&["x"]);
        for (facts, want, why) in [
            (
                facts(None, "raw_buffer", &[]),
                Some(1),
                "the port's plain chain",
            ),
            (facts(None, "tls", &[]), Some(2), "transport protocol"),
            (facts(None, "tls", &h2), Some(3), "ALPN"),
            (facts(None, "tls", &other), Some(2), "unknown ALPN"),
            (
                facts(Some("x.example.com"), "tls", &h2),
                Some(4),
                "the name comes before ALPN",
            ),
            (
                facts(Some("example.com"), "tls", &h2),
                Some(3),
                "a suffix is not the name itself",
            ),
        ] {
            assert_eq!(find(chains.iter(), &facts), want, "{why}");
        }
        let only = [chain(|one| one.destination_port = Some(81))];
        assert_eq!(
            find(only.iter(), &facts(None, "", &[])),
            None,
            "default chain"
        );
    }

    #[test]
    fn longer_prefixes_win_and_source_type_counts() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let chains = [
            chain(|one| one.destination = vec![net("10.0.0.0/8")]),
            chain(|one| one.destination = vec![net("10.0.0.1/32")]),
            chain(|one| {
                one.destination = vec![net("10.0.0.1/32")];
                one.source_type = SourceType::SameIpOrLoopback;
            }),
        ];
        let mut facts = facts(None, "", &[]);
        assert_eq!(find(chains.iter(), &facts), Some(1), "external source");
        facts.remote = "127.0.0.1:1".parse().unwrap();
        assert_eq!(find(chains.iter(), &facts), Some(2), "loopback source");
    }
}
