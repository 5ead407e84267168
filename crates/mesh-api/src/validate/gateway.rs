//! Gateway: servers, their ports and hosts.

use std::collections::BTreeSet;

use super::{Check, tls, values};
use crate::host;
use crate::kinds::gateway::{Gateway, Server};
use crate::kinds::port::Port;
use crate::kinds::tls_settings::{ServerTlsMode, ServerTlsSettings};
use crate::port::Protocol;

pub fn check(c: &mut Check<'_>, spec: &Gateway) {
    if spec.servers.is_empty() {
        c.error("servers", "must have at least one server");
    }
    let mut names = BTreeSet::new();
    c.each("servers", &spec.servers, |c, server| {
        check_server(c, server);
        let name = server
            .port
            .as_ref()
            .map(|port| port.name.clone())
            .unwrap_or_default();
        if !name.is_empty() && !names.insert(name) {
            c.error("port.name", "is used by another server too");
        }
    });
}

pub const PROTOCOLS: &str = "HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, REDIS, MYSQL, TCP, TLS";

fn check_server(c: &mut Check<'_>, server: &Server) {
    if server.hosts.is_empty() {
        c.error("hosts", "must have at least one host");
    }
    let protocol = server
        .port
        .as_ref()
        .map(|port| Protocol::parse(&port.protocol));
    let protocol = protocol.unwrap_or_default();
    c.each("hosts", &server.hosts, |c, name| {
        check_host(c, name, Place::Gateway);
        let bare = name.split_once('/').map_or(name.as_str(), |(_, host)| host);
        let partial = bare.starts_with('*') && bare != "*" && !bare.starts_with("*.");
        if partial && protocol.is_tls() {
            c.error(
                "",
                format!("the partial wildcard {bare:?} cannot be matched with TLS"),
            );
        }
    });
    match &server.port {
        Some(port) => c.at("port", |c| check_port(c, port, &server.bind)),
        None => c.error("port", "must be provided"),
    }
    if server.bind.starts_with("unix://") {
        c.verify("bind", values::unix_address(&server.bind));
    } else if !server.bind.is_empty() {
        c.verify("bind", values::ip(&server.bind));
    }
    c.some("tls", server.tls.as_ref(), tls::check_server);
    check_tls_use(c, server.tls.as_ref(), protocol);
}

fn check_tls_use(c: &mut Check<'_>, tls: Option<&ServerTlsSettings>, protocol: Protocol) {
    let Some(tls) = tls else {
        if protocol.is_tls() {
            c.error("tls", format!("must be set for {protocol}"));
        }
        return;
    };
    if protocol.is_tls() {
        if tls.https_redirect {
            c.warn(
                "tls.httpsRedirect",
                "has an effect on plain HTTP servers only",
            );
        }
        return;
    }
    let only_redirect = ServerTlsSettings {
        https_redirect: true,
        ..ServerTlsSettings::default()
    };
    if protocol.is_http() {
        if *tls != only_redirect && *tls != ServerTlsSettings::default() {
            c.error(
                "tls",
                "a plain HTTP server can only redirect (httpsRedirect: true)",
            );
        }
    } else if !protocol.is_unsupported() {
        if tls.https_redirect {
            c.warn(
                "tls.httpsRedirect",
                "has an effect on plain HTTP servers only",
            );
        }
        if tls.mode != ServerTlsMode::Passthrough || !tls.https_redirect {
            c.error("tls", format!("cannot be set for {protocol}"));
        }
    }
}

pub fn check_port(c: &mut Check<'_>, port: &Port, bind: &str) {
    if Protocol::parse(&port.protocol).is_unsupported() {
        let message = format!("unknown protocol {:?}", values::cut(&port.protocol));
        c.not_allowed("protocol", message, PROTOCOLS);
    }
    if port.number > 0 || !bind.starts_with("unix://") {
        c.verify("number", values::port(port.number));
    }
    if port.name.is_empty() {
        c.error("name", "must be set");
    }
    if port.target_port != 0 {
        c.warn("targetPort", "is deprecated and has no effect");
    }
}

/// Where a `namespace/host` stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Gateway,
    Sidecar,
}

pub fn check_host(c: &mut Check<'_>, name: &str, place: Place) {
    let Some((namespace, host_name)) = name.split_once('/') else {
        match place {
            Place::Gateway => c.verify("", host::check_wildcard_domain(name)),
            Place::Sidecar => c.not_allowed("", "has no namespace", "namespace/host"),
        }
        return;
    };
    let named = match place {
        Place::Gateway => namespace,
        Place::Sidecar => namespace
            .strip_prefix('~')
            .filter(|n| !n.is_empty())
            .unwrap_or(namespace),
    };
    let special = matches!(namespace, "*" | ".") || (place == Place::Sidecar && namespace == "~");
    if !special && !values::is_namespace(named) {
        c.error(
            "",
            format!("{:?} is not a namespace", values::cut(namespace)),
        );
    }
    c.verify("", host::check_wildcard_domain(host_name));
}
