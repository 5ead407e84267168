//! `defaultConfig`: how each proxy of the mesh starts (Istio's mesh.v1alpha1.ProxyConfig).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value as Json;

use crate::kinds::proxy_config::ProxyImage;

message! {
    explicit_default
    pub struct ProxySettings {
        config_path: String,
        binary_path: String,
        service_cluster: String,
        drain_duration: Option<Duration>,
        termination_drain_duration: Option<Duration>,
        discovery_address: String,
        proxy_admin_port: i32,
        status_port: i32,
        stat_name_length: i32,
        /// Unset: as many as the agent finds fit; 0: all cores.
        concurrency: Option<i32>,
        interception_mode: InterceptionMode,
        proxy_metadata: BTreeMap<String, String>,
        runtime_values: BTreeMap<String, String>,
        gateway_topology: Option<Topology>,
        mesh_id: String,
        proxy_stats_matcher: Option<ProxyStatsMatcher>,
        hold_application_until_proxy_starts: bool,
        image: Option<ProxyImage>,
        proxy_headers: Option<ProxyHeaders>,
        stats_compression: bool,
        file_flush_interval: Option<Duration>,
        file_flush_min_size_kb: u32,
        connection_settings: Option<ConnectionSettings>,
        /// Keys that are known and refused, kept so that the error can name them.
        discovery_refresh_delay: Option<Json>,
        zipkin_address: Option<Json>,
        statsd_udp_address: Option<Json>,
        availability_zone: Option<Json>,
        control_plane_auth_policy: Option<Json>,
        custom_config_file: Option<Json>,
        proxy_bootstrap_template_path: Option<Json>,
        tracing: Option<Json>,
        envoy_metrics_service_address: Option<Json>,
        sds: Option<Json>,
        envoy_access_log_service: Option<Json>,
        envoy_metrics_service: Option<Json>,
        extra_stat_tags: Option<Json>,
        readiness_probe: Option<Json>,
        ca_certificates_pem: Option<Json>,
        tracing_service_name: Option<Json>,
        private_key_provider: Option<Json>,
    }
}

/// Keys of `defaultConfig` that are known and not performed: giving one is an error.
pub const PROXY_NOT_PERFORMED: &[&str] = &[
    "discoveryRefreshDelay",
    "zipkinAddress",
    "statsdUdpAddress",
    "availabilityZone",
    "controlPlaneAuthPolicy",
    "customConfigFile",
    "proxyBootstrapTemplatePath",
    "tracing",
    "envoyMetricsServiceAddress",
    "sds",
    "envoyAccessLogService",
    "envoyMetricsService",
    "extraStatTags",
    "readinessProbe",
    "caCertificatesPem",
    "tracingServiceName",
    "privateKeyProvider",
    "connectionSettings",
    "gatewayTopology",
    "proxyHeaders",
    "runtimeValues",
    "interceptionMode",
    "image",
    "statsCompression",
    "fileFlushInterval",
    "fileFlushMinSizeKb",
];

impl Default for ProxySettings {
    fn default() -> Self {
        ProxySettings {
            config_path: "./etc/istio/proxy".to_owned(),
            binary_path: "/usr/local/bin/envoy".to_owned(),
            service_cluster: "istio-proxy".to_owned(),
            drain_duration: Some(Duration::from_secs(45)),
            termination_drain_duration: Some(Duration::from_secs(5)),
            discovery_address: "istiod.istio-system.svc:15012".to_owned(),
            proxy_admin_port: 15000,
            status_port: 15020,
            stat_name_length: 189,
            concurrency: None,
            interception_mode: InterceptionMode::Redirect,
            proxy_metadata: BTreeMap::new(),
            runtime_values: BTreeMap::new(),
            gateway_topology: None,
            mesh_id: String::new(),
            proxy_stats_matcher: None,
            hold_application_until_proxy_starts: false,
            image: None,
            proxy_headers: None,
            stats_compression: true,
            file_flush_interval: Some(Duration::from_secs(1)),
            file_flush_min_size_kb: 64,
            connection_settings: None,
            discovery_refresh_delay: None,
            zipkin_address: None,
            statsd_udp_address: None,
            availability_zone: None,
            control_plane_auth_policy: None,
            custom_config_file: None,
            proxy_bootstrap_template_path: None,
            tracing: None,
            envoy_metrics_service_address: None,
            sds: None,
            envoy_access_log_service: None,
            envoy_metrics_service: None,
            extra_stat_tags: None,
            readiness_probe: None,
            ca_certificates_pem: None,
            tracing_service_name: None,
            private_key_provider: None,
        }
    }
}

