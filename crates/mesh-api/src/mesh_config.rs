//! MeshConfig: the settings of a whole mesh, with Istio's defaults. Keys that Stolos does not
//! perform are known by name and refused, unknown ones are unknown.

mod check;
mod proxy;

use std::time::Duration;

use serde_json::Value as Json;

use crate::decode::{Decode, Decoder};
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::kinds::connection_pool::{ConnectionPoolSettings, TcpKeepalive};
use crate::kinds::load_balancer::LocalityLbSetting;
use crate::kinds::outlier_detection::OutlierDetection;
use crate::kinds::tls_settings::ClientTlsSettings;
use crate::kinds::virtual_service::HttpRetry;
use crate::node::{Node, Span};
use crate::parse::yaml::{self, Limits};

pub use proxy::{
    ConnectionSettings, ForwardClientCertDetails, InterceptionMode, PROXY_NOT_PERFORMED,
    ProxyHeaders, ProxySettings, ProxyStatsMatcher, Topology,
};

message! {
    explicit_default
    pub struct MeshConfig {
        proxy_listen_port: i32,
        proxy_inbound_listen_port: i32,
        connect_timeout: Option<Duration>,
        /// Zero: no limit on the time to detect a protocol.
        protocol_detection_timeout: Option<Duration>,
        tcp_keepalive: Option<TcpKeepalive>,
        access_log_file: String,
        access_log_format: String,
        access_log_encoding: AccessLogEncoding,
        disable_envoy_listener_log: bool,
        default_config: ProxySettings,
        outbound_traffic_policy: MeshOutboundTrafficPolicy,
        inbound_traffic_policy: MeshInboundTrafficPolicy,
        enable_auto_mtls: bool,
        trust_domain: String,
        trust_domain_aliases: Vec<String>,
        default_service_export_to: Vec<String>,
        default_virtual_service_export_to: Vec<String>,
        default_destination_rule_export_to: Vec<String>,
        root_namespace: String,
        locality_lb_setting: Option<LocalityLbSetting>,
        dns_refresh_rate: Option<Duration>,
        h2_upgrade_policy: MeshH2UpgradePolicy,
        inbound_cluster_stat_name: String,
        outbound_cluster_stat_name: String,
        enable_prometheus_merge: bool,
        path_normalization: PathNormalization,
        default_http_retry_policy: Option<HttpRetry>,
        default_traffic_policy: Option<DefaultTrafficPolicy>,
        mesh_mtls = "meshMTLS": Option<MeshTls>,
        /// Keys that are known and refused, kept so that the error can name them.
        proxy_http_port: Option<Json>,
        hbone_idle_timeout: Option<Json>,
        ingress_class: Option<Json>,
        ingress_service: Option<Json>,
        ingress_controller_mode: Option<Json>,
        ingress_selector: Option<Json>,
        enable_tracing: Option<Json>,
        enable_envoy_access_log_service: Option<Json>,
        config_sources: Option<Json>,
        ca_certificates: Option<Json>,
        zone_aware_lb_setting: Option<Json>,
        certificates: Option<Json>,
        service_settings: Option<Json>,
        service_scope_configs: Option<Json>,
        verify_certificate_at_client: Option<Json>,
        ca: Option<Json>,
        extension_providers: Option<Json>,
        default_providers: Option<Json>,
        discovery_selectors: Option<Json>,
        default_inbound_http_retry_policy: Option<Json>,
        tls_defaults: Option<Json>,
        service_entry_visibility: Option<Json>,
    }
}

enumeration! {
    pub enum AccessLogEncoding { Text = "TEXT", Json = "JSON" }
}

message! {
    explicit_default
    pub struct MeshOutboundTrafficPolicy {
        mode: MeshOutboundMode,
        /// Known and refused.
        tls: Option<ClientTlsSettings>,
    }
}

enumeration! {
    pub enum MeshOutboundMode {
        RegistryOnly = "REGISTRY_ONLY",
        AllowAny = "ALLOW_ANY",
        AllowAnyDynamicDns = "ALLOW_ANY_DYNAMIC_DNS",
    }
}

impl Default for MeshOutboundTrafficPolicy {
    fn default() -> Self {
        MeshOutboundTrafficPolicy {
            mode: MeshOutboundMode::AllowAny,
            tls: None,
        }
    }
}

message! {
    pub struct MeshInboundTrafficPolicy {
        mode: MeshInboundMode,
    }
}

enumeration! {
    pub enum MeshInboundMode { Passthrough = "PASSTHROUGH", Localhost = "LOCALHOST" }
}

enumeration! {
    pub enum MeshH2UpgradePolicy { DoNotUpgrade = "DO_NOT_UPGRADE", Upgrade = "UPGRADE" }
}

message! {
    pub struct PathNormalization {
        normalization: NormalizationType,
    }
}

