//! The transport socket of an outbound cluster: mutual TLS by itself where the endpoint takes
//! it, or what a rule says.

use std::collections::BTreeSet;

use envoy_api::cluster::Cluster;
use envoy_api::cluster::cluster::TransportSocketMatch;
use envoy_api::core::{TransportSocket, UpstreamHttpProtocolOptions};
use envoy_api::matcher::string_matcher::MatchPattern;
use envoy_api::tls::subject_alt_name_matcher::SanType;
use envoy_api::tls::{
    CertificateValidationContext, CommonTlsContext, UpstreamTlsContext,
    certificate_validation_context::TrustChainVerification, common_tls_context,
    tls_parameters::TlsProtocol,
};
use mesh_api::kinds::tls_settings::{ClientTlsMode, ClientTlsSettings};

use super::cluster_pool::Upstream;
use super::message::raw_buffer;
use super::tls_context::{self, SecretSource};
use crate::keys::ClientKey;
use crate::model::Protocol;

/// Everything the socket depends on.
pub struct Peer<'a> {
    pub identities: &'a BTreeSet<String>,
    /// SNI of the mesh's mutual TLS.
    pub sni: String,
    pub protocol: Protocol,
    pub upstream: Upstream,
    pub client: &'a ClientKey,
}

/// Mutual TLS towards endpoints that announce it, plain text to all others.
pub fn apply_auto(cluster: &mut Cluster, peer: &Peer<'_>) {
    let tls_mode = |mode: &str| prost_types::Struct {
        fields: [("tlsMode".to_owned(), super::message::text(mode))].into(),
    };
    cluster.transport_socket_matches = vec![
        TransportSocketMatch {
            name: "tlsMode-istio".to_owned(),
            r#match: Some(tls_mode("istio")),
            transport_socket: Some(mesh_socket(peer, None)),
        },
        TransportSocketMatch {
            name: "tlsMode-disabled".to_owned(),
            r#match: Some(prost_types::Struct::default()),
            transport_socket: Some(raw_buffer()),
        },
    ];
}

/// What a rule says; `false` when it says "plain text".
pub fn apply_rule(cluster: &mut Cluster, settings: &ClientTlsSettings, peer: &Peer<'_>) -> bool {
    match settings.mode {
        ClientTlsMode::Disable => return false,
        ClientTlsMode::IstioMutual => {
            cluster.transport_socket = Some(mesh_socket(peer, Some(settings)));
        }
        ClientTlsMode::Simple | ClientTlsMode::Mutual => {
            cluster.transport_socket = Some(custom_socket(settings, peer));
        }
    }
    true
}

fn mesh_socket(peer: &Peer<'_>, settings: Option<&ClientTlsSettings>) -> TransportSocket {
    let named: Vec<String> = settings
        .map(|settings| settings.subject_alt_names.clone())
        .unwrap_or_default();
    let names = if named.is_empty() {
        peer.identities.iter().cloned().collect()
    } else {
        named
    };
    let sans = names
        .into_iter()
        .map(|name| tls_context::uri_san(MatchPattern::Exact(name)))
        .collect();
    let sni = settings
        .map(|settings| settings.sni.clone())
        .filter(|sni| !sni.is_empty());
    let context = UpstreamTlsContext {
        common_tls_context: Some(tls_context::mesh(&mesh_alpn(peer), sans)),
        sni: sni.unwrap_or_else(|| peer.sni.clone()),
        ..Default::default()
    };
    tls_context::upstream(&context)
}

