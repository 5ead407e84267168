//! PEM in and out: bounded, and strict about what a text may hold.

use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};

use crate::PkiError;

/// Longest text that is read as PEM; a bundle of several hundred certificates fits.
pub const MAX_BYTES: usize = 1 << 20;
/// Most certificates in one text.
pub const MAX_CERTIFICATES: usize = 1_000;

/// All certificates of a text, at least one; other sections (keys, comments) are passed over.
pub fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    check_size(text)?;
    let mut certificates = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        let (kind, der) = section.map_err(|error| PkiError::Pem(error.to_string()))?;
        if kind == SectionKind::Certificate {
            certificates.push(CertificateDer::from(der));
        }
        if certificates.len() > MAX_CERTIFICATES {
            return Err(PkiError::Pem(format!(
                "more than {MAX_CERTIFICATES} certificates"
            )));
        }
    }
    if certificates.is_empty() {
        return Err(PkiError::Pem("no CERTIFICATE section".to_string()));
    }
    Ok(certificates)
}

/// The one private key of a text.
pub fn private_key(text: &str) -> Result<PrivateKeyDer<'static>, PkiError> {
    check_size(text)?;
    if text.contains("ENCRYPTED") {
        return Err(PkiError::Key(
            "is encrypted; only plain keys can be read".to_string(),
        ));
    }
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| PkiError::Key(error.to_string()))
}

pub fn certificate_request(text: &str) -> Result<CertificateSigningRequestDer<'static>, PkiError> {
    if text.len() > 64 << 10 {
        return Err(PkiError::Request("is longer than 64 KiB".to_string()));
    }
    CertificateSigningRequestDer::from_pem_slice(text.as_bytes())
        .map_err(|error| PkiError::Request(error.to_string()))
}

/// One certificate as PEM, with a line end at its end.
pub fn encode_certificate(der: &[u8]) -> String {
    encode("CERTIFICATE", der)
}

pub fn encode_certificates<'a>(
    certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>,
) -> String {
    certificates
        .into_iter()
        .map(|certificate| encode_certificate(certificate))
        .collect()
}

pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    let base64 = base64(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in base64.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .fold(0u32, |group, byte| group << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for index in 0..4 {
            let digit = group >> (18 - 6 * index) & 0x3f;
            let character = if index <= chunk.len() {
                ALPHABET[digit as usize]
            } else {
                b'='
            };
            text.push(char::from(character));
        }
    }
    text
}

fn check_size(text: &str) -> Result<(), PkiError> {
    if text.len() > MAX_BYTES {
        return Err(PkiError::Pem(format!("longer than {MAX_BYTES} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_texts() {
        let begin = "-----BEGIN CERTIFICATE-----\n";
        let end = "-----END CERTIFICATE-----\n";
        for (input, why) in [
            (String::new(), "nothing"),
            ("hello".to_string(), "no section"),
            (begin.to_string(), "no end"),
            (format!("{begin}!!!!\n{end}"), "not base64"),
            (
                format!("{begin}AA==\n-----END PRIVATE KEY-----\n"),
                "another end",
            ),
            (
                format!("{begin}AA==\n{end}").repeat(MAX_CERTIFICATES + 1),
                "too many",
            ),
            (" ".repeat(MAX_BYTES + 1), "too long"),
        ] {
            assert!(certificates(&input).is_err(), "{why}");
        }
    }

    #[test]
    fn encoding_is_read_back() {
        for length in 0..100u8 {
            let der: Vec<u8> = (0..length).collect();
            let text = encode_certificate(&der);
            assert_eq!(
                certificates(&text).unwrap()[0].as_ref(),
                der,
                "{length} bytes"
            );
        }
    }
}
