//! Containers and their probes.

use std::collections::BTreeSet;

use crate::host;
use crate::kinds::core::IntOrString;
use crate::kinds::core::container::{Container, EnvSource, EnvVar};
use crate::kinds::core::probe::{Probe, ProbeHandler};
use crate::validate::{Check, values};

pub fn check(c: &mut Check<'_>, spec: &Container, volumes: &BTreeSet<String>) {
    if !host::is_dns_label(&spec.name) {
        c.error(
            "name",
            format!("{:?} is not a DNS label", values::cut(&spec.name)),
        );
    }
    if !matches!(
        spec.image_pull_policy.as_str(),
        "" | "Always" | "IfNotPresent" | "Never"
    ) {
        c.not_allowed(
            "imagePullPolicy",
            "is not known",
            "Always, IfNotPresent, Never",
        );
    }
    c.each("env", &spec.env, check_variable);
    let mut names = BTreeSet::new();
    c.each("ports", &spec.ports, |c, port| {
        c.verify(
            "containerPort",
            values::port(u32::try_from(port.container_port).unwrap_or(0)),
        );
        if !port.name.is_empty() {
            c.verify("name", values::port_name(&port.name));
            if !names.insert(port.name.clone()) {
                c.error("name", "is given twice");
            }
        }
        if !matches!(port.protocol.as_str(), "" | "TCP" | "UDP" | "SCTP") {
            c.not_allowed("protocol", "is not known", "TCP, UDP, SCTP");
        }
    });
    let mut paths = BTreeSet::new();
    c.each("volumeMounts", &spec.volume_mounts, |c, mount| {
        if !volumes.contains(&mount.name) {
            c.error(
                "name",
                format!("there is no volume {:?}", values::cut(&mount.name)),
            );
        }
        if mount.mount_path.is_empty() {
            c.error("mountPath", "must be set");
        } else if !paths.insert(mount.mount_path.clone()) {
            c.error("mountPath", "is given twice");
        }
    });
    for (field, probe) in [
        ("livenessProbe", &spec.liveness_probe),
        ("readinessProbe", &spec.readiness_probe),
        ("startupProbe", &spec.startup_probe),
    ] {
        c.some(field, probe.as_ref(), |c, probe| {
            check_probe(c, probe, &names, field == "readinessProbe");
        });
    }
}

fn check_variable(c: &mut Check<'_>, variable: &EnvVar) {
    if variable.name.is_empty() || variable.name.contains(['=', '\0']) {
        c.error("name", "is not the name of a variable");
    }
    let Some(from) = &variable.value_from else {
        return;
    };
    if !variable.value.is_empty() {
        c.error("valueFrom", "cannot stand beside value");
    }
    match &from.source {
        None => c.error("valueFrom", "has no source"),
        Some(EnvSource::ConfigMapKeyRef(key)) if key.key.is_empty() => {
            c.error("valueFrom.configMapKeyRef.key", "must be set");
        }
        Some(EnvSource::SecretKeyRef(key)) if key.key.is_empty() => {
            c.error("valueFrom.secretKeyRef.key", "must be set");
        }
        Some(EnvSource::FieldRef(field)) if field.field_path.is_empty() => {
            c.error("valueFrom.fieldRef.fieldPath", "must be set");
        }
        Some(_) => {}
    }
}

fn check_probe(c: &mut Check<'_>, probe: &Probe, ports: &BTreeSet<String>, readiness: bool) {
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
    if !readiness && probe.success_threshold > 1 {
        c.not_allowed("successThreshold", "not for this probe", "1");
    }
    match &probe.handler {
        None => c.error("", "one of httpGet, tcpSocket, exec and grpc must be set"),
        Some(ProbeHandler::HttpGet(http)) => {
            check_target(c, "httpGet.port", &http.port, ports);
            if !matches!(http.scheme.as_str(), "" | "HTTP" | "HTTPS") {
                c.not_allowed("httpGet.scheme", "is not known", "HTTP, HTTPS");
            }
        }
        Some(ProbeHandler::TcpSocket(tcp)) => check_target(c, "tcpSocket.port", &tcp.port, ports),
        Some(ProbeHandler::Exec(exec)) => {
            if exec.command.is_empty() {
                c.error("exec.command", "must be provided");
            }
        }
        Some(ProbeHandler::Grpc(grpc)) => {
            c.verify(
                "grpc.port",
                values::port(u32::try_from(grpc.port).unwrap_or(0)),
            );
        }
    }
}

fn check_target(c: &mut Check<'_>, field: &str, port: &IntOrString, ports: &BTreeSet<String>) {
    match port {
        IntOrString::Int(number) => {
            c.verify(field, values::port(u32::try_from(*number).unwrap_or(0)));
        }
        IntOrString::String(name) => {
            if !ports.contains(name) {
                let shown = values::cut(name);
                c.error(field, format!("the container has no port named {shown:?}"));
            }
        }
    }
}
