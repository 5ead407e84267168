//! Istio's names of clusters and of the SNI that carries them (istio.md 2.2).

use std::fmt;

pub const PASSTHROUGH: &str = "PassthroughCluster";
pub const BLACK_HOLE: &str = "BlackHoleCluster";
pub const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";

/// A cluster towards one subset of one port of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outbound {
    pub port: u16,
    pub subset: String,
    pub hostname: String,
}

impl Outbound {
    pub fn new(port: u16, subset: impl Into<String>, hostname: impl Into<String>) -> Self {
        Self {
            port,
            subset: subset.into(),
            hostname: hostname.into(),
        }
    }

    /// Reads `outbound|PORT|SUBSET|HOST`.
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.splitn(4, '|');
        if parts.next() != Some("outbound") {
            return None;
        }
        let port = parts.next()?.parse().ok()?;
        Some(Self::new(port, parts.next()?, parts.next()?))
    }

    /// The SNI of mutual TLS, and the name in SNI routing.
    pub fn sni(&self) -> String {
        format!(
            "outbound_.{}_.{}_.{}",
            self.port, self.subset, self.hostname
        )
    }
}

impl fmt::Display for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "outbound|{}|{}|{}",
            self.port, self.subset, self.hostname
        )
    }
}

/// The cluster of the application behind this sidecar.
pub fn inbound(port: u16) -> String {
    format!("inbound|{port}||")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        let name = Outbound::new(9080, "v1", "reviews.default.svc.cluster.local");
        assert_eq!(
            name.to_string(),
            "outbound|9080|v1|reviews.default.svc.cluster.local"
        );
        assert_eq!(Outbound::parse(&name.to_string()), Some(name.clone()));
        assert_eq!(
            name.sni(),
            "outbound_.9080_.v1_.reviews.default.svc.cluster.local"
        );
        assert_eq!(Outbound::parse("inbound|80||"), None);
    }
}
