//! TLS to destinations whose identity is not verified, because no authority is named.

use super::Report;
use super::mesh::Mesh;
use crate::kinds::tls_settings::{ClientTlsMode, ClientTlsSettings};
use crate::kinds::{Kind, Spec};

pub fn run(mesh: &Mesh<'_>, report: &mut Report) {
    for object in mesh.of_kind(Kind::DestinationRule) {
        let Spec::DestinationRule(spec) = &object.spec else {
            continue;
        };
        let Some(policy) = &spec.traffic_policy else {
            continue;
        };
        let credentials = spec.workload_selector.is_some();
        if let Some(tls) = policy
            .tls
            .as_ref()
            .filter(|tls| !verifies(tls, credentials))
        {
            let message = format!(
                "TLS mode {} without caCertificates verifies {} by the system's authorities",
                tls.mode.as_str(),
                spec.host,
            );
            report.add("IST0128", object, "spec.trafficPolicy.tls", message);
        }
        for (index, port) in policy.port_level_settings.iter().enumerate() {
            if let Some(tls) = port.tls.as_ref().filter(|tls| !verifies(tls, credentials)) {
                let number = port.port.as_ref().map_or(0, |port| port.number);
                let message = format!(
                    "TLS mode {} without caCertificates verifies {} port {number} by the \
                     system's authorities",
                    tls.mode.as_str(),
                    spec.host,
                );
                let path = format!("spec.trafficPolicy.portLevelSettings[{index}].tls");
                report.add("IST0129", object, &path, message);
            }
        }
    }
}

/// Credentials count where a workload selector makes sidecars read them.
fn verifies(tls: &ClientTlsSettings, credentials: bool) -> bool {
    !matches!(tls.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual)
        || !tls.ca_certificates.is_empty()
        || (credentials && !tls.credential_name.is_empty())
}
