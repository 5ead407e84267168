//! Where a workload runs: region, zone and subzone.

use std::fmt;

/// A place; empty parts mean "not known".
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locality {
    pub region: String,
    pub zone: String,
    pub subzone: String,
}

impl Locality {
    /// Reads Istio's `region/zone/subzone`; missing parts stay empty.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        Self {
            region: parts.next().unwrap_or_default(),
            zone: parts.next().unwrap_or_default(),
            subzone: parts.next().unwrap_or_default(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.region.is_empty() && self.zone.is_empty() && self.subzone.is_empty()
    }

    /// Whether this place lies inside `rule`, whose parts may be missing or `*`.
    pub fn is_within(&self, rule: &str) -> bool {
        let parts = [&self.region, &self.zone, &self.subzone];
        rule.split('/')
            .zip(parts)
            .all(|(want, have)| want == "*" || want.is_empty() || want == have)
    }

    /// Priority of `other` seen from here: 0 same subzone .. 3 another region.
    pub fn distance(&self, other: &Self) -> u32 {
        if self.region != other.region {
            return 3;
        }
        if self.zone != other.zone {
            return 2;
        }
        u32::from(self.subzone != other.subzone)
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.region)?;
        if !self.zone.is_empty() || !self.subzone.is_empty() {
            write!(f, "/{}", self.zone)?;
        }
        if !self.subzone.is_empty() {
            write!(f, "/{}", self.subzone)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_match_by_part() {
        let here = Locality::parse("us/east/rack1");
        for (rule, want, why) in [
            ("us", true, "a region covers its zones"),
            ("us/*", true, "a star covers any zone"),
            ("us/west/*", false, "another zone"),
            ("us/east/rack1", true, "exact"),
            ("*", true, "everything"),
        ] {
            assert_eq!(here.is_within(rule), want, "{why}");
        }
        assert_eq!(here.distance(&Locality::parse("us/east/rack2")), 1);
        assert_eq!(here.distance(&Locality::parse("eu")), 3);
        assert_eq!(here.to_string(), "us/east/rack1");
    }
}
