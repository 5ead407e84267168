//! What both directions share: versions, suites, certificates, key log.
use std::path::PathBuf;
use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;

use super::{Secrets, TlsError};
use crate::parse::tls::{
    Certificate, CertificateSource, SdsSource, SecretKind, TlsContext, TlsVersion, Validation,
    ValidationSource,
};

/// Our provider, with the suites and curves that the context allows.
pub fn provider(context: &TlsContext) -> Result<Arc<CryptoProvider>, TlsError> {
    let base = pki::provider();
    if context.cipher_suites.is_empty() && context.curves.is_empty() {
        return Ok(base);
    }
    let mut provider = CryptoProvider::clone(&base);
    if !context.cipher_suites.is_empty() {
        let wanted = wanted_suites(&context.cipher_suites);
        provider.cipher_suites.retain(|suite| {
            suite.tls13().is_some()
                || wanted
                    .iter()
                    .any(|name| *name == openssl_name(suite.suite()))
        });
        let has_tls12 = provider
            .cipher_suites
            .iter()
            .any(|suite| suite.tls13().is_none());
        if !has_tls12 && context.maximum == TlsVersion::V1_2 {
            let names = context.cipher_suites.join(":");
            return Err(TlsError::Invalid(format!(
                "no supported cipher suite in {names}"
            )));
        }
    }
    if !context.curves.is_empty() {
        provider.kx_groups.retain(|group| {
            context
                .curves
                .iter()
                .any(|name| curve_name(group.name()) == Some(name.as_str()))
        });
        if provider.kx_groups.is_empty() {
            let names = context.curves.join(":");
            return Err(TlsError::Invalid(format!("no supported curve in {names}")));
        }
    }
    Ok(Arc::new(provider))
}

/// `[A|B]` is a group of equal preference.
fn wanted_suites(names: &[String]) -> Vec<&str> {
    names
        .iter()
        .flat_map(|name| name.trim_matches(['[', ']']).split('|'))
        .map(str::trim)
        .collect()
}

/// OpenSSL's name of a suite, which Envoy configures and logs.
pub fn openssl_name(suite: rustls::CipherSuite) -> &'static str {
    use rustls::CipherSuite as Suite;
    match suite {
        Suite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        Suite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        Suite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        Suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        Suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => "unknown",
    }
}

fn curve_name(group: rustls::NamedGroup) -> Option<&'static str> {
    match group {
        rustls::NamedGroup::X25519 => Some("X25519"),
        rustls::NamedGroup::secp256r1 => Some("P-256"),
        rustls::NamedGroup::secp384r1 => Some("P-384"),
        rustls::NamedGroup::X25519MLKEM768 => Some("X25519MLKEM768"),
        _ => None,
    }
}

pub fn versions(context: &TlsContext) -> Vec<&'static SupportedProtocolVersion> {
    let mut versions = Vec::with_capacity(2);
    if context.maximum >= TlsVersion::V1_3 {
        versions.push(&rustls::version::TLS13);
    }
    if context.minimum <= TlsVersion::V1_2 {
        versions.push(&rustls::version::TLS12);
    }
    versions
}

/// The certificates of a context, inline and from secrets.
pub fn certificates(
    context: &TlsContext,
    secrets: &Secrets,
    provider: &CryptoProvider,
) -> Result<Vec<Arc<CertifiedKey>>, TlsError> {
    context
        .certificates
        .iter()
        .map(|source| match source {
            CertificateSource::Inline(certificate) => certified_key(certificate, provider),
            CertificateSource::Sds(source) => match &secrets.get(source)?.kind {
                SecretKind::Certificate(certificate) => certified_key(certificate, provider),
                _ => Err(wrong_kind(source, "a TLS certificate")),
            },
        })
        .collect()
}

/// The validation in force: the secret's fields win, lists are concatenated.
pub fn validation(
    source: &ValidationSource,
    secrets: &Secrets,
) -> Result<Option<Arc<Validation>>, TlsError> {
    let Some(name) = &source.sds else {
        return Ok(source.inline.clone());
    };
    let SecretKind::Validation(secret) = &secrets.get(name)?.kind else {
        return Err(wrong_kind(name, "a validation context"));
    };
    let Some(inline) = &source.inline else {
        return Ok(Some(secret.clone()));
    };
    let mut merged = Validation::clone(inline);
    merged.trusted_ca = secret.trusted_ca.clone().or(merged.trusted_ca);
    merged.crl = secret.crl.clone().or(merged.crl);
    merged.system_roots |= secret.system_roots;
    merged.match_sans.extend(secret.match_sans.iter().cloned());
    merged
        .certificate_hashes
        .extend(secret.certificate_hashes.iter().cloned());
    merged
        .public_key_hashes
        .extend(secret.public_key_hashes.iter().cloned());
    merged.allow_expired |= secret.allow_expired;
    merged.accept_untrusted |= secret.accept_untrusted;
    Ok(Some(Arc::new(merged)))
}

/// Keys are logged only where the environment asks for it.
pub fn key_log(path: Option<&PathBuf>) -> Result<Arc<dyn rustls::KeyLog>, TlsError> {
    if path.is_some() {
        let reason = "key_log: is not supported; keys are logged by SSLKEYLOGFILE only";
        return Err(TlsError::Invalid(reason.to_owned()));
    }
    Ok(Arc::new(rustls::KeyLogFile::new()))
}

pub fn invalid(error: impl std::fmt::Display) -> TlsError {
    TlsError::Invalid(error.to_string())
}

fn wrong_kind(source: &SdsSource, wanted: &str) -> TlsError {
    TlsError::Invalid(format!("secret '{}' is not {wanted}", source.name))
}

fn certified_key(
    certificate: &Certificate,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = text(&certificate.chain, "certificate_chain")?;
    let key = text(&certificate.key, "private_key")?;
    let chain = pki::pem::certificates(&chain).map_err(invalid)?;
    let key = pki::pem::private_key(&key).map_err(invalid)?;
    let certified = CertifiedKey::from_der(chain, key, provider)
        .map_err(|error| TlsError::Invalid(format!("private_key: {error}")))?;
    Ok(Arc::new(certified))
}

/// A data source as text; errors name the field, never the content.
pub fn text(source: &crate::parse::tls::DataSource, field: &str) -> Result<String, TlsError> {
    let bytes = source
        .read()
        .map_err(|error| TlsError::Invalid(format!("{field}: {error}")))?;
    String::from_utf8(bytes.to_vec()).map_err(|_| TlsError::Invalid(format!("{field}: not PEM")))
}
