//! The keys of Istio's ProxyConfig that an agent performs; others are named in a warning.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::AgentError;

#[derive(Clone, Debug, PartialEq)]
pub struct ProxyConfig {
    pub config_path: String,
    pub binary_path: String,
    pub service_cluster: String,
    pub drain_duration: Duration,
    pub discovery_address: String,
    pub proxy_admin_port: u16,
    pub stat_name_length: u32,
    pub concurrency: Option<u32>,
    pub proxy_metadata: BTreeMap<String, String>,
    pub status_port: u16,
    pub termination_drain_duration: Duration,
    pub mesh_id: String,
    pub stats_matcher: StatsMatcher,
    pub hold_application_until_proxy_starts: bool,
    /// Keys that were given and are not performed.
    pub not_performed: Vec<String>,
    /// As it was given, for node metadata.
    pub original: Value,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct StatsMatcher {
    pub inclusion_prefixes: Vec<String>,
    pub inclusion_suffixes: Vec<String>,
    pub inclusion_regexps: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Written {
    config_path: Option<String>,
    binary_path: Option<String>,
    service_cluster: Option<String>,
    drain_duration: Option<String>,
    discovery_address: Option<String>,
    proxy_admin_port: Option<u16>,
    stat_name_length: Option<u32>,
    concurrency: Option<u32>,
    proxy_metadata: BTreeMap<String, String>,
    status_port: Option<u16>,
    termination_drain_duration: Option<String>,
    mesh_id: Option<String>,
    proxy_stats_matcher: StatsMatcher,
    hold_application_until_proxy_starts: Option<bool>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

impl ProxyConfig {
    /// From JSON, as the injector writes it.
    pub fn parse(text: &str) -> Result<ProxyConfig, AgentError> {
        let error = |reason: String| AgentError::setting("PROXY_CONFIG", reason);
        let original: Value = serde_json::from_str(text).map_err(|e| error(e.to_string()))?;
        let written: Written =
            serde_json::from_value(original.clone()).map_err(|e| error(e.to_string()))?;
        let time = |key: &str, text: Option<String>, default: u64| match text {
            None => Ok(Duration::from_secs(default)),
            Some(text) => duration(&text)
                .ok_or_else(|| error(format!("{key}: {text:?} is no duration such as \"45s\""))),
        };
        let not_performed: Vec<String> = written.other.into_keys().collect();
        if !not_performed.is_empty() {
            tracing::warn!(keys = ?not_performed, "PROXY_CONFIG: these keys are not performed");
        }
        let or = |text: Option<String>, default: &str| text.unwrap_or_else(|| default.to_string());
        Ok(ProxyConfig {
            config_path: or(written.config_path, "./etc/istio/proxy"),
            binary_path: or(written.binary_path, "/usr/local/bin/envoy"),
            service_cluster: or(written.service_cluster, ""),
            drain_duration: time("drainDuration", written.drain_duration, 45)?,
            discovery_address: or(written.discovery_address, "istiod.istio-system.svc:15012"),
            proxy_admin_port: written.proxy_admin_port.unwrap_or(15000),
            stat_name_length: written.stat_name_length.unwrap_or(189),
            concurrency: written.concurrency,
            proxy_metadata: written.proxy_metadata,
            status_port: written.status_port.unwrap_or(15020),
            termination_drain_duration: time(
                "terminationDrainDuration",
                written.termination_drain_duration,
                5,
            )?,
            mesh_id: or(written.mesh_id, ""),
            stats_matcher: written.proxy_stats_matcher,
            hold_application_until_proxy_starts: written
                .hold_application_until_proxy_starts
                .unwrap_or(false),
            not_performed,
            original,
        })
    }

    /// proxyMetadata entries that settings of the agent can come from.
    pub fn metadata_environment(&self) -> impl Iterator<Item = (&str, &str)> {
        self.proxy_metadata
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// `45s`, `1.5s`, `1m30s`, `200ms`, `24h0m0s`.
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|byte: char| !byte.is_ascii_digit() && byte != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest
            .find(|byte: char| byte.is_ascii_digit())
            .unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[letters..];
    }
    if text.is_empty() {
        None
    } else {
        Duration::try_from_secs_f64(total).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (input, want) in [
            ("45s", Some(45_000)),
            ("1.5s", Some(1_500)),
            ("1m30s", Some(90_000)),
            ("24h0m0s", Some(86_400_000)),
            ("200ms", Some(200)),
            ("", None),
            ("5", None),
            ("s", None),
            ("5x", None),
            ("-5s", None),
        ] {
            assert_eq!(
                duration(input).map(|time| time.as_millis()),
                want,
                "{input:?}"
            );
        }
    }

    #[test]
    fn keys() {
        let text = r#"{"drainDuration":"1s","proxyMetadata":{"A":"b"},"tracing":{},
            "proxyStatsMatcher":{"inclusionPrefixes":["x"]}}"#;
        let config = ProxyConfig::parse(text).unwrap();
        assert_eq!(config.drain_duration, Duration::from_secs(1));
        assert_eq!(config.not_performed, ["tracing"]);
        assert_eq!(config.stats_matcher.inclusion_prefixes, ["x"]);
        assert_eq!(config.termination_drain_duration, Duration::from_secs(5));
        for (bad, why) in [
            ("{", "no JSON"),
            (r#"{"drainDuration":"soon"}"#, "no duration"),
            (r#"{"statusPort":70000}"#, "no port"),
            (r#"{"proxyStatsMatcher":{"x":[]}}"#, "an unknown key below"),
        ] {
            assert!(ProxyConfig::parse(bad).is_err(), "{why}");
        }
    }
}
