//! Envoy v3 and xDS messages under short paths, type URLs, `Any`, JSON and YAML.
//! The messages are generated at build time (see `build.rs`); nothing foreign is committed.

pub mod any;
pub mod json;
mod resource;
mod resource_type;

pub use resource::Resource;
pub use resource_type::ResourceType;

/// The generated tree, by protobuf package.
#[allow(clippy::all, clippy::pedantic, missing_docs)]
mod messages {
    include!(concat!(env!("OUT_DIR"), "/messages.rs"));
}

pub use messages::{envoy, google, udpa, xds};

pub use envoy::admin::v3 as admin;
pub use envoy::config::accesslog::v3 as accesslog;
pub use envoy::config::bootstrap::v3 as bootstrap;
pub use envoy::config::cluster::v3 as cluster;
pub use envoy::config::core::v3 as core;
pub use envoy::config::endpoint::v3 as endpoint;
pub use envoy::config::listener::v3 as listener;
pub use envoy::config::metrics::v3 as metrics;
pub use envoy::config::rbac::v3 as rbac;
pub use envoy::config::route::v3 as route;
pub use envoy::config::trace::v3 as trace;
pub use envoy::extensions::access_loggers::file::v3 as access_logger_file;
pub use envoy::extensions::access_loggers::stream::v3 as access_logger_stream;
pub use envoy::extensions::filters::http::cors::v3 as cors;
pub use envoy::extensions::filters::http::fault::v3 as fault;
pub use envoy::extensions::filters::http::grpc_stats::v3 as grpc_stats;
pub use envoy::extensions::filters::http::header_mutation::v3 as header_mutation;
pub use envoy::extensions::filters::http::local_ratelimit::v3 as local_ratelimit;
pub use envoy::extensions::filters::http::rbac::v3 as rbac_http;
pub use envoy::extensions::filters::http::router::v3 as router;
pub use envoy::extensions::filters::listener::http_inspector::v3 as http_inspector;
pub use envoy::extensions::filters::listener::original_dst::v3 as original_dst;
pub use envoy::extensions::filters::listener::proxy_protocol::v3 as proxy_protocol;
pub use envoy::extensions::filters::listener::tls_inspector::v3 as tls_inspector;
pub use envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
pub use envoy::extensions::filters::network::rbac::v3 as rbac_network;
pub use envoy::extensions::filters::network::tcp_proxy::v3 as tcp_proxy;
pub use envoy::extensions::transport_sockets::raw_buffer::v3 as raw_buffer;
pub use envoy::extensions::transport_sockets::tls::v3 as tls;
pub use envoy::extensions::upstreams::http::v3 as http_protocol_options;
pub use envoy::service::discovery::v3 as discovery;
pub use envoy::r#type::matcher::v3 as matcher;
pub use envoy::r#type::v3 as types;

/// Istio's own messages.
pub mod istio {
    pub use super::messages::envoy::tcp::metadataexchange::config::MetadataExchange;
    pub use super::messages::io::istio::http::peer_metadata;
    pub use super::messages::istio::envoy::config::filter::http::alpn::v2alpha1 as alpn;
    pub use super::messages::istio::networking::nds::v1::{NameTable, name_table};
    pub use super::messages::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
    pub use super::messages::stats;
}

/// A configuration carried as a `Struct` beside its type URL; two spellings are in use.
pub mod typed_struct {
    pub use super::messages::udpa::r#type::v1::TypedStruct as Udpa;
    pub use super::messages::xds::r#type::v3::TypedStruct as Xds;
}
