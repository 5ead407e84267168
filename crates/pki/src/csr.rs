//! Certificate requests: made by agents, checked by the authority.
//! Of a request only the public key is ever used; its names and extensions are claims.

use rcgen::{CertificateParams, DistinguishedName, SanType, SubjectPublicKeyInfo};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::{Key, PkiError, SpiffeId, pem, signature};

/// A request for a certificate with this identity, as PEM.
pub fn create(key: &Key, id: &SpiffeId) -> Result<String, PkiError> {
    let error = |error: rcgen::Error| PkiError::Request(error.to_string());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.to_string().try_into().map_err(error)?)];
    let request = params.serialize_request(&key.pair).map_err(error)?;
    Ok(pem::encode("CERTIFICATE REQUEST", request.der()))
}

/// The public key of a request whose own signature is right (the sender has the private key).
pub(crate) fn public_key(csr_pem: &str) -> Result<SubjectPublicKeyInfo, PkiError> {
    let der = pem::certificate_request(csr_pem)?;
    let (rest, request) = X509CertificationRequest::from_der(&der)
        .map_err(|error| PkiError::Request(error.to_string()))?;
    if !rest.is_empty() || request.signature_value.unused_bits != 0 {
        return Err(PkiError::Request("bytes after its end".to_string()));
    }
    let content = &request.certification_request_info;
    signature::verify(
        &content.subject_pki,
        &request.signature_algorithm,
        content.raw,
        &request.signature_value.data,
    )
    .map_err(PkiError::Request)?;
    SubjectPublicKeyInfo::from_der(content.subject_pki.raw)
        .map_err(|error| PkiError::Request(format!("public key: {error}")))
}

#[cfg(test)]
mod tests {
    use rcgen::PublicKeyData;

    use super::*;
    use crate::key::Algorithm;

    #[test]
    fn the_key_of_a_good_request_is_taken() {
        let id: SpiffeId = "spiffe://td/ns/a/sa/b".parse().unwrap();
        for algorithm in [
            Algorithm::EcdsaP256,
            Algorithm::EcdsaP384,
            Algorithm::Rsa2048,
        ] {
            let key = Key::generate_for(algorithm).unwrap();
            let request = create(&key, &id).unwrap();
            let got = public_key(&request).unwrap();
            assert_eq!(
                got.subject_public_key_info(),
                key.public_key_info(),
                "{algorithm:?}"
            );
        }
    }

    #[test]
    fn hostile_requests() {
        let id: SpiffeId = "spiffe://td/ns/a/sa/b".parse().unwrap();
        let good = create(&Key::generate().unwrap(), &id).unwrap();
        let der = pem::certificate_request(&good).unwrap().to_vec();
        let want = public_key(&good).unwrap();
        // Each single changed byte: another meaning, a broken signature, or no ASN.1.
        for position in 0..der.len() {
            let mut der = der.clone();
            der[position] ^= 0x41;
            let text = pem::encode("CERTIFICATE REQUEST", &der);
            // What surrounds the signed part has bytes that mean nothing; the key never changes.
            if let Ok(key) = public_key(&text) {
                assert_eq!(key, want, "byte {position} changed");
            }
        }
        for length in 0..der.len() {
            let text = pem::encode("CERTIFICATE REQUEST", &der[..length]);
            assert!(public_key(&text).is_err(), "cut at {length}");
        }
        let mut longer = der.clone();
        longer.push(0);
        for (input, why) in [
            (String::new(), "nothing"),
            (
                pem::encode("CERTIFICATE REQUEST", &longer),
                "bytes after the end",
            ),
            (pem::encode("CERTIFICATE", &der), "another label"),
            ("x".repeat(65 << 10), "too long"),
            (
                pem::encode("CERTIFICATE REQUEST", &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
                "a huge length",
            ),
            (
                pem::encode("CERTIFICATE REQUEST", &[0x30, 0x80].repeat(20_000)),
                "deep nesting",
            ),
        ] {
            assert!(public_key(&input).is_err(), "{why}");
        }
    }
}