enumeration! {
    /// `DEFAULT` is `BASE`.
    pub enum NormalizationType {
        Default = "DEFAULT",
        None = "NONE",
        Base = "BASE",
        MergeSlashes = "MERGE_SLASHES",
        DecodeAndMergeSlashes = "DECODE_AND_MERGE_SLASHES",
    }
}

message! {
    pub struct DefaultTrafficPolicy {
        connection_pool: Option<ConnectionPoolSettings>,
        outlier_detection: Option<OutlierDetection>,
    }
}

message! {
    pub struct MeshTls {
        min_protocol_version: MeshTlsProtocol,
        ecdh_curves: Vec<String>,
        cipher_suites: Vec<String>,
    }
}

enumeration! {
    pub enum MeshTlsProtocol { Auto = "TLS_AUTO", V1_2 = "TLSV1_2", V1_3 = "TLSV1_3" }
}

impl Default for MeshConfig {
    fn default() -> Self {
        let everyone = || vec!["*".to_owned()];
        MeshConfig {
            proxy_listen_port: 15001,
            proxy_inbound_listen_port: 15006,
            connect_timeout: Some(Duration::from_secs(10)),
            protocol_detection_timeout: Some(Duration::ZERO),
            tcp_keepalive: None,
            access_log_file: String::new(),
            access_log_format: String::new(),
            access_log_encoding: AccessLogEncoding::Text,
            disable_envoy_listener_log: false,
            default_config: ProxySettings::default(),
            outbound_traffic_policy: MeshOutboundTrafficPolicy::default(),
            inbound_traffic_policy: MeshInboundTrafficPolicy::default(),
            enable_auto_mtls: true,
            trust_domain: "cluster.local".to_owned(),
            trust_domain_aliases: Vec::new(),
            default_service_export_to: everyone(),
            default_virtual_service_export_to: everyone(),
            default_destination_rule_export_to: everyone(),
            root_namespace: "istio-system".to_owned(),
            locality_lb_setting: Some(LocalityLbSetting {
                enabled: Some(true),
                ..LocalityLbSetting::default()
            }),
            dns_refresh_rate: Some(Duration::from_secs(60)),
            h2_upgrade_policy: MeshH2UpgradePolicy::DoNotUpgrade,
            inbound_cluster_stat_name: String::new(),
            outbound_cluster_stat_name: String::new(),
            enable_prometheus_merge: true,
            path_normalization: PathNormalization::default(),
            default_http_retry_policy: None,
            default_traffic_policy: None,
            mesh_mtls: None,
            proxy_http_port: None,
            hbone_idle_timeout: None,
            ingress_class: None,
            ingress_service: None,
            ingress_controller_mode: None,
            ingress_selector: None,
            enable_tracing: None,
            enable_envoy_access_log_service: None,
            config_sources: None,
            ca_certificates: None,
            zone_aware_lb_setting: None,
            certificates: None,
            service_settings: None,
            service_scope_configs: None,
            verify_certificate_at_client: None,
            ca: None,
            extension_providers: None,
            default_providers: None,
            discovery_selectors: None,
            default_inbound_http_retry_policy: None,
            tls_defaults: None,
            service_entry_visibility: None,
        }
    }
}

/// Keys of MeshConfig that are known and not performed: giving one is an error.
pub const NOT_PERFORMED: &[&str] = &[
    "proxyHttpPort",
    "hboneIdleTimeout",
    "ingressClass",
    "ingressService",
    "ingressControllerMode",
    "ingressSelector",
    "enableTracing",
    "enableEnvoyAccessLogService",
    "configSources",
    "caCertificates",
    "zoneAwareLbSetting",
    "certificates",
    "serviceSettings",
    "serviceScopeConfigs",
    "verifyCertificateAtClient",
    "ca",
    "extensionProviders",
    "defaultProviders",
    "discoverySelectors",
    "defaultInboundHttpRetryPolicy",
    "tlsDefaults",
    "serviceEntryVisibility",
    "outboundTrafficPolicy.tls",
    "meshMTLS",
    "enablePrometheusMerge",
];

impl MeshConfig {
    /// The keys that are in force.
    pub fn performed_keys() -> Vec<String> {
        let refused = |key: &String| !NOT_PERFORMED.contains(&key.as_str());
        Self::field_names().into_iter().filter(refused).collect()
    }

    /// Reads a file whose only document is a MeshConfig.
    pub fn parse(file: &str, text: &str) -> Result<MeshConfig, Vec<Diagnostic>> {
        let loaded = yaml::load(text, &Limits::default());
        if !loaded.errors.is_empty() {
            let report = |error: yaml::SyntaxError| {
                finding(
                    file,
                    error.span,
                    String::new(),
                    Reason::Syntax,
                    error.message,
                )
            };
            return Err(loaded.errors.into_iter().map(report).collect());
        }
        match loaded.documents.as_slice() {
            [] => Ok(MeshConfig::default()),
            [only] => Self::from_node(file, only, ""),
            [_, second, ..] => {
                let message = "a MeshConfig is one document".to_owned();
                Err(vec![finding(
                    file,
                    second.span,
                    String::new(),
                    Reason::Invalid,
                    message,
                )])
            }
        }
    }

