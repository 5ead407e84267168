//! Verifiers for rustls from Envoy's validation contexts: chain to the roots, then names and
//! hashes.
use std::sync::Arc;

use base64::Engine;
use pki::verify::{Expected, MeshClientVerifier, MeshServerVerifier};
use pki::{Certificate, TrustBundle};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::TlsError;
use super::build::{invalid, text};
use crate::parse::tls::{SanKind, Validation};

const SYSTEM_ROOTS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Names and hashes that a verified certificate must have.
#[derive(Debug)]
struct Demands(Arc<Validation>);

impl Demands {
    fn check(&self, der: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let wanted = &self.0;
        let application =
            rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        if !wanted.certificate_hashes.is_empty() || !wanted.public_key_hashes.is_empty() {
            let mut good = wanted.certificate_hashes.contains(&sha256_hex(der));
            good |=
                public_key_hash(der).is_some_and(|hash| wanted.public_key_hashes.contains(&hash));
            if !good {
                return Err(application);
            }
        }
        if wanted.match_sans.is_empty() {
            return Ok(());
        }
        let certificate = Certificate::parse(der)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let matched = wanted.match_sans.iter().any(|one| {
            let any = |names: &[String]| {
                names
                    .iter()
                    .any(|name| one.matcher.matches(name.as_bytes()))
            };
            match one.kind {
                SanKind::Uri => any(&certificate.uri_sans),
                SanKind::Dns => any(&certificate.dns_sans),
                SanKind::IpAddress => certificate
                    .ip_sans
                    .iter()
                    .any(|ip| one.matcher.matches(ip.to_string().as_bytes())),
                // Not read from certificates: matches nothing rather than anything.
                SanKind::Email => false,
            }
        });
        if matched {
            Ok(())
        } else {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName,
            ))
        }
    }
}

pub fn sha256_hex(der: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn public_key_hash(der: &[u8]) -> Option<String> {
    use x509_parser::prelude::FromDer;
    let (_, certificate) = x509_parser::prelude::X509Certificate::from_der(der).ok()?;
    let digest =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate.public_key().raw);
    Some(base64::engine::general_purpose::STANDARD.encode(digest))
}

/// Roots of a validation context; `None` where it names none.
fn roots(validation: &Validation) -> Result<Option<TrustBundle>, TlsError> {
    let mut pem = String::new();
    if let Some(source) = &validation.trusted_ca {
        pem.push_str(&text(source, "trusted_ca")?);
    } else if validation.system_roots {
        let found = SYSTEM_ROOTS
            .iter()
            .find_map(|path| std::fs::read_to_string(path).ok());
        pem = found.ok_or_else(|| invalid("system_root_certs: no root certificates found"))?;
    } else {
        return Ok(None);
    }
    TrustBundle::from_pem(&pem)
        .map(Some)
        .map_err(|error| invalid(format!("trusted_ca: {error}")))
}

fn refuse_unsupported(validation: &Validation) -> Result<(), TlsError> {
    let refused = [
        ("crl", validation.crl.is_some()),
        ("allow_expired_certificate", validation.allow_expired),
    ];
    match refused.iter().find(|(_, set)| *set) {
        Some((field, _)) => Err(invalid(format!(
            "validation_context.{field}: is not supported"
        ))),
        None => Ok(()),
    }
}

/// For servers. Without roots and hashes any certificate is taken and none is verified.
pub fn client_verifier(
    validation: Option<Arc<Validation>>,
    required: bool,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let validation = validation.unwrap_or_default();
    refuse_unsupported(&validation)?;
    let chain = match roots(&validation)? {
        None if !required && validation.certificate_hashes.is_empty() => return Ok(None),
        None => None,
        Some(roots) if required => Some(MeshClientVerifier::required(roots, Expected::Any)),
        Some(roots) => Some(MeshClientVerifier::optional(roots, Expected::Any)),
    };
    Ok(Some(Arc::new(ClientVerifier {
        chain,
        lenient: validation.accept_untrusted,
        demands: Demands(validation),
        required,
        algorithms: pki::provider().signature_verification_algorithms,
    })))
}

/// For clients. Without roots and hashes nothing is verified, as in Envoy.
pub fn server_verifier(
    validation: Option<Arc<Validation>>,
    name_must_match: bool,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let validation = validation.unwrap_or_default();
    refuse_unsupported(&validation)?;
    let expected = if name_must_match {
        Expected::ServerName
    } else {
        Expected::Any
    };
    Ok(Arc::new(ServerVerifier {
        chain: roots(&validation)?.map(|roots| MeshServerVerifier::new(roots, expected)),
        lenient: validation.accept_untrusted,
        demands: Demands(validation),
        algorithms: pki::provider().signature_verification_algorithms,
    }))
}

#[derive(Debug)]
struct ClientVerifier {
    chain: Option<Arc<MeshClientVerifier>>,
    demands: Demands,
    required: bool,
    lenient: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
struct ServerVerifier {
    chain: Option<Arc<MeshServerVerifier>>,
    demands: Demands,
    lenient: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

macro_rules! signatures {
    () => {
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
    };
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verify = || {
            if let Some(chain) = &self.chain {
                chain.verify_client_cert(leaf, intermediates, now)?;
            }
            self.demands.check(leaf)
        };
        match verify() {
            Err(error) if !self.lenient => Err(error),
            _ => Ok(ClientCertVerified::assertion()),
        }
    }

    signatures!();
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verify = || {
            if let Some(chain) = &self.chain {
                chain.verify_server_cert(leaf, intermediates, server_name, ocsp_response, now)?;
            }
            self.demands.check(leaf)
        };
        match verify() {
            Err(error) if !self.lenient => Err(error),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    signatures!();
}
