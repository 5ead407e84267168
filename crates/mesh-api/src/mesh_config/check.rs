//! What is well-formed in a MeshConfig and cannot be taken.

use std::time::Duration;

use super::{MeshConfig, MeshOutboundMode};

impl MeshConfig {
    /// (key, reason) of each.
    pub(super) fn problems(&self) -> Vec<(String, String)> {
        let mut out = Vec::new();
        let mut bad = |key: &str, why: &str| out.push((key.to_owned(), why.to_owned()));
        for (key, port) in [
            ("proxyListenPort", self.proxy_listen_port),
            ("proxyInboundListenPort", self.proxy_inbound_listen_port),
            (
                "defaultConfig.proxyAdminPort",
                self.default_config.proxy_admin_port,
            ),
            ("defaultConfig.statusPort", self.default_config.status_port),
        ] {
            if !(1..=65535).contains(&port) {
                bad(key, "is not a port (1 to 65535)");
            }
        }
        let least = Duration::from_millis(1);
        if self.connect_timeout.is_none_or(|timeout| timeout < least) {
            bad("connectTimeout", "must be at least 1ms");
        }
        if self.trust_domain.is_empty() || self.trust_domain.contains(['/', ' ']) {
            bad("trustDomain", "is not a trust domain");
        }
        if self.root_namespace.is_empty() {
            bad("rootNamespace", "must not be empty");
        }
        if self.outbound_traffic_policy.mode == MeshOutboundMode::AllowAnyDynamicDns {
            bad(
                "outboundTrafficPolicy.mode",
                "ALLOW_ANY_DYNAMIC_DNS is not performed",
            );
        }
        if self.default_config.concurrency.is_some_and(|n| n < 0) {
            bad("defaultConfig.concurrency", "must not be negative");
        }
        for (key, value) in [
            ("defaultConfig.configPath", &self.default_config.config_path),
            ("defaultConfig.binaryPath", &self.default_config.binary_path),
            (
                "defaultConfig.serviceCluster",
                &self.default_config.service_cluster,
            ),
        ] {
            if value.is_empty() {
                bad(key, "must not be empty");
            }
        }
        if let Err(why) = host_and_port(&self.default_config.discovery_address) {
            bad("defaultConfig.discoveryAddress", &why);
        }
        if self
            .default_config
            .drain_duration
            .is_none_or(|duration| duration < least)
        {
            bad("defaultConfig.drainDuration", "must be at least 1ms");
        }
        for (name, key) in self
            .default_config
            .proxy_metadata
            .keys()
            .map(|key| (key, "defaultConfig.proxyMetadata"))
        {
            if name.is_empty() || name.contains(['=', '\0']) {
                bad(key, "holds a key that is no environment variable");
            }
        }
        out
    }
}

/// `host:port`, where the host is a name or an address (IPv6 in brackets).
fn host_and_port(text: &str) -> Result<(), String> {
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err("must have the form host:port".to_owned());
    };
    if !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err("must end with a port (1 to 65535)".to_owned());
    }
    match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(v6) if v6.parse::<std::net::Ipv6Addr>().is_ok() => Ok(()),
        Some(_) => Err("holds a malformed IPv6 address".to_owned()),
        None if host.parse::<std::net::Ipv4Addr>().is_ok() => Ok(()),
        None => crate::host::check_fqdn(host),
    }
}
