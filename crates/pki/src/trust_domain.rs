//! The name of a trust domain, as the SPIFFE standard allows it.

use std::fmt;
use std::str::FromStr;

use crate::PkiError;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(String);

impl TrustDomain {
    pub fn new(text: &str) -> Result<TrustDomain, PkiError> {
        text.parse()
    }

    /// Istio's rule for domains taken from e-mail-shaped names: `@` becomes `.`.
    pub fn sanitized(text: &str) -> Result<TrustDomain, PkiError> {
        text.replace('@', ".").parse()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The prefix of every id in this domain.
    pub fn uri_prefix(&self) -> String {
        format!("spiffe://{}/", self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<TrustDomain, PkiError> {
        let allowed = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
        };
        let reason = if text.is_empty() {
            "is empty"
        } else if text.len() > 255 {
            "is longer than 255 bytes"
        } else if !text.bytes().all(allowed) {
            "may hold only a-z, 0-9, '.', '-' and '_'"
        } else {
            return Ok(TrustDomain(text.to_string()));
        };
        let text = text.chars().take(300).collect();
        Err(PkiError::TrustDomain { text, reason })
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}
