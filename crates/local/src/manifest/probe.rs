//! A container's probes with Kubernetes' defaults, their ports resolved.

use std::time::Duration;

use mesh_api::Object;
use mesh_api::kinds::core::IntOrString;
use mesh_api::kinds::core::container::Container;
use mesh_api::kinds::core::probe::{Probe, ProbeHandler};

use crate::manifest::problems::Problems;
use crate::manifest::template::{ProbeAction, ProbeTemplate};

/// Where a probe stands.
pub struct Place<'a> {
    pub object: &'a Object,
    pub container: &'a Container,
    pub path: &'a str,
}

/// The probe in `field`, if there is one that can be performed.
pub fn resolve(place: &Place<'_>, field: &str, problems: &mut Problems) -> Option<ProbeTemplate> {
    let container = place.container;
    let probe = match field {
        "readinessProbe" => container.readiness_probe.as_ref(),
        "livenessProbe" => container.liveness_probe.as_ref(),
        _ => container.startup_probe.as_ref(),
    }?;
    let path = format!("{}.{field}", place.path);
    let Some(handler) = &probe.handler else {
        problems.error(place.object, &path, "says not how to probe");
        problems.allow("httpGet | tcpSocket | exec | grpc");
        return None;
    };
    let port_of = |port: &IntOrString, kind: &str, problems: &mut Problems| {
        let found = port_number(container, port);
        if found.is_none() {
            let path = format!("{path}.{kind}.port");
            problems.error(place.object, &path, "is neither a port nor the name of one");
        }
        found
    };
    let action = match handler {
        ProbeHandler::HttpGet(get) => {
            let host = (!get.host.is_empty()).then_some("host");
            let scheme = (get.scheme == "HTTPS").then_some("scheme");
            if let Some(field) = host.or(scheme) {
                let path = format!("{path}.httpGet.{field}");
                problems.error(
                    place.object,
                    &path,
                    "is not supported on the local platform",
                );
            }
            let headers = get.http_headers.iter();
            ProbeAction::Http {
                port: port_of(&get.port, "httpGet", problems)?,
                path: if get.path.is_empty() {
                    "/".to_owned()
                } else {
                    get.path.clone()
                },
                headers: headers
                    .map(|one| (one.name.clone(), one.value.clone()))
                    .collect(),
            }
        }
        ProbeHandler::TcpSocket(tcp) => ProbeAction::Tcp {
            port: port_of(&tcp.port, "tcpSocket", problems)?,
        },
        ProbeHandler::Grpc(grpc) => {
            let port = IntOrString::Int(grpc.port);
            let port = port_of(&port, "grpc", problems)?;
            ProbeAction::Grpc {
                port,
                service: grpc.service.clone(),
            }
        }
        ProbeHandler::Exec(exec) => ProbeAction::Exec {
            command: exec.command.clone(),
        },
    };
    Some(with_defaults(probe, action))
}

fn with_defaults(probe: &Probe, action: ProbeAction) -> ProbeTemplate {
    let seconds = |value: i32, default: u64| {
        let value = u64::try_from(value).unwrap_or_default();
        Duration::from_secs(if value == 0 { default } else { value })
    };
    let count = |value: i32, default: u32| match u32::try_from(value) {
        Ok(value) if value > 0 => value,
        _ => default,
    };
    ProbeTemplate {
        action,
        initial_delay: seconds(probe.initial_delay_seconds, 0),
        period: seconds(probe.period_seconds, 10),
        timeout: seconds(probe.timeout_seconds, 1),
        successes: count(probe.success_threshold, 1),
        failures: count(probe.failure_threshold, 3),
    }
}

fn port_number(container: &Container, port: &IntOrString) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => match name.parse() {
            Ok(number) => number,
            Err(_) => {
                container
                    .ports
                    .iter()
                    .find(|port| port.name == *name)?
                    .container_port
            }
        },
    };
    u16::try_from(number).ok().filter(|number| *number > 0)
}
