//! Checks the signature of a request or certificate by its algorithm identifier.
//! For chains of a peer use `verify`; this is for what an operator or a workload hands us.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

/// RSA keys below 2048 bits are refused by the algorithms themselves.
pub(crate) fn verify(
    key: &SubjectPublicKeyInfo<'_>,
    algorithm: &AlgorithmIdentifier<'_>,
    message: &[u8],
    signature: &[u8],
) -> Result<(), String> {
    let algorithm = find(key, algorithm)?;
    UnparsedPublicKey::new(algorithm, key.subject_public_key.data.as_ref())
        .verify(message, signature)
        .map_err(|_| "the signature does not verify".to_string())
}

fn find(
    key: &SubjectPublicKeyInfo<'_>,
    algorithm: &AlgorithmIdentifier<'_>,
) -> Result<&'static dyn VerificationAlgorithm, String> {
    let curve = key
        .algorithm
        .parameters
        .as_ref()
        .and_then(|any| any.clone().oid().ok());
    let curve = curve.map(|oid| oid.to_id_string()).unwrap_or_default();
    let oid = algorithm.algorithm.to_id_string();
    Ok(match (oid.as_str(), curve.as_str()) {
        ("1.2.840.113549.1.1.11", _) => &signature::RSA_PKCS1_2048_8192_SHA256,
        ("1.2.840.113549.1.1.12", _) => &signature::RSA_PKCS1_2048_8192_SHA384,
        ("1.2.840.113549.1.1.13", _) => &signature::RSA_PKCS1_2048_8192_SHA512,
        ("1.2.840.10045.4.3.2", P256) => &signature::ECDSA_P256_SHA256_ASN1,
        ("1.2.840.10045.4.3.3", P256) => &signature::ECDSA_P256_SHA384_ASN1,
        ("1.2.840.10045.4.3.2", P384) => &signature::ECDSA_P384_SHA256_ASN1,
        ("1.2.840.10045.4.3.3", P384) => &signature::ECDSA_P384_SHA384_ASN1,
        ("1.2.840.10045.4.3.3", P521) => &signature::ECDSA_P521_SHA384_ASN1,
        ("1.2.840.10045.4.3.4", P521) => &signature::ECDSA_P521_SHA512_ASN1,
        ("1.3.101.112", _) => &signature::ED25519,
        _ => return Err(format!("signature algorithm {oid} is not supported")),
    })
}

const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
const P521: &str = "1.3.132.0.35";
