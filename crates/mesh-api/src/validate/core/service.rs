//! Service.

use std::collections::BTreeSet;

use crate::kinds::core::IntOrString;
use crate::kinds::core::service::{ServicePort, ServiceSpec, ServiceType};
use crate::validate::{Check, values};

pub fn check(c: &mut Check<'_>, spec: &ServiceSpec) {
    let external = spec.r#type == ServiceType::ExternalName;
    if external {
        c.verify("externalName", crate::host::check_fqdn(&spec.external_name));
    } else if spec.ports.is_empty() && !spec.is_headless() {
        c.error("ports", "must have at least one port");
    }
    if !matches!(spec.cluster_ip.as_str(), "" | "None") {
        c.verify("clusterIP", values::ip(&spec.cluster_ip));
    }
    c.verify("selector", crate::labels::check(&spec.selector));
    let mut names = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    c.each("ports", &spec.ports, |c, port| {
        check_port(c, port);
        if spec.ports.len() > 1 && port.name.is_empty() {
            c.error("name", "must be set when there are several ports");
        }
        if !port.name.is_empty() && !names.insert(port.name.clone()) {
            c.error("name", "is given twice");
        }
        if !numbers.insert((port.port, port.protocol.clone())) {
            c.error("port", "is given twice");
        }
    });
    if !matches!(spec.session_affinity.as_str(), "" | "None" | "ClientIP") {
        c.not_allowed("sessionAffinity", "is not known", "None, ClientIP");
    }
}

fn check_port(c: &mut Check<'_>, port: &ServicePort) {
    c.verify("port", values::port(u32::try_from(port.port).unwrap_or(0)));
    if !port.name.is_empty() {
        c.verify("name", values::port_name(&port.name));
    }
    if !matches!(port.protocol.as_str(), "" | "TCP" | "UDP" | "SCTP") {
        c.not_allowed("protocol", "is not known", "TCP, UDP, SCTP");
    }
    match &port.target_port {
        Some(IntOrString::Int(number)) => {
            c.verify(
                "targetPort",
                values::port(u32::try_from(*number).unwrap_or(0)),
            );
        }
        Some(IntOrString::String(name)) => c.verify("targetPort", values::port_name(name)),
        None => {}
    }
}
