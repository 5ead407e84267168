//! Sidecar: listeners inward and outward.

use std::collections::BTreeSet;

use super::gateway::{Place, check_host};
use super::{Check, connection, selector, tls, values};
use crate::kinds::sidecar::{
    CaptureMode, IstioEgressListener, IstioIngressListener, OutboundTrafficPolicy,
    OutboundTrafficPolicyMode, Sidecar,
};
use crate::port::Protocol;

pub fn check(c: &mut Check<'_>, spec: &Sidecar) {
    c.some(
        "workloadSelector",
        spec.workload_selector.as_ref(),
        selector::check_label_selector,
    );
    if *spec == Sidecar::default() {
        c.error("", "the configuration is empty");
    }
    let mut ports = BTreeSet::new();
    c.each("ingress", &spec.ingress, |c, listener| {
        check_ingress(c, listener);
        let number = listener.port.as_ref().map_or(0, |port| port.number);
        if number != 0 && !ports.insert(number) {
            c.error("port.number", "is used by another listener too");
        }
    });
    check_egress_list(c, &spec.egress);
    c.some(
        "outboundTrafficPolicy",
        spec.outbound_traffic_policy.as_ref(),
        check_policy,
    );
    c.some(
        "inboundConnectionPool",
        spec.inbound_connection_pool.as_ref(),
        connection::check,
    );
}

fn check_protocol(c: &mut Check<'_>, protocol: &str) {
    if Protocol::parse(protocol).is_unsupported() && !protocol.is_empty() {
        let message = format!("unknown protocol {:?}", values::cut(protocol));
        c.not_allowed("port.protocol", message, super::gateway::PROTOCOLS);
    }
}

fn check_ingress(c: &mut Check<'_>, listener: &IstioIngressListener) {
    match &listener.port {
        Some(port) => {
            c.verify("port.number", values::port(port.number));
            check_protocol(c, &port.protocol);
        }
        None => c.error("port", "must be provided"),
    }
    if !listener.bind.is_empty() {
        c.verify("bind", values::ip(&listener.bind));
    }
    if !listener.default_endpoint.is_empty() {
        c.verify(
            "defaultEndpoint",
            default_endpoint(&listener.default_endpoint),
        );
    }
    c.some("tls", listener.tls.as_ref(), tls::check_server);
    c.some(
        "connectionPool",
        listener.connection_pool.as_ref(),
        connection::check,
    );
}

fn default_endpoint(endpoint: &str) -> Result<(), String> {
    if endpoint.starts_with("unix://") {
        return values::unix_address(endpoint);
    }
    let (host, port) = endpoint.rsplit_once(':').unwrap_or((endpoint, ""));
    if !matches!(host, "127.0.0.1" | "0.0.0.0" | "[::1]" | "[::]") {
        let forms = "127.0.0.1:PORT, [::1]:PORT, 0.0.0.0:PORT, [::]:PORT or unix:///PATH";
        return Err(format!("must have the form {forms}"));
    }
    match port.parse::<u32>() {
        Ok(port) => values::port(port),
        Err(_) => Err("has no port".to_owned()),
    }
}

fn check_egress_list(c: &mut Check<'_>, list: &[IstioEgressListener]) {
    let mut taken = BTreeSet::new();
    let count = list.len();
    let mut index = 0;
    c.each("egress", list, |c, listener| {
        index += 1;
        match &listener.port {
            None => {
                if index != count {
                    c.error("port", "only the last listener may be without a port");
                }
                if listener.bind.starts_with("unix://") {
                    c.verify("bind", values::unix_address(&listener.bind));
                } else if !listener.bind.is_empty() {
                    c.verify("bind", values::ip(&listener.bind));
                }
            }
            Some(port) => {
                check_protocol(c, &port.protocol);
                check_egress_address(c, listener, port.number);
                let bind = if port.number == 0 {
                    listener.bind.clone()
                } else {
                    String::new()
                };
                if !taken.insert((port.number, bind)) {
                    c.error("port", "is used by another listener too");
                }
            }
        }
        check_egress_hosts(c, listener);
    });
}

fn check_egress_address(c: &mut Check<'_>, listener: &IstioEgressListener, number: u32) {
    if number == 0 {
        if listener.bind.is_empty() {
            return c.error("bind", "port 0 needs a unix socket to bind to");
        }
        c.verify("bind", values::unix_address(&listener.bind));
        if listener.capture_mode == CaptureMode::Iptables {
            c.not_allowed(
                "captureMode",
                "a unix socket is not captured",
                "DEFAULT, NONE",
            );
        }
        return;
    }
    c.verify("port.number", values::port(number));
    if !listener.bind.is_empty() {
        c.verify("bind", values::ip(&listener.bind));
    }
}

fn check_egress_hosts(c: &mut Check<'_>, listener: &IstioEgressListener) {
    if listener.hosts.is_empty() {
        c.error("hosts", "must have at least one host");
    }
    c.each("hosts", &listener.hosts, |c, name| {
        check_host(c, name, Place::Sidecar)
    });
    let everything = listener.hosts.iter().any(|name| name == "*/*");
    let held = |name: &String| {
        let namespace = name.split_once('/').map_or("", |(namespace, _)| namespace);
        let whole = format!("{namespace}/*");
        let by_namespace = *name != whole && listener.hosts.contains(&whole);
        !name.starts_with('~') && (by_namespace || (everything && name != "*/*"))
    };
    if let Some(name) = listener.hosts.iter().find(|name| held(name)) {
        c.warn("hosts", format!("{name} is held by another entry already"));
    }
}

fn check_policy(c: &mut Check<'_>, policy: &OutboundTrafficPolicy) {
    let Some(proxy) = &policy.egress_proxy else {
        return;
    };
    if policy.mode != OutboundTrafficPolicyMode::AllowAny {
        c.error("egressProxy", "works with mode ALLOW_ANY only");
    }
    c.at("egressProxy", |c| {
        c.verify("host", crate::host::check_fqdn(&proxy.host));
        match &proxy.port {
            Some(port) => c.verify("port.number", values::port(port.number)),
            None => c.error("port", "must be provided"),
        }
    });
}
