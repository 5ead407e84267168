//! TLS contexts: the mesh's own mutual TLS by SDS, and what Gateways and rules ask for.

use envoy_api::any::pack;
use envoy_api::core::{
    ApiConfigSource, ApiVersion, ConfigSource, GrpcService, TransportSocket, api_config_source,
    config_source, grpc_service, transport_socket,
};
use envoy_api::matcher::{StringMatcher, string_matcher};
use envoy_api::tls::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
    SubjectAltNameMatcher, TlsParameters, UpstreamTlsContext, common_tls_context,
    subject_alt_name_matcher::SanType, tls_parameters::TlsProtocol,
};

use super::message::{ads, seconds};

/// The workload certificate and the roots, as the agent serves them.
pub const WORKLOAD_SECRET: &str = "default";
pub const ROOT_SECRET: &str = "ROOTCA";

pub const ALPN_HTTP: &[&str] = &["h2", "http/1.1"];
/// What a server offers on plain TCP chains under mutual TLS.
pub const ALPN_TCP_SERVER: &[&str] = &["istio-peer-exchange", "h2", "http/1.1"];

const CIPHERS: &[&str] = &[
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretSource {
    /// The agent beside the proxy.
    Agent(String),
    /// The control plane.
    Ads(String),
}

impl SecretSource {
    pub fn config(&self) -> SdsSecretConfig {
        let (name, source) = match self {
            Self::Agent(name) => (name, agent_sds()),
            // A secret that does not exist must not hold up the other chains of its listener.
            Self::Ads(name) => (
                name,
                ConfigSource {
                    initial_fetch_timeout: None,
                    ..ads()
                },
            ),
        };
        SdsSecretConfig {
            name: name.clone(),
            sds_config: Some(source),
        }
    }
}

fn agent_sds() -> ConfigSource {
    let grpc = GrpcService {
        target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(
            grpc_service::EnvoyGrpc {
                cluster_name: "sds-grpc".to_owned(),
                ..Default::default()
            },
        )),
        ..Default::default()
    };
    let api = ApiConfigSource {
        api_type: api_config_source::ApiType::Grpc as i32,
        transport_api_version: ApiVersion::V3 as i32,
        grpc_services: vec![grpc],
        set_node_on_first_message_only: true,
        ..Default::default()
    };
    ConfigSource {
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::ApiConfigSource(api)),
        initial_fetch_timeout: Some(seconds(0)),
        resource_api_version: ApiVersion::V3 as i32,
        ..Default::default()
    }
}

/// A subject alternative name that peers must carry.
pub fn uri_san(matcher: string_matcher::MatchPattern) -> SubjectAltNameMatcher {
    san(SanType::Uri, matcher)
}

pub fn san(kind: SanType, matcher: string_matcher::MatchPattern) -> SubjectAltNameMatcher {
    SubjectAltNameMatcher {
        san_type: kind as i32,
        matcher: Some(StringMatcher {
            match_pattern: Some(matcher),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub fn alpn(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The mesh's mutual TLS: workload certificate, mesh roots, peers as `sans` say.
pub fn mesh(names: &[&str], sans: Vec<SubjectAltNameMatcher>) -> CommonTlsContext {
    let context = CertificateValidationContext {
        match_typed_subject_alt_names: sans,
        ..Default::default()
    };
    let combined = common_tls_context::CombinedCertificateValidationContext {
        default_validation_context: Some(context),
        validation_context_sds_secret_config: Some(
            SecretSource::Agent(ROOT_SECRET.to_owned()).config(),
        ),
        ..Default::default()
    };
    CommonTlsContext {
        tls_params: Some(parameters(TlsProtocol::TlSv12, TlsProtocol::TlSv13)),
        alpn_protocols: alpn(names),
        tls_certificate_sds_secret_configs: vec![
            SecretSource::Agent(WORKLOAD_SECRET.to_owned()).config(),
        ],
        validation_context_type: Some(
            common_tls_context::ValidationContextType::CombinedValidationContext(combined),
        ),
        ..Default::default()
    }
}

/// Protocol limits with Istio's cipher list.
pub fn parameters(min: TlsProtocol, max: TlsProtocol) -> TlsParameters {
    TlsParameters {
        tls_minimum_protocol_version: min as i32,
        tls_maximum_protocol_version: max as i32,
        cipher_suites: CIPHERS.iter().map(|cipher| (*cipher).to_owned()).collect(),
        ..Default::default()
    }
}

/// The server side of the mesh's mutual TLS; peers come from one of the trust domains.
pub fn mesh_server(names: &[&str], trust_domains: &[String]) -> TransportSocket {
    let sans = trust_domains
        .iter()
        .map(|domain| {
            uri_san(string_matcher::MatchPattern::Prefix(format!(
                "spiffe://{domain}/"
            )))
        })
        .collect();
    downstream(&DownstreamTlsContext {
        common_tls_context: Some(mesh(names, sans)),
        require_client_certificate: Some(true),
        ..Default::default()
    })
}

pub fn downstream(context: &DownstreamTlsContext) -> TransportSocket {
    socket(pack(context))
}

pub fn upstream(context: &UpstreamTlsContext) -> TransportSocket {
    socket(pack(context))
}

fn socket(config: prost_types::Any) -> TransportSocket {
    TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(config)),
    }
}
