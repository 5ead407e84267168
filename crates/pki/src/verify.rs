//! Certificate verifiers for rustls that check identities instead of host names.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::{Certificate, SpiffeId, TrustBundle, provider};

/// Which of the names in a verified certificate make it the right peer.
#[derive(Clone)]
pub enum Expected {
    /// Any certificate that chains to the roots.
    Any,
    /// The DNS name or address that TLS was started for.
    ServerName,
    /// At least one of these.
    Names(Vec<NameMatch>),
    /// Whatever the function says (string matchers of other sorts).
    Check(Arc<dyn Fn(&Certificate) -> bool + Send + Sync>),
}

/// Compared with the URI names and the DNS names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameMatch {
    Exact(String),
    /// `spiffe://td/` for any identity of a trust domain.
    Prefix(String),
}

/// For clients: is this the server that I want?
#[derive(Debug)]
pub struct MeshServerVerifier {
    roots: TrustBundle,
    expected: Expected,
    algorithms: WebPkiSupportedAlgorithms,
}

/// For servers: who is this client?
#[derive(Debug)]
pub struct MeshClientVerifier {
    roots: TrustBundle,
    expected: Expected,
    is_required: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the peer's certificate has none of the expected names; it has {0}")]
    Name(String),
    #[error("{0}")]
    Certificate(String),
}

impl MeshServerVerifier {
    pub fn new(roots: TrustBundle, expected: Expected) -> Arc<MeshServerVerifier> {
        let algorithms = provider().signature_verification_algorithms;
        Arc::new(MeshServerVerifier {
            roots,
            expected,
            algorithms,
        })
    }
}

impl MeshClientVerifier {
    /// Clients must present a certificate.
    pub fn required(roots: TrustBundle, expected: Expected) -> Arc<MeshClientVerifier> {
        MeshClientVerifier::new(roots, expected, true)
    }

    /// Clients may come without a certificate; one that is presented must be good.
    pub fn optional(roots: TrustBundle, expected: Expected) -> Arc<MeshClientVerifier> {
        MeshClientVerifier::new(roots, expected, false)
    }

    fn new(roots: TrustBundle, expected: Expected, is_required: bool) -> Arc<MeshClientVerifier> {
        let algorithms = provider().signature_verification_algorithms;
        Arc::new(MeshClientVerifier {
            roots,
            expected,
            is_required,
            algorithms,
        })
    }
}

impl Expected {
    pub fn ids<'a>(ids: impl IntoIterator<Item = &'a SpiffeId>) -> Expected {
        Expected::Names(
            ids.into_iter()
                .map(|id| NameMatch::Exact(id.to_string()))
                .collect(),
        )
    }

    fn accepts(&self, certificate: &Certificate) -> bool {
        match self {
            // ServerName is checked by webpki, which knows wildcards.
            Expected::Any | Expected::ServerName => true,
            Expected::Names(names) => names.iter().any(|name| {
                let mut sans = certificate.uri_sans.iter().chain(&certificate.dns_sans);
                sans.any(|san| name.matches(san))
            }),
            Expected::Check(check) => check(certificate),
        }
    }
}

impl NameMatch {
    pub fn matches(&self, name: &str) -> bool {
        match self {
            NameMatch::Exact(want) => name == want,
            NameMatch::Prefix(prefix) => name.starts_with(prefix.as_str()),
        }
    }
}

impl fmt::Debug for Expected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Any => formatter.write_str("Any"),
            Expected::ServerName => formatter.write_str("ServerName"),
            Expected::Names(names) => formatter.debug_tuple("Names").field(names).finish(),
            Expected::Check(_) => formatter.write_str("Check(..)"),
        }
    }
}

impl ServerCertVerifier for MeshServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = Chain {
            end_entity,
            intermediates,
            now,
            usage: KeyUsage::server_auth(),
        };
        let leaf = chain.verify(&self.roots, &self.expected, &self.algorithms)?;
        if matches!(self.expected, Expected::ServerName) {
            leaf.verify_is_valid_for_subject_name(server_name)
                .map_err(refuse)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for MeshClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    /// No hints: Envoy and Istio's clients have one certificate and need none.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let chain = Chain {
            end_entity,
            intermediates,
            now,
            usage: KeyUsage::client_auth(),
        };
        chain.verify(&self.roots, &self.expected, &self.algorithms)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

struct Chain<'a> {
    end_entity: &'a CertificateDer<'a>,
    intermediates: &'a [CertificateDer<'a>],
    now: UnixTime,
    usage: KeyUsage,
}

impl<'a> Chain<'a> {
    fn verify(
        self,
        roots: &TrustBundle,
        expected: &Expected,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<EndEntityCert<'a>, rustls::Error> {
        let certificate = Certificate::parse(self.end_entity)
            .map_err(|error| other(Refused::Certificate(error.to_string())))?;
        let domain = certificate.spiffe_id().map(|id| id.trust_domain);
        let leaf = EndEntityCert::try_from(self.end_entity).map_err(refuse)?;
        leaf.verify_for_usage(
            algorithms.all,
            roots.anchors(domain.as_ref()),
            self.intermediates,
            self.now,
            self.usage,
            None,
            None,
        )
        .map_err(refuse)?;
        if !expected.accepts(&certificate) {
            let names = [certificate.uri_sans, certificate.dns_sans]
                .concat()
                .join(", ");
            return Err(other(Refused::Name(names)));
        }
        Ok(leaf)
    }
}

fn refuse(error: webpki::Error) -> rustls::Error {
    let reason = match error {
        webpki::Error::BadDer => CertificateError::BadEncoding,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        // A root of the same name with another key.
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        webpki::Error::CertNotValidForName(_) => CertificateError::NotValidForName,
        error => return other(error),
    };
    rustls::Error::InvalidCertificate(reason)
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

#[cfg(test)]
mod tests;