    /// Reads a MeshConfig that is part of another document, at `path` in it.
    pub fn from_node(file: &str, node: &Node, path: &str) -> Result<MeshConfig, Vec<Diagnostic>> {
        let mut decoder = Decoder::new(path);
        let config = MeshConfig::decode(node, &mut decoder);
        let mut findings: Vec<Diagnostic> = Vec::new();
        for problem in decoder.problems {
            let mut found = finding(
                file,
                problem.span,
                problem.path,
                problem.reason,
                problem.message,
            );
            found.allowed = problem.allowed;
            findings.push(found);
        }
        let under = |key: &str| match path {
            "" => key.to_owned(),
            _ => format!("{path}.{key}"),
        };
        let proxy_keys = PROXY_NOT_PERFORMED
            .iter()
            .map(|key| format!("defaultConfig.{key}"));
        for key in NOT_PERFORMED
            .iter()
            .map(|key| (*key).to_owned())
            .chain(proxy_keys)
        {
            let Some(place) = find(node, &key) else {
                continue;
            };
            let message = "is not performed by this release".to_owned();
            findings.push(finding(
                file,
                place,
                under(&key),
                Reason::NotPerformed,
                message,
            ));
        }
        if let Some(config) = &config {
            for (key, message) in config.problems() {
                let place = find(node, &key).unwrap_or(node.span);
                findings.push(finding(file, place, under(&key), Reason::Invalid, message));
            }
        }
        findings.sort_by_key(|finding| (finding.line, finding.column));
        match config {
            Some(config) if findings.is_empty() => Ok(config),
            _ => Err(findings),
        }
    }
}

fn find(node: &Node, path: &str) -> Option<Span> {
    let mut at = node;
    for key in path.split('.') {
        at = at.member(key)?;
    }
    Some(at.span)
}

fn finding(file: &str, span: Span, path: String, reason: Reason, message: String) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        reason,
        file: file.into(),
        line: span.line,
        column: span.column,
        path,
        object: None,
        message,
        allowed: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refused_key_is_a_known_key() {
        let names = MeshConfig::field_names();
        for key in NOT_PERFORMED {
            let top = key.split('.').next().unwrap_or(key);
            assert!(names.iter().any(|name| name == top), "{key}");
        }
        let names = ProxySettings::field_names();
        for key in PROXY_NOT_PERFORMED {
            let top = key.split('.').next().unwrap_or(key);
            assert!(names.iter().any(|name| name == top), "defaultConfig.{key}");
        }
    }

    #[test]
    fn what_is_given_replaces_the_default_and_the_rest_stays() {
        let text = "outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n\
                    defaultConfig: {concurrency: 2, proxyMetadata: {A: b}}\n\
                    accessLogFile: /dev/stdout\n";
        let config = MeshConfig::parse("m.yaml", text).unwrap();
        assert_eq!(
            config.outbound_traffic_policy.mode,
            MeshOutboundMode::RegistryOnly
        );
        assert_eq!(config.default_config.concurrency, Some(2));
        assert_eq!(config.default_config.status_port, 15020);
        assert_eq!(config.access_log_file, "/dev/stdout");
        assert!(config.enable_auto_mtls && config.trust_domain == "cluster.local");
        assert_eq!(
            MeshConfig::parse("m.yaml", "").unwrap(),
            MeshConfig::default()
        );
    }

    #[test]
    fn errors_name_the_key_and_its_place() {
        for (text, want, why) in [
            (
                "trustDomian: x\n",
                "m.yaml:1:1: error: trustDomian: unknown field `trustDomian`, \
                 did you mean `trustDomain`?",
                "misspelt",
            ),
            (
                "a: 1\nenableTracing: true\n",
                "m.yaml:2:16: error: enableTracing: is not performed by this release",
                "known, refused",
            ),
            (
                "defaultConfig:\n  tracing: {}\n",
                "m.yaml:2:12: error: defaultConfig.tracing: is not performed by this release",
                "known, refused, nested",
            ),
            (
                "connectTimeout: 0s\n",
                "m.yaml:1:17: error: connectTimeout: must be at least 1ms",
                "out of range",
            ),
            (
                "accessLogEncoding: XML\n",
                "m.yaml:1:20: error: accessLogEncoding: unknown value `XML` (allowed: TEXT, JSON)",
                "enumeration",
            ),
        ] {
            let found = MeshConfig::parse("m.yaml", text).unwrap_err();
            let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert!(
                shown.iter().any(|line| line.starts_with(want)),
                "{why}: {shown:?}"
            );
        }
    }
}
