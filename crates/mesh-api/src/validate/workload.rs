//! WorkloadEntry, also as an endpoint of a ServiceEntry, and WorkloadGroup.

use std::collections::BTreeSet;

use super::{Check, values};
use crate::host;
use crate::kinds::workload_entry::WorkloadEntry;
use crate::kinds::workload_group::{HealthCheckMethod, ReadinessProbe, WorkloadGroup};

/// What an address may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    OnlyIp,
    NamesToo,
    /// Names, but no unix sockets.
    NotSockets,
}

pub fn check_entry(c: &mut Check<'_>, spec: &WorkloadEntry) {
    check_endpoint(c, spec, None, Addresses::NamesToo);
}

pub fn check_endpoint(
    c: &mut Check<'_>,
    spec: &WorkloadEntry,
    service_ports: Option<&BTreeSet<&str>>,
    addresses: Addresses,
) {
    check_address(c, spec, service_ports, addresses);
    for (name, port) in &spec.ports {
        if let Some(known) = service_ports
            && !known.contains(name.as_str())
        {
            c.error(
                &format!("ports.{name}"),
                "the service has no port with this name",
            );
        }
        c.verify("ports", values::port_name(name));
        c.verify(&format!("ports.{name}"), values::port(*port));
    }
    c.verify("labels", crate::labels::check(&spec.labels));
    check_locality(c, &spec.locality);
}

fn check_address(
    c: &mut Check<'_>,
    spec: &WorkloadEntry,
    service_ports: Option<&BTreeSet<&str>>,
    addresses: Addresses,
) {
    if spec.address.is_empty() {
        if spec.network.is_empty() {
            c.error("address", "must be set, or network");
        }
        return;
    }
    if spec.address.starts_with("unix://") && addresses != Addresses::NotSockets {
        c.verify("address", values::unix_address(&spec.address));
        if !spec.ports.is_empty() {
            c.error("ports", "a unix socket has no ports");
        }
        if service_ports.is_some_and(|ports| ports.len() != 1) {
            c.error(
                "address",
                "a unix socket needs a service with exactly one port",
            );
        }
        return;
    }
    if values::is_ip(&spec.address) {
        return;
    }
    match addresses {
        Addresses::OnlyIp => c.verify("address", values::ip(&spec.address)),
        Addresses::NamesToo | Addresses::NotSockets => {
            if let Err(why) = host::check_fqdn(&spec.address) {
                c.error(
                    "address",
                    format!("neither an IP address nor a name: {why}"),
                );
            }
        }
    }
}

fn check_locality(c: &mut Check<'_>, locality: &str) {
    if !locality.is_empty() && locality.contains('*') {
        c.error("locality", "cannot hold a wildcard");
    }
}

pub fn check_group(c: &mut Check<'_>, spec: &WorkloadGroup) {
    c.some("metadata", spec.metadata.as_ref(), |c, metadata| {
        c.verify("labels", crate::labels::check(&metadata.labels));
    });
    match &spec.template {
        None => c.error("template", "must be provided"),
        Some(template) => c.at("template", |c| {
            for (name, port) in &template.ports {
                c.verify("ports", values::port_name(name));
                c.verify(&format!("ports.{name}"), values::port(*port));
            }
            c.verify("labels", crate::labels::check(&template.labels));
            if template.address.starts_with("unix://") && !template.ports.is_empty() {
                c.error("ports", "a unix socket has no ports");
            }
        }),
    }
    c.some("probe", spec.probe.as_ref(), check_probe);
}

fn check_probe(c: &mut Check<'_>, probe: &ReadinessProbe) {
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        if value < 0 {
            c.error(field, "must not be negative");
        }
    }
    match &probe.health_check_method {
        None => c.error("", "one of httpGet, tcpSocket, exec and grpc must be set"),
        Some(HealthCheckMethod::HttpGet(http)) => {
            c.verify("httpGet.port", values::port(http.port));
            if !matches!(http.scheme.as_str(), "" | "HTTP" | "HTTPS") {
                c.not_allowed("httpGet.scheme", "is not known", "HTTP, HTTPS");
            }
            for header in &http.http_headers {
                c.verify(
                    "httpGet.httpHeaders",
                    values::strict_header_name(&header.name),
                );
            }
        }
        Some(HealthCheckMethod::TcpSocket(tcp)) => {
            c.verify("tcpSocket.port", values::port(tcp.port));
        }
        Some(HealthCheckMethod::Exec(exec)) => {
            if exec.command.is_empty() {
                c.error("exec.command", "must be provided");
            }
        }
        Some(HealthCheckMethod::Grpc(grpc)) if grpc.port != 0 => {
            c.verify("grpc.port", values::port(grpc.port));
        }
        Some(HealthCheckMethod::Grpc(_)) => {}
    }
}
