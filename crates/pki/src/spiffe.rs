//! A workload's identity: `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`.

use std::fmt;
use std::str::FromStr;

use crate::{PkiError, TrustDomain};

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    pub trust_domain: TrustDomain,
    namespace: String,
    service_account: String,
}

impl SpiffeId {
    pub fn new(
        trust_domain: TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<SpiffeId, PkiError> {
        for segment in [namespace, service_account] {
            check_segment(segment).map_err(|reason| PkiError::SpiffeId {
                text: segment.chars().take(300).collect(),
                reason,
            })?;
        }
        Ok(SpiffeId {
            trust_domain,
            namespace: namespace.to_string(),
            service_account: service_account.to_string(),
        })
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn service_account(&self) -> &str {
        &self.service_account
    }
}

/// SPIFFE's rule for one path segment.
fn check_segment(segment: &str) -> Result<(), &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if segment.is_empty() {
        return Err("a part of the path is empty");
    }
    if segment.len() > 253 {
        return Err("a part of the path is longer than 253 bytes");
    }
    if segment == "." || segment == ".." || !segment.bytes().all(allowed) {
        return Err("a part of the path may hold only letters, digits, '.', '-' and '_'");
    }
    Ok(())
}

impl FromStr for SpiffeId {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<SpiffeId, PkiError> {
        let error = |reason| PkiError::SpiffeId {
            text: text.chars().take(300).collect(),
            reason,
        };
        let rest = text
            .strip_prefix("spiffe://")
            .ok_or(error("does not start with spiffe://"))?;
        let parts: Vec<&str> = rest.splitn(6, '/').collect();
        let [domain, "ns", namespace, "sa", service_account] = parts[..] else {
            return Err(error(
                "is not spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT",
            ));
        };
        SpiffeId::new(domain.parse()?, namespace, service_account)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SpiffeId {
            trust_domain,
            namespace,
            service_account,
        } = self;
        write!(
            formatter,
            "spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}"
        )
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsing_is_strict() {
        for (input, valid, why) in [
            (
                "spiffe://cluster.local/ns/default/sa/bookinfo-reviews",
                true,
                "the usual form",
            ),
            ("spiffe://td/ns/a.b_c/sa/D", true, "all allowed characters"),
            ("spiffe://td/ns/a/sa/b/", false, "a trailing slash"),
            ("spiffe://td/ns/a/sa/b/c", false, "a sixth part"),
            ("spiffe://td/ns/a/sa/", false, "no service account"),
            ("spiffe://td/ns//sa/b", false, "no namespace"),
            ("spiffe:///ns/a/sa/b", false, "no trust domain"),
            ("spiffe://TD/ns/a/sa/b", false, "a trust domain in capitals"),
            ("SPIFFE://td/ns/a/sa/b", false, "the scheme in capitals"),
            ("spiffe://td/sa/a/ns/b", false, "parts in the wrong order"),
            ("spiffe://td:1/ns/a/sa/b", false, "a port"),
            ("spiffe://u@td/ns/a/sa/b", false, "a user"),
            ("spiffe://td/ns/a/sa/b?x", false, "a query"),
            ("spiffe://td/ns/a/sa/b#x", false, "a fragment"),
            ("spiffe://td/ns/a/sa/%62", false, "percent encoding"),
            ("spiffe://td/ns/../sa/b", false, "a dot segment"),
            ("spiffe://td/ns/a/sa/b\n", false, "a line end"),
            ("spiffe://td/ns/a/sa/b\0", false, "a null byte"),
            ("", false, "nothing"),
        ] {
            let got = input.parse::<SpiffeId>();
            assert_eq!(got.is_ok(), valid, "{why}: {got:?}");
            if let Ok(id) = got {
                assert_eq!(id.to_string(), input, "{why}: and back");
            }
        }
    }

    #[test]
    fn trust_domains() {
        assert_eq!(TrustDomain::sanitized("a@b.c").unwrap().as_str(), "a.b.c");
        for bad in ["", "A", "a/b", "a b", "ä", &"a".repeat(256)] {
            assert!(TrustDomain::new(bad).is_err(), "{bad:?}");
        }
    }
}