/// The protocols offered in the mesh's mutual TLS. A proxy with Istio's ALPN filter replaces
/// them per request; for others the declared protocol has to stand here, else HTTP would land
/// in the server's TCP chain where HTTP policies do not apply (discovery.md 7).
fn mesh_alpn(peer: &Peer<'_>) -> Vec<&'static str> {
    let mut names = Vec::new();
    if peer.client.alpn {
        if peer.client.metadata_exchange {
            names.push("istio-peer-exchange");
        }
        names.push("istio");
        if peer.upstream == Upstream::Http2 {
            names.push("h2");
        }
        return names;
    }
    match peer.upstream {
        Upstream::Http2 => vec!["istio-h2", "istio", "h2"],
        Upstream::Http1 if peer.protocol.is_http() => {
            vec!["istio-http/1.1", "istio", "http/1.1"]
        }
        // Never offer the metadata preamble without the filter that writes it.
        _ if peer.client.metadata_exchange => vec!["istio-peer-exchange", "istio"],
        _ => vec!["istio"],
    }
}

/// TLS origination: SIMPLE and MUTUAL.
fn custom_socket(settings: &ClientTlsSettings, peer: &Peer<'_>) -> TransportSocket {
    let insecure = settings.insecure_skip_verify.unwrap_or(false);
    let mut common = CommonTlsContext {
        tls_params: Some(envoy_api::tls::TlsParameters {
            tls_minimum_protocol_version: TlsProtocol::TlSv12 as i32,
            tls_maximum_protocol_version: TlsProtocol::TlSv13 as i32,
            ..Default::default()
        }),
        ..Default::default()
    };
    if peer.upstream == Upstream::Http2 {
        common.alpn_protocols = tls_context::alpn(&["h2"]);
    }
    if settings.mode == ClientTlsMode::Mutual {
        common.tls_certificate_sds_secret_configs = vec![client_certificate(settings).config()];
    }
    let sans = settings
        .subject_alt_names
        .iter()
        .flat_map(|name| {
            let kind = if name.contains("://") {
                SanType::Uri
            } else {
                SanType::Dns
            };
            [tls_context::san(kind, MatchPattern::Exact(name.clone()))]
        })
        .collect();
    let context = CertificateValidationContext {
        match_typed_subject_alt_names: sans,
        trust_chain_verification: if insecure {
            TrustChainVerification::AcceptUntrusted as i32
        } else {
            TrustChainVerification::VerifyTrustChain as i32
        },
        ..Default::default()
    };
    use common_tls_context::ValidationContextType;
    common.validation_context_type = Some(if insecure {
        ValidationContextType::ValidationContext(context)
    } else {
        ValidationContextType::CombinedValidationContext(
            common_tls_context::CombinedCertificateValidationContext {
                default_validation_context: Some(context),
                validation_context_sds_secret_config: Some(roots(settings).config()),
                ..Default::default()
            },
        )
    });
    tls_context::upstream(&UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: settings.sni.clone(),
        ..Default::default()
    })
}

/// Without a written SNI the request's host is asked for, and the certificate must carry it.
pub fn automatic_sni(settings: &ClientTlsSettings) -> Option<UpstreamHttpProtocolOptions> {
    let originates = matches!(settings.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual);
    if !originates {
        return None;
    }
    let insecure = settings.insecure_skip_verify.unwrap_or(false);
    let options = UpstreamHttpProtocolOptions {
        auto_sni: settings.sni.is_empty(),
        auto_san_validation: settings.subject_alt_names.is_empty() && !insecure,
        ..Default::default()
    };
    Some(options).filter(|options| options.auto_sni || options.auto_san_validation)
}

fn client_certificate(settings: &ClientTlsSettings) -> SecretSource {
    if settings.credential_name.is_empty() {
        let (certificate, key) = (&settings.client_certificate, &settings.private_key);
        return SecretSource::Agent(format!("file-cert:{certificate}~{key}"));
    }
    SecretSource::Ads(credential(&settings.credential_name, ""))
}

/// The roots: a credential's, a file's, or the operating system's.
fn roots(settings: &ClientTlsSettings) -> SecretSource {
    if !settings.credential_name.is_empty() {
        return SecretSource::Ads(credential(&settings.credential_name, "-cacert"));
    }
    match settings.ca_certificates.as_str() {
        "" | "system" => SecretSource::Agent("file-root:system".to_owned()),
        file => SecretSource::Agent(format!("file-root:{file}")),
    }
}

/// The resource name of a credential; a bare name is a Secret of the proxy's namespace.
pub fn credential(name: &str, suffix: &str) -> String {
    if name.contains("://") {
        return format!("{name}{suffix}");
    }
    format!("kubernetes://{name}{suffix}")
}
