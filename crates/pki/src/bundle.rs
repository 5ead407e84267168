//! Trust anchors: one set for all, and sets of their own for other trust domains.

use std::collections::BTreeMap;

use rustls_pki_types::{CertificateDer, TrustAnchor};

use crate::{PkiError, TrustDomain, pem};

/// The roots that a verifier accepts. A peer whose id is of a domain listed here must chain to
/// that domain's roots; every other peer to the default ones.
#[derive(Clone, Debug, Default)]
pub struct TrustBundle {
    default: Vec<TrustAnchor<'static>>,
    by_trust_domain: BTreeMap<TrustDomain, Vec<TrustAnchor<'static>>>,
}

impl TrustBundle {
    pub fn from_pem(text: &str) -> Result<TrustBundle, PkiError> {
        Ok(TrustBundle {
            default: anchors(text)?,
            by_trust_domain: BTreeMap::new(),
        })
    }

    pub fn with_trust_domain(mut self, domain: TrustDomain, text: &str) -> Result<Self, PkiError> {
        self.by_trust_domain.insert(domain, anchors(text)?);
        Ok(self)
    }

    /// The roots for a peer of this domain (or without a recognised one).
    pub fn anchors(&self, domain: Option<&TrustDomain>) -> &[TrustAnchor<'static>] {
        domain
            .and_then(|domain| self.by_trust_domain.get(domain))
            .unwrap_or(&self.default)
    }

    pub fn is_empty(&self) -> bool {
        self.default.is_empty() && self.by_trust_domain.is_empty()
    }
}

fn anchors(text: &str) -> Result<Vec<TrustAnchor<'static>>, PkiError> {
    let mut anchors = Vec::new();
    for certificate in pem::certificates(text)? {
        let anchor = anchor(&certificate)?;
        // The same root twice (an old and a new bundle joined) is one root.
        if !anchors.contains(&anchor) {
            anchors.push(anchor);
        }
    }
    Ok(anchors)
}

fn anchor(certificate: &CertificateDer<'_>) -> Result<TrustAnchor<'static>, PkiError> {
    webpki::anchor_from_trusted_cert(certificate)
        .map(|anchor| anchor.to_owned())
        .map_err(|error| PkiError::Certificate(format!("as a trust anchor: {error}")))
}