impl ProxySettings {
    /// Lays an annotation's settings (or a file's) over these: a field that is given replaces the
    /// whole field, but for `proxyMetadata`, which merges by key.
    pub fn overlay(&self, text: &str) -> Result<ProxySettings, String> {
        use crate::decode::Encode;
        let loaded = crate::parse::yaml::load(text, &Default::default());
        if let Some(error) = loaded.errors.first() {
            return Err(format!("line {}: {}", error.span.line, error.message));
        }
        let Some(document) = loaded.documents.first() else {
            return Ok(self.clone());
        };
        let Json::Object(given) = document.to_json() else {
            return Err("expected a map".to_owned());
        };
        let Json::Object(mut fields) = self.encode() else {
            return Err("BUG: settings are a map".to_owned());
        };
        for (key, value) in given {
            match (key.as_str(), &value) {
                ("proxyMetadata", Json::Object(more)) => {
                    let metadata = fields
                        .entry(key)
                        .or_insert_with(|| Json::Object(<_>::default()));
                    if let Json::Object(metadata) = metadata {
                        metadata.extend(more.clone());
                    }
                }
                _ => {
                    fields.insert(key, value);
                }
            }
        }
        crate::decode::from_json(Json::Object(fields))
    }
}

enumeration! {
    pub enum InterceptionMode { Redirect = "REDIRECT", Tproxy = "TPROXY", None = "NONE" }
}

message! {
    pub struct Topology {
        num_trusted_proxies: u32,
        forward_client_cert_details: ForwardClientCertDetails,
        /// Known and refused.
        proxy_protocol: Option<Json>,
    }
}

enumeration! {
    pub enum ForwardClientCertDetails {
        Undefined = "UNDEFINED",
        Sanitize = "SANITIZE",
        ForwardOnly = "FORWARD_ONLY",
        AppendForward = "APPEND_FORWARD",
        SanitizeSet = "SANITIZE_SET",
        AlwaysForwardOnly = "ALWAYS_FORWARD_ONLY",
    }
}

message! {
    pub struct ProxyStatsMatcher {
        inclusion_prefixes: Vec<String>,
        inclusion_suffixes: Vec<String>,
        inclusion_regexps: Vec<String>,
    }
}

message! {
    pub struct ProxyHeaders {
        forwarded_client_cert: ForwardClientCertDetails,
        server: Option<ServerHeader>,
        request_id: Option<Toggle>,
        attempt_count: Option<Toggle>,
        envoy_debug_headers: Option<Toggle>,
        metadata_exchange_headers: Option<MetadataExchangeHeaders>,
        set_current_client_cert_details: Option<ClientCertDetails>,
        preserve_http1_header_case: Option<bool>,
        x_forwarded_host: Option<Switch>,
        x_forwarded_port: Option<Switch>,
    }
}

message! {
    pub struct ServerHeader {
        disabled: Option<bool>,
        value: String,
    }
}

message! {
    pub struct Toggle {
        disabled: Option<bool>,
    }
}

message! {
    pub struct Switch {
        enabled: Option<bool>,
    }
}

message! {
    pub struct MetadataExchangeHeaders {
        mode: MetadataExchangeMode,
    }
}

enumeration! {
    pub enum MetadataExchangeMode { Undefined = "UNDEFINED", InMesh = "IN_MESH" }
}

message! {
    pub struct ClientCertDetails {
        subject: Option<bool>,
        cert: Option<bool>,
        chain: Option<bool>,
        dns: Option<bool>,
        uri: Option<bool>,
    }
}

/// Known and refused; its members are not read.
pub type ConnectionSettings = Json;
