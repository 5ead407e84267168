//! The servers and search domains of a resolv.conf.

use std::net::{IpAddr, SocketAddr};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    pub servers: Vec<SocketAddr>,
    /// Lower case, without dots at the ends.
    pub search: Vec<String>,
}

impl ResolvConf {
    /// What cannot be read is passed over, as libc does.
    pub fn parse(text: &str) -> ResolvConf {
        let mut parsed = ResolvConf::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    parsed
                        .servers
                        .extend(address.map(|address| SocketAddr::new(address, 53)));
                }
                // The last of these lines counts.
                Some("search" | "domain") => {
                    let clean = |word: &str| word.trim_matches('.').to_lowercase();
                    parsed.search = words.map(clean).filter(|word| !word.is_empty()).collect();
                }
                _ => {}
            }
        }
        parsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let text = "# nameserver 9.9.9.9\nnameserver 10.0.0.10\nnameserver nonsense\n\
                    nameserver fd00::1\nsearch old\n\
                    search NS.svc.cluster.local. svc.cluster.local\noptions ndots:5\n";
        let conf = ResolvConf::parse(text);
        assert_eq!(
            conf.servers,
            ["10.0.0.10:53", "[fd00::1]:53"].map(|a| a.parse().unwrap())
        );
        assert_eq!(conf.search, ["ns.svc.cluster.local", "svc.cluster.local"]);
    }
}
