//! Where dynamic resources come from: ADS, a gRPC or file source.

use std::path::PathBuf;
use std::time::Duration;

use envoy_api::core;
use envoy_api::core::config_source::ConfigSourceSpecifier;
use envoy_api::core::{api_config_source, grpc_service};

use super::Context;
use super::compat::Message as _;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSource {
    pub kind: SourceKind,
    /// How long a first answer may take before what needs it goes on without; `None` = forever.
    pub initial_fetch_timeout: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    Ads,
    /// A gRPC stream of its own.
    Grpc(GrpcSource),
    /// A file with a DiscoveryResponse, watched.
    Path(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcSource {
    pub delta: bool,
    /// The cluster that serves it.
    pub cluster: String,
    /// Replaces the `:authority` (default: the cluster's name).
    pub authority: Option<String>,
    pub initial_metadata: Vec<(String, String)>,
}

fields! {
    core::ConfigSource {
        read: initial_fetch_timeout, config_source_specifier;
        reject: authorities;
        ignore: resource_api_version = "v3 is the only version there is";
    }
    core::PathConfigSource {
        read: path;
        reject: watched_directory, poll_interval;
    }
    core::ApiConfigSource {
        read: api_type, grpc_services;
        reject: cluster_names, request_timeout, config_validators;
        ignore: transport_api_version = "v3 is the only version there is",
            refresh_delay = "only REST sources poll",
            rate_limit_settings = "requests are few and never limited",
            set_node_on_first_message_only = "the node is only ever sent first";
    }
    core::GrpcService {
        read: target_specifier, initial_metadata;
        reject: retry_policy;
        ignore: timeout = "streams of discovery have no deadline";
    }
    grpc_service::EnvoyGrpc {
        read: cluster_name, authority;
        reject: retry_policy;
        ignore: max_receive_message_length = "messages are limited by the transport",
            skip_envoy_headers = "no x-envoy headers are sent on these streams";
    }
    core::HeaderValue { read: key, value, raw_value; }
}

const DEFAULT_INITIAL_FETCH: Duration = Duration::from_secs(15);

pub fn parse(context: &mut Context, message: &core::ConfigSource) -> Option<ConfigSource> {
    message.check(context);
    let initial_fetch_timeout = context.timeout(
        "initial_fetch_timeout",
        message.initial_fetch_timeout.as_ref(),
        Some(DEFAULT_INITIAL_FETCH),
    );
    let kind = match &message.config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {})) => SourceKind::Ads,
        // The server that sent this resource: with us always the aggregated stream.
        Some(ConfigSourceSpecifier::Self_(core::SelfConfigSource {
            transport_api_version: _,
        })) => SourceKind::Ads,
        Some(ConfigSourceSpecifier::ApiConfigSource(api)) => {
            SourceKind::Grpc(context.field("api_config_source", |context| grpc(context, api))?)
        }
        Some(ConfigSourceSpecifier::PathConfigSource(source)) => {
            context.field("path_config_source", |context| source.check(context));
            SourceKind::Path(PathBuf::from(&source.path))
        }
        Some(ConfigSourceSpecifier::Path(path)) => SourceKind::Path(PathBuf::from(path)),
        None => {
            context.error_at("config_source_specifier", "is required");
            return None;
        }
    };
    Some(ConfigSource {
        kind,
        initial_fetch_timeout,
    })
}

/// A gRPC source, also the bootstrap's `ads_config`.
pub fn grpc(context: &mut Context, message: &core::ApiConfigSource) -> Option<GrpcSource> {
    use api_config_source::ApiType;
    message.check(context);
    let delta = match context.enumeration::<ApiType>("api_type", message.api_type)? {
        ApiType::Grpc | ApiType::AggregatedGrpc => false,
        ApiType::DeltaGrpc | ApiType::AggregatedDeltaGrpc => true,
        ApiType::Rest | ApiType::DeprecatedAndUnavailableDoNotUse => {
            context.error_at("api_type", "only GRPC and DELTA_GRPC are supported");
            return None;
        }
    };
    let [service] = message.grpc_services.as_slice() else {
        context.error_at("grpc_services", "must have exactly one member");
        return None;
    };
    context.field("grpc_services[0]", |context| {
        service.check(context);
        let initial_metadata = service
            .initial_metadata
            .iter()
            .map(|header| (header.key.clone(), header.value.clone()))
            .collect();
        match &service.target_specifier {
            Some(grpc_service::TargetSpecifier::EnvoyGrpc(envoy)) => {
                context.field("envoy_grpc", |context| {
                    envoy.check(context);
                    context.non_empty("cluster_name", &envoy.cluster_name);
                });
                let authority = (!envoy.authority.is_empty()).then(|| envoy.authority.clone());
                let cluster = envoy.cluster_name.clone();
                Some(GrpcSource {
                    delta,
                    cluster,
                    authority,
                    initial_metadata,
                })
            }
            Some(grpc_service::TargetSpecifier::GoogleGrpc(_)) => {
                context.error_at("google_grpc", "is not supported");
                None
            }
            None => {
                context.error_at("target_specifier", "is required");
                None
            }
        }
    })
}
