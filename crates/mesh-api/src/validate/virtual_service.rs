//! VirtualService: hosts, gateways, and the TCP and TLS routes.

use super::export_to::{self, Owner};
use super::{Check, http_route, overlap, values};
use crate::host;
use crate::kinds::destination::{Destination, RouteDestination};
use crate::kinds::virtual_service::{
    L4MatchAttributes, TcpRoute, TlsMatchAttributes, TlsRoute, VirtualService,
};

/// The reserved name for every sidecar.
pub const MESH_GATEWAY: &str = "mesh";

pub fn check(c: &mut Check<'_>, spec: &VirtualService) {
    let is_delegate = spec.hosts.is_empty();
    if is_delegate {
        check_delegate(c, spec);
    }
    let mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|g| g == MESH_GATEWAY);
    let gateway = spec.gateways.iter().any(|g| g != MESH_GATEWAY);
    check_gateway_names(c, &spec.gateways);
    check_hosts(c, spec, mesh);
    if spec.http.is_empty() && spec.tcp.is_empty() && spec.tls.is_empty() {
        c.error("", "http, tcp or tls must be provided");
    }
    c.each("http", &spec.http, |c, route| {
        http_route::check(c, route, is_delegate);
        if !gateway && !is_delegate && http_route::matches_claims(route) {
            c.error("match", "matching on JWT claims works at gateways only");
        }
    });
    c.each("tls", &spec.tls, |c, route| check_tls_route(c, route, spec));
    c.each("tcp", &spec.tcp, check_tcp_route);
    export_to::check(c, &spec.export_to, Owner::Other);
    overlap::check(c, spec);
}

fn check_delegate(c: &mut Check<'_>, spec: &VirtualService) {
    let only = "a VirtualService without hosts is a delegate and cannot have this";
    for (field, used) in [
        ("gateways", !spec.gateways.is_empty()),
        ("tls", !spec.tls.is_empty()),
        ("tcp", !spec.tcp.is_empty()),
    ] {
        if used {
            c.error(field, only);
        }
    }
}

fn check_hosts(c: &mut Check<'_>, spec: &VirtualService, mesh: bool) {
    let mut all_valid = true;
    c.each("hosts", &spec.hosts, |c, name| {
        let outcome = match mesh || spec.tls.is_empty() {
            true => host::check_wildcard_domain(name),
            false => host::check_sni_domain(name),
        };
        match outcome {
            Err(_) if values::is_ip(name) => {}
            Err(why) => {
                c.error("", why);
                all_valid = false;
            }
            Ok(()) if mesh && name == "*" => {
                c.error("", "`*` is not allowed for the mesh gateway");
                all_valid = false;
            }
            Ok(()) => {}
        }
    });
    if !all_valid {
        return;
    }
    for (index, name) in spec.hosts.iter().enumerate() {
        if let Some(other) = spec.hosts[..index]
            .iter()
            .find(|other| host::matches(name, other))
        {
            c.error(&format!("hosts[{index}]"), format!("overlaps with {other}"));
        }
    }
}

pub fn check_gateway_names(c: &mut Check<'_>, gateways: &[String]) {
    c.each("gateways", gateways, |c, name| {
        let Some((namespace, gateway)) = name.split_once('/') else {
            if let Some((gateway, rest)) = name.split_once('.') {
                let namespace = rest.split('.').next().unwrap_or(rest);
                c.warn("", format!("use the form {namespace}/{gateway}"));
            }
            return c.verify("", host::check_fqdn(name));
        };
        if !host::is_dns_label(namespace) || !host::is_dns_label(gateway) {
            let message = format!("{:?} is not the name of a gateway", values::cut(name));
            c.not_allowed("", message, "mesh, name or namespace/name");
        }
    });
}

