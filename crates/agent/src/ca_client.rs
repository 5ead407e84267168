//! Asks the authority for a certificate: a CSR in, a chain and roots out, all of it checked.

use std::sync::Arc;
use std::time::Duration;

use envoy_api::istio::{IstioCertificateRequest, IstioCertificateResponse};
use jiff::Timestamp;
use pki::key::Secret;
use pki::tls::Identity;
use pki::{Certificate, Key, PkiError, SpiffeId, csr, pem};
use xds::grpc::Status;
use xds::grpc::transport::Connection;

use crate::control_plane::{ControlPlane, Credential};

const METHOD: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A certificate of this pod, as it was issued.
#[derive(Debug)]
pub struct Issued {
    pub identity: Arc<Identity>,
    /// The whole chain as Envoy wants it.
    pub chain_pem: String,
    pub key_pem: Secret,
    pub roots_pem: String,
    pub leaf: Certificate,
}

#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The authority did not answer, or answered no.
    #[error("{0}")]
    Call(#[from] Status),
    /// Something here (key, CSR) failed.
    #[error("{0}")]
    Own(#[from] PkiError),
    /// The authority's answer is not what was asked for.
    #[error("the authority's answer: {0}")]
    Answer(String),
}

/// Makes a new key and has it certified. The key leaves this function only inside `Issued`.
pub async fn issue(
    authority: &ControlPlane,
    id: &SpiffeId,
    ttl: Duration,
    current: Option<&Issued>,
) -> Result<Issued, IssueError> {
    let key = Key::generate()?;
    let request = IstioCertificateRequest {
        csr: csr::create(&key, id)?,
        validity_duration: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX),
        metadata: Some(signer_metadata()),
    };
    // Without a token (a virtual machine after its first certificate) the old one vouches.
    let credential = match current {
        Some(issued) if !authority.has_token() => Credential::Certificate(&issued.identity),
        _ => Credential::Token,
    };
    let call = async {
        let target = authority.target(credential).await?;
        let mut connection = Connection::connect(&target).await?;
        connection
            .unary::<_, IstioCertificateResponse>(METHOD, &request)
            .await
    };
    let response = tokio::time::timeout(CALL_TIMEOUT, call)
        .await
        .map_err(|_| Status::unavailable("no answer within 10 s"))??;
    accept(key, id, response, Timestamp::now())
}

/// Istio's agents always send the key, usually with an empty value.
fn signer_metadata() -> prost_types::Struct {
    let kind = Some(prost_types::value::Kind::StringValue(String::new()));
    let fields = [("CertSigner".to_string(), prost_types::Value { kind })];
    prost_types::Struct {
        fields: fields.into(),
    }
}

fn accept(
    key: Key,
    id: &SpiffeId,
    response: IstioCertificateResponse,
    now: Timestamp,
) -> Result<Issued, IssueError> {
    let wrong = |text: &str| IssueError::Answer(text.to_string());
    let Some((roots_pem, chain)) = response.cert_chain.split_last() else {
        return Err(wrong("is empty"));
    };
    if chain.is_empty() {
        return Err(wrong("has no certificate beside the roots"));
    }
    let chain_pem = chain.concat();
    let leaf = Certificate::parse_pem(&chain_pem)?;
    if leaf.spiffe_id().as_ref() != Some(id) {
        return Err(wrong(&format!("is for {:?}, not for {id}", leaf.uri_sans)));
    }
    if leaf.not_after <= now {
        return Err(wrong("has expired"));
    }
    pem::certificates(roots_pem)?;
    let key_pem = key.to_pem();
    let identity = Identity {
        chain: pem::certificates(&chain_pem)?,
        key,
    };
    // Fails if the certificate is for another key.
    identity.certified_key()?;
    Ok(Issued {
        identity: Arc::new(identity),
        chain_pem,
        key_pem,
        roots_pem: roots_pem.clone(),
        leaf,
    })
}

#[cfg(test)]
mod tests {
    use pki::{Authority, TrustDomain};

    use super::*;

    #[test]
    fn answers_are_checked() {
        let now = Timestamp::now();
        let authority = Authority::create(&TrustDomain::new("td").unwrap(), now).unwrap();
        let id: SpiffeId = "spiffe://td/ns/a/sa/b".parse().unwrap();
        let other: SpiffeId = "spiffe://td/ns/a/sa/c".parse().unwrap();
        let key = || Key::generate().unwrap();
        let sign = |key: &Key, id: &SpiffeId| {
            let request = csr::create(key, id).unwrap();
            authority
                .sign(&request, std::slice::from_ref(id), Duration::ZERO, now)
                .unwrap()
        };
        let own = key();
        let good = sign(&own, &id);
        let pem = own.to_pem();
        let same_key = || Key::from_pem(pem.expose()).unwrap();
        let later = now + Duration::from_secs(48 * 3600);
        for (cert_chain, at, want, why) in [
            (good.clone(), now, None, "a good answer"),
            (vec![], now, Some("is empty"), "nothing"),
            (
                good[..1].to_vec(),
                now,
                Some("no certificate beside"),
                "no roots",
            ),
            (
                sign(&own, &other),
                now,
                Some("not for spiffe://td/ns/a/sa/b"),
                "another's identity",
            ),
            (sign(&key(), &id), now, Some("KeyMismatch"), "another key"),
            (good.clone(), later, Some("expired"), "too old"),
            (
                vec![good[0].clone(), "x".into()],
                now,
                Some("PEM"),
                "roots that are none",
            ),
        ] {
            let got = accept(same_key(), &id, IstioCertificateResponse { cert_chain }, at);
            match (got, want) {
                (Ok(issued), None) => assert_eq!(issued.leaf.spiffe_id(), Some(id.clone())),
                (Err(error), Some(want)) => {
                    let text = error.to_string().to_lowercase();
                    assert!(text.contains(&want.to_lowercase()), "{why}: {text}");
                }
                (got, _) => panic!("{why}: {got:?}"),
            }
        }
    }
}
