//! TLS contexts of servers that rules describe: Gateways and Sidecar ingress listeners.

use envoy_api::core::TransportSocket;
use envoy_api::matcher::string_matcher::MatchPattern;
use envoy_api::tls::subject_alt_name_matcher::SanType;
use envoy_api::tls::tls_parameters::TlsProtocol as WireProtocol;
use envoy_api::tls::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext,
    certificate_validation_context::TrustChainVerification, common_tls_context,
};
use mesh_api::kinds::tls_settings::{ServerTlsMode, ServerTlsSettings, TlsProtocol};

use super::cluster_tls::credential;
use super::tls_context::{self, SecretSource};
use crate::model::Protocol;

/// TLS that ends at a gateway's server or at a Sidecar's ingress listener.
pub fn server_tls(
    settings: &ServerTlsSettings,
    protocol: Protocol,
    trust_domains: &[String],
) -> TransportSocket {
    let http = protocol == Protocol::Https || protocol.is_http();
    let alpn: &[&str] = if http { tls_context::ALPN_HTTP } else { &[] };
    if settings.mode == ServerTlsMode::IstioMutual {
        return tls_context::mesh_server(alpn, trust_domains);
    }
    let mut common = CommonTlsContext {
        alpn_protocols: tls_context::alpn(alpn),
        tls_certificate_sds_secret_configs: certificates(settings),
        ..Default::default()
    };
    let mut parameters = tls_context::parameters(
        wire_protocol(settings.min_protocol_version, WireProtocol::TlSv12),
        wire_protocol(settings.max_protocol_version, WireProtocol::TlsAuto),
    );
    if !settings.cipher_suites.is_empty() {
        parameters.cipher_suites.clone_from(&settings.cipher_suites);
    } else {
        parameters.cipher_suites.clear();
    }
    parameters.ecdh_curves.clone_from(&settings.ecdh_curves);
    common.tls_params = Some(parameters);
    let asks = matches!(
        settings.mode,
        ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual
    );
    if asks {
        common.validation_context_type = Some(validation(settings));
    }
    tls_context::downstream(&DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: Some(settings.mode == ServerTlsMode::Mutual),
        ..Default::default()
    })
}

fn certificates(settings: &ServerTlsSettings) -> Vec<envoy_api::tls::SdsSecretConfig> {
    let named: Vec<&String> = std::iter::once(&settings.credential_name)
        .chain(&settings.credential_names)
        .filter(|name| !name.is_empty())
        .collect();
    if !named.is_empty() {
        let source = |name: &&String| SecretSource::Ads(credential(name, "")).config();
        return named.iter().map(source).collect();
    }
    let file = |certificate: &str, key: &str| {
        SecretSource::Agent(format!("file-cert:{certificate}~{key}")).config()
    };
    if !settings.server_certificate.is_empty() {
        return vec![file(&settings.server_certificate, &settings.private_key)];
    }
    settings
        .tls_certificates
        .iter()
        .map(|pair| file(&pair.server_certificate, &pair.private_key))
        .collect()
}

fn validation(settings: &ServerTlsSettings) -> common_tls_context::ValidationContextType {
    let roots = if !settings.ca_cert_credential_name.is_empty() {
        SecretSource::Ads(credential(&settings.ca_cert_credential_name, ""))
    } else if !settings.credential_name.is_empty() {
        SecretSource::Ads(credential(&settings.credential_name, "-cacert"))
    } else {
        SecretSource::Agent(format!("file-root:{}", settings.ca_certificates))
    };
    let sans = settings.subject_alt_names.iter().map(|name| {
        let kind = if name.contains("://") {
            SanType::Uri
        } else {
            SanType::Dns
        };
        tls_context::san(kind, MatchPattern::Exact(name.clone()))
    });
    let insecure = settings.insecure_skip_verify.unwrap_or(false);
    let trust = if insecure {
        TrustChainVerification::AcceptUntrusted
    } else {
        TrustChainVerification::VerifyTrustChain
    };
    let context = CertificateValidationContext {
        match_typed_subject_alt_names: sans.collect(),
        verify_certificate_spki: settings.verify_certificate_spki.clone(),
        verify_certificate_hash: settings.verify_certificate_hash.clone(),
        trust_chain_verification: trust as i32,
        ..Default::default()
    };
    common_tls_context::ValidationContextType::CombinedValidationContext(
        common_tls_context::CombinedCertificateValidationContext {
            default_validation_context: Some(context),
            validation_context_sds_secret_config: Some(roots.config()),
            ..Default::default()
        },
    )
}

fn wire_protocol(written: TlsProtocol, default: WireProtocol) -> WireProtocol {
    match written {
        TlsProtocol::Auto => default,
        TlsProtocol::V1_0 => WireProtocol::TlSv10,
        TlsProtocol::V1_1 => WireProtocol::TlSv11,
        TlsProtocol::V1_2 => WireProtocol::TlSv12,
        TlsProtocol::V1_3 => WireProtocol::TlSv13,
    }
}
