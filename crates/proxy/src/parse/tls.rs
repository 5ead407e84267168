//! TLS contexts and secrets: what is asked of a handshake, not the handshake.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use envoy_api::tls::common_tls_context::{self, ValidationContextType};
use envoy_api::tls::subject_alt_name_matcher::SanType;
use envoy_api::tls::tls_parameters::TlsProtocol;
use envoy_api::{core, tls};

use super::compat::Message as _;
use super::config_source::ConfigSource;
use super::{ConfigError, Context};
use crate::matcher::StringMatcher;

/// Bytes that stand in the configuration or in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataSource {
    Inline(Bytes),
    File(PathBuf),
}

impl DataSource {
    /// The bytes; files up to 16 MiB.
    pub fn read(&self) -> std::io::Result<Bytes> {
        match self {
            DataSource::Inline(bytes) => Ok(bytes.clone()),
            DataSource::File(path) => {
                const LIMIT: u64 = 16 << 20;
                if std::fs::metadata(path)?.len() > LIMIT {
                    return Err(std::io::Error::other("larger than 16 MiB"));
                }
                std::fs::read(path).map(Bytes::from)
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SdsSource {
    pub name: Arc<str>,
    /// `None`: a static secret of the bootstrap.
    pub source: Option<ConfigSource>,
}

/// A certificate chain and its key, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub chain: DataSource,
    pub key: DataSource,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    Inline(Certificate),
    Sds(SdsSource),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SanKind {
    Email,
    Dns,
    Uri,
    IpAddress,
}

#[derive(Debug, Clone)]
pub struct SanMatcher {
    pub kind: SanKind,
    pub matcher: StringMatcher,
}

/// What a peer's certificate must satisfy. Without `trusted_ca` nothing is verified.
#[derive(Debug, Clone, Default)]
pub struct Validation {
    pub trusted_ca: Option<DataSource>,
    pub system_roots: bool,
    pub crl: Option<DataSource>,
    /// Any of them must match (none: no demand).
    pub match_sans: Vec<SanMatcher>,
    /// Lower-case hex SHA-256 of the certificate.
    pub certificate_hashes: Vec<String>,
    /// Base64 SHA-256 of the public key.
    pub public_key_hashes: Vec<String>,
    pub allow_expired: bool,
    /// ACCEPT_UNTRUSTED: verify, but let the peer in unverified when that fails.
    pub accept_untrusted: bool,
}

/// Static demands merged with what a secret brings (Envoy's combined context: the secret's fields
/// win, lists are concatenated).
#[derive(Debug, Clone, Default)]
pub struct ValidationSource {
    pub inline: Option<Arc<Validation>>,
    pub sds: Option<SdsSource>,
}

/// Both directions' part.
#[derive(Debug, Clone)]
pub struct TlsContext {
    pub minimum: TlsVersion,
    pub maximum: TlsVersion,
    /// OpenSSL names of TLS 1.2 suites; empty = default.
    pub cipher_suites: Vec<String>,
    pub curves: Vec<String>,
    pub alpn: Vec<Vec<u8>>,
    pub certificates: Vec<CertificateSource>,
    pub validation: ValidationSource,
    pub key_log: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct DownstreamTls {
    pub context: TlsContext,
    pub require_client_certificate: bool,
    pub require_sni: bool,
    pub session_timeout: Option<Duration>,
    pub stateful_resumption: bool,
}

#[derive(Debug, Clone)]
pub struct UpstreamTls {
    pub context: TlsContext,
    pub sni: String,
    /// SNI from the host's name.
    pub auto_host_sni: bool,
    /// The certificate must be for the SNI.
    pub auto_sni_san_validation: bool,
}

/// A secret resource.
#[derive(Debug, Clone)]
pub struct Secret {
    pub name: Arc<str>,
    pub kind: SecretKind,
}

#[derive(Debug, Clone)]
pub enum SecretKind {
    Certificate(Certificate),
    Validation(Arc<Validation>),
    TicketKeys(Vec<DataSource>),
    Generic(DataSource),
}

fields! {
    core::DataSource {
        read: specifier;
        ignore: watched_directory = "files are read when the resource arrives";
    }
    tls::TlsParameters {
        read: tls_minimum_protocol_version, tls_maximum_protocol_version, cipher_suites,
            ecdh_curves;
        reject: signature_algorithms, compliance_policies;
    }
    tls::TlsCertificate {
        read: certificate_chain, private_key;
        reject: pkcs12, private_key_provider, password, ocsp_staple,
            signed_certificate_timestamp, tls_params;
        ignore: watched_directory = "files are read when the resource arrives";
    }
    tls::CertificateValidationContext {
        read: trusted_ca, system_root_certs, match_typed_subject_alt_names,
            match_subject_alt_names, verify_certificate_spki, verify_certificate_hash, crl,
            allow_expired_certificate, trust_chain_verification;
        reject: max_verify_depth, ca_certificate_provider_instance,
            require_signed_certificate_timestamp, custom_validator_config;
        ignore: watched_directory = "files are read when the resource arrives",
            only_verify_leaf_cert_crl = "crl is refused",
            suppress_client_ca_list = "the list of acceptable authorities is a hint";
    }
    tls::SubjectAltNameMatcher { read: san_type, matcher; reject: oid; }
    tls::SdsSecretConfig { read: name, sds_config; }
    tls::GenericSecret { read: secret; reject: secrets; }
    tls::TlsSessionTicketKeys { read: keys; }
    tls::Secret { read: name, r#type; }
    tls::TlsKeyLog { read: path; reject: local_address_range, remote_address_range; }
    tls::CommonTlsContext {
        read: tls_params, tls_certificates, tls_certificate_sds_secret_configs, alpn_protocols,
            key_log, validation_context_type;
        reject: tls_certificate_provider_instance, custom_tls_certificate_selector,
            tls_certificate_certificate_provider, tls_certificate_certificate_provider_instance,
            custom_handshaker;
    }
    common_tls_context::CombinedCertificateValidationContext {
        read: default_validation_context, validation_context_sds_secret_config;
        reject: validation_context_certificate_provider,
            validation_context_certificate_provider_instance;
    }
    tls::UpstreamTlsContext {
        read: common_tls_context, sni, auto_host_sni, auto_sni_san_validation;
        reject: allow_renegotiation;
        ignore: max_session_keys = "how many sessions are kept is the library's choice",
            enforce_rsa_key_usage = "rustls enforces it always";
    }
    tls::DownstreamTlsContext {
        read: common_tls_context, require_client_certificate, require_sni,
            disable_stateful_session_resumption, session_timeout, session_ticket_keys_type;
        ignore: prefer_client_ciphers = "the client's order decides in any case",
            ocsp_staple_policy = "staples are refused where they are given",
            full_scan_certs_on_sni_mismatch = "the first certificate answers an unknown name";
    }
}

pub fn downstream(
    context: &mut Context,
    message: &tls::DownstreamTlsContext,
) -> Option<DownstreamTls> {
    use tls::downstream_tls_context::SessionTicketKeysType;
    message.check(context);
    match &message.session_ticket_keys_type {
        // No ticket of ours holds a session's state.
        None | Some(SessionTicketKeysType::DisableStatelessSessionResumption(_)) => {}
        Some(SessionTicketKeysType::SessionTicketKeys(_)) => {
            context.error_at("session_ticket_keys", "is not supported");
        }
        Some(SessionTicketKeysType::SessionTicketKeysSdsSecretConfig(_)) => {
            context.error_at("session_ticket_keys_sds_secret_config", "is not supported");
        }
    }
    let session_timeout = context.duration("session_timeout", message.session_timeout.as_ref());
    let require_client_certificate = message.require_client_certificate.unwrap_or(false);
    let common = context.required(
        "common_tls_context",
        message.common_tls_context.as_ref(),
        common,
    )?;
    if common.certificates.is_empty() {
        context.error("No TLS certificates found for server context");
    }
    Some(DownstreamTls {
        context: common,
        require_client_certificate,
        require_sni: message.require_sni.unwrap_or(false),
        session_timeout,
        stateful_resumption: !message.disable_stateful_session_resumption,
    })
}

pub fn upstream(context: &mut Context, message: &tls::UpstreamTlsContext) -> Option<UpstreamTls> {
    message.check(context);
    if message.sni.len() > 255 {
        context.error_at("sni", "must be at most 255 bytes");
    }
    let default = tls::CommonTlsContext::default();
    let given = message.common_tls_context.as_ref().unwrap_or(&default);
    let mut common = context.field("common_tls_context", |context| common(context, given))?;
    // Envoy's clients stop at TLS 1.2 unless told otherwise.
    let maximum = given
        .tls_params
        .as_ref()
        .map_or(0, |one| one.tls_maximum_protocol_version);
    if maximum == TlsProtocol::TlsAuto as i32 && common.minimum == TlsVersion::V1_2 {
        common.maximum = TlsVersion::V1_2;
    }
    if common.certificates.len() > 1 {
        context.error("at most one client certificate is allowed");
    }
    Some(UpstreamTls {
        context: common,
        sni: message.sni.clone(),
        auto_host_sni: message.auto_host_sni,
        auto_sni_san_validation: message.auto_sni_san_validation,
    })
}

/// A secret resource of the discovery service or of the bootstrap.
pub fn secret(message: &tls::Secret) -> Result<Secret, ConfigError> {
    let mut context = Context::new();
    let parsed = secret_in(&mut context, message);
    context.finish(format!("secret '{}'", message.name), parsed)
}

pub(super) fn secret_in(context: &mut Context, message: &tls::Secret) -> Option<Secret> {
    use tls::secret::Type;
    message.check(context);
    let kind = match &message.r#type {
        Some(Type::TlsCertificate(one)) => SecretKind::Certificate(
            context.field("tls_certificate", |context| certificate(context, one))?,
        ),
        Some(Type::ValidationContext(one)) => SecretKind::Validation(Arc::new(
            context.field("validation_context", |context| validation(context, one))?,
        )),
        Some(Type::SessionTicketKeys(one)) => context.field("session_ticket_keys", |context| {
            one.check(context);
            let keys = context.each("keys", &one.keys, data_source);
            Some(SecretKind::TicketKeys(keys))
        })?,
        Some(Type::GenericSecret(one)) => context.field("generic_secret", |context| {
            one.check(context);
            let source = context.required("secret", one.secret.as_ref(), data_source)?;
            Some(SecretKind::Generic(source))
        })?,
        None => {
            context.error_at("type", "is required");
            return None;
        }
    };
    Some(Secret {
        name: message.name.as_str().into(),
        kind,
    })
}

pub fn data_source(context: &mut Context, message: &core::DataSource) -> Option<DataSource> {
    use core::data_source::Specifier;
    message.check(context);
    Some(match &message.specifier {
        Some(Specifier::Filename(path)) => DataSource::File(path.into()),
        Some(Specifier::InlineBytes(bytes)) => DataSource::Inline(bytes.clone()),
        Some(Specifier::InlineString(text)) => {
            DataSource::Inline(Bytes::copy_from_slice(text.as_bytes()))
        }
        Some(Specifier::EnvironmentVariable(name)) => match std::env::var(name) {
            Ok(text) => DataSource::Inline(text.into_bytes().into()),
            Err(_) => {
                context.error(format!("environment variable doesn't exist: {name}"));
                return None;
            }
        },
        None => {
            context.error("specifier is required");
            return None;
        }
    })
}

fn common(context: &mut Context, message: &tls::CommonTlsContext) -> Option<TlsContext> {
    message.check(context);
    let default = tls::TlsParameters::default();
    let parameters = message.tls_params.as_ref().unwrap_or(&default);
    let (minimum, maximum) = context.field("tls_params", |context| versions(context, parameters));
    let mut certificates: Vec<CertificateSource> = context.each(
        "tls_certificates",
        &message.tls_certificates,
        |context, one| certificate(context, one).map(CertificateSource::Inline),
    );
    certificates.extend(context.each(
        "tls_certificate_sds_secret_configs",
        &message.tls_certificate_sds_secret_configs,
        |context, one| sds(context, one).map(CertificateSource::Sds),
    ));
    let validation = validation_source(context, message.validation_context_type.as_ref());
    let key_log = context.optional("key_log", message.key_log.as_ref(), |context, log| {
        log.check(context);
        context.non_empty("path", &log.path);
        Some(PathBuf::from(&log.path))
    });
    Some(TlsContext {
        minimum,
        maximum,
        cipher_suites: parameters.cipher_suites.clone(),
        curves: parameters.ecdh_curves.clone(),
        alpn: message
            .alpn_protocols
            .iter()
            .map(|name| name.clone().into_bytes())
            .collect(),
        certificates,
        validation,
        key_log,
    })
}

fn versions(context: &mut Context, message: &tls::TlsParameters) -> (TlsVersion, TlsVersion) {
    message.check(context);
    let mut version = |name: &str, value: i32, default: TlsVersion| match context
        .enumeration::<TlsProtocol>(name, value)
    {
        Some(TlsProtocol::TlSv12) => TlsVersion::V1_2,
        Some(TlsProtocol::TlSv13) => TlsVersion::V1_3,
        Some(TlsProtocol::TlSv10 | TlsProtocol::TlSv11) => {
            context.error_at(name, "TLS 1.0 and 1.1 are not supported");
            default
        }
        Some(TlsProtocol::TlsAuto) | None => default,
    };
    let minimum = version(
        "tls_minimum_protocol_version",
        message.tls_minimum_protocol_version,
        TlsVersion::V1_2,
    );
    let maximum = version(
        "tls_maximum_protocol_version",
        message.tls_maximum_protocol_version,
        TlsVersion::V1_3,
    );
    if minimum > maximum {
        context.error("tls_minimum_protocol_version is above tls_maximum_protocol_version");
    }
    (minimum, maximum)
}

fn certificate(context: &mut Context, message: &tls::TlsCertificate) -> Option<Certificate> {
    message.check(context);
    let chain = context.required(
        "certificate_chain",
        message.certificate_chain.as_ref(),
        data_source,
    );
    let key = context.required("private_key", message.private_key.as_ref(), data_source);
    Some(Certificate {
        chain: chain?,
        key: key?,
    })
}

fn sds(context: &mut Context, message: &tls::SdsSecretConfig) -> Option<SdsSource> {
    message.check(context);
    context.non_empty("name", &message.name);
    let source = context.optional(
        "sds_config",
        message.sds_config.as_ref(),
        super::config_source::parse,
    );
    Some(SdsSource {
        name: message.name.as_str().into(),
        source,
    })
}

fn validation_source(
    context: &mut Context,
    message: Option<&ValidationContextType>,
) -> ValidationSource {
    match message {
        None => ValidationSource::default(),
        Some(ValidationContextType::ValidationContext(one)) => {
            let inline = context.field("validation_context", |context| validation(context, one));
            ValidationSource {
                inline: inline.map(Arc::new),
                sds: None,
            }
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(one)) => {
            let secret = context.field("validation_context_sds_secret_config", |context| {
                sds(context, one)
            });
            ValidationSource {
                inline: None,
                sds: secret,
            }
        }
        Some(ValidationContextType::CombinedValidationContext(one)) => {
            context.field("combined_validation_context", |context| {
                one.check(context);
                let inline = context.required(
                    "default_validation_context",
                    one.default_validation_context.as_ref(),
                    validation,
                );
                let secret = context.required(
                    "validation_context_sds_secret_config",
                    one.validation_context_sds_secret_config.as_ref(),
                    sds,
                );
                ValidationSource {
                    inline: inline.map(Arc::new),
                    sds: secret,
                }
            })
        }
        Some(
            ValidationContextType::ValidationContextCertificateProvider(_)
            | ValidationContextType::ValidationContextCertificateProviderInstance(_),
        ) => {
            context.error_at(
                "validation_context_certificate_provider",
                "is not supported",
            );
            ValidationSource::default()
        }
    }
}

fn validation(
    context: &mut Context,
    message: &tls::CertificateValidationContext,
) -> Option<Validation> {
    use tls::certificate_validation_context::TrustChainVerification;
    message.check(context);
    let trusted_ca = context.optional("trusted_ca", message.trusted_ca.as_ref(), data_source);
    let crl = context.optional("crl", message.crl.as_ref(), data_source);
    let mut match_sans = context.each(
        "match_typed_subject_alt_names",
        &message.match_typed_subject_alt_names,
        san_matcher,
    );
    // The untyped list applies to every kind of name.
    let untyped = context.each(
        "match_subject_alt_names",
        &message.match_subject_alt_names,
        crate::matcher::StringMatcher::parse,
    );
    for matcher in untyped {
        for kind in [
            SanKind::Dns,
            SanKind::Uri,
            SanKind::Email,
            SanKind::IpAddress,
        ] {
            match_sans.push(SanMatcher {
                kind,
                matcher: matcher.clone(),
            });
        }
    }
    let verification = context
        .enumeration("trust_chain_verification", message.trust_chain_verification)
        .unwrap_or(TrustChainVerification::VerifyTrustChain);
    let hashes = message.verify_certificate_hash.iter();
    Some(Validation {
        trusted_ca,
        system_roots: message.system_root_certs.is_some(),
        crl,
        match_sans,
        certificate_hashes: hashes
            .map(|hash| hash.replace(':', "").to_lowercase())
            .collect(),
        public_key_hashes: message.verify_certificate_spki.clone(),
        allow_expired: message.allow_expired_certificate,
        accept_untrusted: verification == TrustChainVerification::AcceptUntrusted,
    })
}

fn san_matcher(context: &mut Context, message: &tls::SubjectAltNameMatcher) -> Option<SanMatcher> {
    message.check(context);
    let kind = match context.enumeration("san_type", message.san_type)? {
        SanType::Email => SanKind::Email,
        SanType::Dns => SanKind::Dns,
        SanType::Uri => SanKind::Uri,
        SanType::IpAddress => SanKind::IpAddress,
        SanType::OtherName => {
            context.error_at("san_type", "OTHER_NAME is not supported");
            return None;
        }
        SanType::Unspecified => {
            context.error_at("san_type", "is required");
            return None;
        }
    };
    let matcher = context.required(
        "matcher",
        message.matcher.as_ref(),
        crate::matcher::StringMatcher::parse,
    );
    Some(SanMatcher {
        kind,
        matcher: matcher?,
    })
}
