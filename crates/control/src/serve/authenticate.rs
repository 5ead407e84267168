//! Who calls: a client certificate of the mesh, or the token of a pod in the registry.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use http::HeaderMap;
use pki::{SpiffeId, TrustDomain};

use super::connection::Peer;
use crate::registry::local::PodEntry;

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// What it may act as, and nothing else.
    pub id: SpiffeId,
    /// The pod, where a token names one.
    pub pod: Option<String>,
}

/// Why a caller is not known. The text is for our log: callers learn nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticateError {
    #[error("neither a client certificate nor a bearer token")]
    Nothing,
    #[error("the bearer token is of no pod that runs")]
    Token,
    #[error("the client certificate names no workload of this mesh")]
    Certificate,
    #[error("the pod's identity is not usable: {0}")]
    Identity(String),
}

/// The tokens of all pods, as SHA-256: what is here cannot be used to log in.
#[derive(Debug, Clone, Default)]
pub struct Tokens(Arc<RwLock<HashMap<String, Holder>>>);

#[derive(Debug, Clone)]
struct Holder {
    namespace: String,
    service_account: String,
    pod: String,
}

impl Tokens {
    /// Exactly these pods may log in from now on.
    pub fn replace<'a>(&self, pods: impl Iterator<Item = &'a PodEntry>) {
        let tokens = pods.filter(|pod| pod.token_sha256.len() == 64).map(|pod| {
            let holder = Holder {
                namespace: pod.namespace.clone(),
                service_account: pod.service_account.clone(),
                pod: pod.name.clone(),
            };
            (pod.token_sha256.to_ascii_lowercase(), holder)
        });
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = tokens.collect();
    }

    /// Looked up by hash: comparing takes the same time whatever the token is.
    fn holder(&self, token: &str) -> Option<Holder> {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
        let hex: String = digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&hex)
            .cloned()
    }
}

/// Tells callers apart.
#[derive(Debug, Clone)]
pub struct Authenticator {
    pub tokens: Tokens,
    pub trust_domain: TrustDomain,
}

impl Authenticator {
    /// The first way that the caller offers decides; a bad one is not made good by another.
    pub fn caller(&self, peer: &Peer, headers: &HeaderMap) -> Result<Caller, AuthenticateError> {
        if peer.has_certificate {
            let id = peer
                .id
                .clone()
                .filter(|id| id.trust_domain == self.trust_domain);
            let id = id.ok_or(AuthenticateError::Certificate)?;
            return Ok(Caller { id, pod: None });
        }
        let token = bearer(headers).ok_or(AuthenticateError::Nothing)?;
        let holder = self.tokens.holder(token).ok_or(AuthenticateError::Token)?;
        let Holder {
            namespace,
            service_account,
            pod,
        } = holder;
        let id = SpiffeId::new(self.trust_domain.clone(), &namespace, &service_account)
            .map_err(|error| AuthenticateError::Identity(error.to_string()))?;
        Ok(Caller { id, pod: Some(pod) })
    }
}

/// The token of `authorization: Bearer …` (or Istio's old prefix).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let token = value
        .strip_prefix("Bearer ")
        .or_else(|| value.strip_prefix("Istio "))?
        .trim();
    (!token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256_OF_SECRET: &str =
        "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    fn peer(id: Option<&str>, has_certificate: bool) -> Peer {
        let id = id.map(|id| id.parse().expect("an id"));
        Peer {
            address: ([127, 0, 0, 1], 1).into(),
            has_certificate,
            id,
        }
    }

    #[test]
    fn callers() {
        let tokens = Tokens::default();
        let pod = PodEntry {
            namespace: "default".into(),
            service_account: "reviews".into(),
            name: "reviews-1".into(),
            token_sha256: SHA256_OF_SECRET.to_uppercase(),
            ..PodEntry::default()
        };
        let without_token = PodEntry {
            token_sha256: String::new(),
            ..pod.clone()
        };
        tokens.replace([pod, without_token].iter());
        let trust_domain = TrustDomain::new("td").expect("a domain");
        let authenticator = Authenticator {
            tokens: tokens.clone(),
            trust_domain,
        };
        let mine = "spiffe://td/ns/default/sa/reviews";
        let cases = [
            (
                peer(None, false),
                Some("Bearer secret"),
                Ok(mine),
                "a token",
            ),
            (
                peer(None, false),
                Some("Istio secret"),
                Ok(mine),
                "the old prefix",
            ),
            (
                peer(None, false),
                Some("Bearer wrong"),
                Err(AuthenticateError::Token),
                "another",
            ),
            (
                peer(None, false),
                Some("Bearer "),
                Err(AuthenticateError::Nothing),
                "empty",
            ),
            (
                peer(None, false),
                Some("secret"),
                Err(AuthenticateError::Nothing),
                "no scheme",
            ),
            (
                peer(None, false),
                None,
                Err(AuthenticateError::Nothing),
                "nothing",
            ),
            (peer(Some(mine), true), None, Ok(mine), "a certificate"),
            (
                peer(Some("spiffe://other/ns/default/sa/reviews"), true),
                Some("Bearer secret"),
                Err(AuthenticateError::Certificate),
                "a foreign trust domain is not healed by a token",
            ),
            (
                peer(None, true),
                None,
                Err(AuthenticateError::Certificate),
                "without an id",
            ),
        ];
        for (peer, header, want, why) in cases {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert("authorization", header.parse().expect("a value"));
            }
            let got = authenticator
                .caller(&peer, &headers)
                .map(|caller| caller.id.to_string());
            assert_eq!(got, want.map(str::to_owned), "{why}");
        }
        tokens.replace([].iter());
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer secret".parse().expect("a value"));
        let got = authenticator.caller(&peer(None, false), &headers);
        assert_eq!(got, Err(AuthenticateError::Token), "the pod is gone");
    }
}