pub fn check_destination(c: &mut Check<'_>, destination: &Destination) {
    match destination.host.as_str() {
        "*" => c.error("host", "a destination cannot be `*`"),
        name => c.verify(
            "host",
            host::check_wildcard_domain(name).or_else(|why| {
                if values::is_ip(name) {
                    Ok(())
                } else {
                    Err(why)
                }
            }),
        ),
    }
    if !destination.subset.is_empty() && !host::is_dns_label(&destination.subset) {
        let shown = values::cut(&destination.subset);
        c.error("subset", format!("{shown:?} is not the name of a subset"));
    }
    c.some("port", destination.port.as_ref(), |c, port| {
        c.verify("number", values::port(port.number));
    });
}

/// Weights: none negative, and not all zero if there are several.
pub fn check_weights(c: &mut Check<'_>, weights: &[i32]) {
    let mut total: i64 = 0;
    for (index, weight) in weights.iter().enumerate() {
        if *weight < 0 {
            c.error(&format!("route[{index}].weight"), "must not be negative");
        }
        total += i64::from(*weight);
    }
    if weights.len() > 1 && total == 0 {
        c.error("route", "the weights add up to 0");
    }
}

fn check_route_destinations(c: &mut Check<'_>, routes: &[RouteDestination]) {
    if routes.is_empty() {
        c.error("route", "must be provided");
    }
    c.each("route", routes, |c, route| match &route.destination {
        Some(destination) => c.at("destination", |c| check_destination(c, destination)),
        None => c.error("destination", "must be provided"),
    });
    let weights: Vec<i32> = routes.iter().map(|route| route.weight).collect();
    check_weights(c, &weights);
}

fn check_tls_route(c: &mut Check<'_>, route: &TlsRoute, spec: &VirtualService) {
    if route.r#match.is_empty() {
        c.error("match", "a TLS route must have at least one match");
    }
    c.each("match", &route.r#match, |c, found| {
        check_tls_match(c, found, spec)
    });
    check_route_destinations(c, &route.route);
}

fn check_tls_match(c: &mut Check<'_>, found: &TlsMatchAttributes, spec: &VirtualService) {
    if found.sni_hosts.is_empty() {
        c.error("sniHosts", "must name at least one host");
    }
    c.each(
        "sniHosts",
        &found.sni_hosts,
        |c, name| match host::check_sni_domain(name) {
            Err(_) if values::is_ip(name) => {
                c.warn(
                    "",
                    "an IP address is not a server name as the TLS standard has it",
                );
            }
            Err(why) => c.error("", why),
            Ok(()) => {
                if !spec.hosts.iter().any(|of| host::is_subset(name, of)) {
                    c.error("", format!("{name} is not part of any of the hosts"));
                }
            }
        },
    );
    check_subnets(c, "destinationSubnets", &found.destination_subnets);
    check_l4_rest(c, found.port, &found.gateways, &found.source_namespace);
    c.verify("sourceLabels", crate::labels::check(&found.source_labels));
}

fn check_tcp_route(c: &mut Check<'_>, route: &TcpRoute) {
    c.each("match", &route.r#match, |c, found: &L4MatchAttributes| {
        check_subnets(c, "destinationSubnets", &found.destination_subnets);
        if !found.source_subnet.is_empty() {
            c.verify("sourceSubnet", values::ip_or_range(&found.source_subnet));
        }
        check_l4_rest(c, found.port, &found.gateways, &found.source_namespace);
        c.verify("sourceLabels", crate::labels::check(&found.source_labels));
    });
    check_route_destinations(c, &route.route);
}

fn check_subnets(c: &mut Check<'_>, field: &str, subnets: &[String]) {
    c.each(field, subnets, |c, subnet| {
        c.verify("", values::ip_or_range(subnet))
    });
}

fn check_l4_rest(c: &mut Check<'_>, port: u32, gateways: &[String], namespace: &str) {
    if port != 0 {
        c.verify("port", values::port(port));
    }
    check_gateway_names(c, gateways);
    if !namespace.is_empty() && !values::is_namespace(namespace) {
        c.error("sourceNamespace", "is not a namespace");
    }
}
