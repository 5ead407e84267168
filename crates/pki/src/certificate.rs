//! What a certificate says, read for status, logs, rotation and policy. Reading is not trusting:
//! see `verify`.

use std::net::IpAddr;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{PkiError, SpiffeId, pem};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Lower-case hexadecimal without separators.
    pub serial: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// RFC 4514 style; empty for workload certificates.
    pub subject: String,
    pub issuer: String,
    pub uri_sans: Vec<String>,
    pub dns_sans: Vec<String>,
    pub ip_sans: Vec<IpAddr>,
    pub is_ca: bool,
}

impl Certificate {
    pub fn parse(der: &[u8]) -> Result<Certificate, PkiError> {
        let certificate = parse_x509(der)?;
        let validity = certificate.validity();
        let time = |time: x509_parser::time::ASN1Time| {
            Timestamp::from_second(time.timestamp())
                .map_err(|error| PkiError::Certificate(error.to_string()))
        };
        let mut parsed = Certificate {
            serial: certificate
                .raw_serial()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            not_before: time(validity.not_before)?,
            not_after: time(validity.not_after)?,
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            uri_sans: Vec::new(),
            dns_sans: Vec::new(),
            ip_sans: Vec::new(),
            is_ca: certificate.is_ca(),
        };
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| PkiError::Certificate(error.to_string()))?;
        for name in names
            .iter()
            .flat_map(|extension| &extension.value.general_names)
        {
            match name {
                GeneralName::URI(uri) => parsed.uri_sans.push(uri.to_string()),
                GeneralName::DNSName(name) => parsed.dns_sans.push(name.to_string()),
                GeneralName::IPAddress(bytes) => parsed.ip_sans.extend(address(bytes)),
                _ => {}
            }
        }
        Ok(parsed)
    }

    /// The first certificate of a PEM text.
    pub fn parse_pem(text: &str) -> Result<Certificate, PkiError> {
        Certificate::parse(&pem::certificates(text)?[0])
    }

    /// The identity, if there is exactly one URI name and it is a workload's id.
    pub fn spiffe_id(&self) -> Option<SpiffeId> {
        match &self.uri_sans[..] {
            [uri] => uri.parse().ok(),
            _ => None,
        }
    }
}

/// The identity in a peer's certificate, which TLS has verified before.
pub fn peer_identity(chain: &[CertificateDer<'_>]) -> Option<SpiffeId> {
    Certificate::parse(chain.first()?).ok()?.spiffe_id()
}

pub(crate) fn parse_x509(der: &[u8]) -> Result<X509Certificate<'_>, PkiError> {
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|error| PkiError::Certificate(error.to_string()))?;
    if !rest.is_empty() {
        return Err(PkiError::Certificate("bytes after its end".to_string()));
    }
    Ok(certificate)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(four.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}
