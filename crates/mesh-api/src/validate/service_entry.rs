//! ServiceEntry: hosts, addresses, ports and endpoints, by resolution.

use std::collections::BTreeSet;

use super::export_to::{self, Owner};
use super::workload::{self, Addresses};
use super::{Check, selector, values};
use crate::host;
use crate::kinds::port::ServicePort;
use crate::kinds::service_entry::{Resolution, ServiceEntry};
use crate::port::Protocol;

pub fn check(c: &mut Check<'_>, spec: &ServiceEntry) {
    let selects = spec.workload_selector.as_ref();
    c.some("workloadSelector", selects, selector::check_label_selector);
    if selects.is_some() && !spec.endpoints.is_empty() {
        c.error("endpoints", "cannot stand beside workloadSelector");
    }
    check_hosts(c, spec);
    check_addresses(c, spec);
    check_ports(c, spec);
    check_resolution(c, spec);
    export_to::check(c, &spec.export_to, Owner::ServiceEntry);
}

fn check_hosts(c: &mut Check<'_>, spec: &ServiceEntry) {
    if spec.hosts.is_empty() {
        c.error("hosts", "must have at least one host");
    }
    c.each("hosts", &spec.hosts, |c, name| {
        if name == "*" {
            return c.error("", "cannot be `*`");
        }
        if let Err(why) = host::check_wildcard_domain(name) {
            return c.error("", why);
        }
        if name.starts_with('*') && !name.starts_with("*.") {
            c.warn("", "partial wildcards may not behave as expected");
        }
    });
    let tells_apart = |port: &ServicePort| {
        let protocol = Protocol::parse(&port.protocol);
        protocol.is_http() || protocol.is_tls()
    };
    let several = spec.hosts.len() > 1 && spec.resolution != Resolution::None;
    if several && !spec.ports.iter().all(tells_apart) {
        c.error(
            "hosts",
            "several hosts need ports with HTTP or TLS to be told apart",
        );
    }
}

fn check_addresses(c: &mut Check<'_>, spec: &ServiceEntry) {
    c.each("addresses", &spec.addresses, |c, address| {
        c.verify("", values::ip_or_range(address));
    });
    let ranges = spec.addresses.iter().any(|address| address.contains('/'));
    if ranges && !matches!(spec.resolution, Resolution::None | Resolution::Static) {
        c.error(
            "addresses",
            "ranges are allowed with resolution NONE or STATIC only",
        );
    }
    let is_tcp = |port: &ServicePort| {
        matches!(
            Protocol::parse(&port.protocol),
            Protocol::Tcp | Protocol::Unsupported
        )
    };
    if spec.resolution == Resolution::None
        && spec.addresses.is_empty()
        && spec.ports.iter().any(is_tcp)
    {
        c.warn(
            "addresses",
            "without addresses all traffic on the TCP ports is taken",
        );
    }
}

fn check_ports(c: &mut Check<'_>, spec: &ServiceEntry) {
    let mut names = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    c.each("ports", &spec.ports, |c, port| {
        c.verify("number", values::port(port.number));
        c.verify("name", values::port_name(&port.name));
        if !names.insert(port.name.clone()) {
            c.error("name", "is given twice");
        }
        if !numbers.insert(port.number) {
            c.error("number", "is given twice");
        }
        if port.target_port != 0 {
            c.verify("targetPort", values::port(port.target_port));
        }
        if !port.protocol.is_empty() && Protocol::parse(&port.protocol).is_unsupported() {
            let message = format!("unknown protocol {:?}", values::cut(&port.protocol));
            c.not_allowed("protocol", message, super::gateway::PROTOCOLS);
        }
    });
}

fn check_resolution(c: &mut Check<'_>, spec: &ServiceEntry) {
    let addresses = match spec.resolution {
        Resolution::None => {
            if !spec.endpoints.is_empty() {
                c.error("endpoints", "resolution NONE cannot have endpoints");
            }
            Addresses::NamesToo
        }
        Resolution::Static => Addresses::OnlyIp,
        Resolution::Dns | Resolution::DnsRoundRobin => {
            check_dns(c, spec);
            Addresses::NotSockets
        }
        Resolution::DynamicDns => {
            check_dynamic_dns(c, spec);
            Addresses::NamesToo
        }
    };
    let names: BTreeSet<&str> = spec.ports.iter().map(|port| port.name.as_str()).collect();
    c.each("endpoints", &spec.endpoints, |c, endpoint| {
        workload::check_endpoint(c, endpoint, Some(&names), addresses);
    });
}

fn check_dns(c: &mut Check<'_>, spec: &ServiceEntry) {
    if spec.endpoints.is_empty() && spec.workload_selector.is_none() {
        c.each("hosts", &spec.hosts, |c, name| {
            if host::check_fqdn(name).is_err() {
                c.error(
                    "",
                    "must be a full name, for there are no endpoints to resolve",
                );
            }
        });
    }
    if spec.resolution == Resolution::DnsRoundRobin && spec.endpoints.len() > 1 {
        c.error(
            "endpoints",
            "resolution DNS_ROUND_ROBIN can have one endpoint only",
        );
    }
}

fn check_dynamic_dns(c: &mut Check<'_>, spec: &ServiceEntry) {
    c.each("hosts", &spec.hosts, |c, name| {
        if !host::is_wildcard(name) {
            c.error("", "resolution DYNAMIC_DNS takes wildcard hosts only");
        }
    });
    for (field, used) in [
        ("endpoints", !spec.endpoints.is_empty()),
        ("addresses", !spec.addresses.is_empty()),
        ("workloadSelector", spec.workload_selector.is_some()),
    ] {
        if used {
            c.error(field, "cannot stand beside resolution DYNAMIC_DNS");
        }
    }
    c.each("ports", &spec.ports, |c, port| {
        let protocol = Protocol::parse(&port.protocol);
        let known = matches!(
            protocol,
            Protocol::Http | Protocol::Grpc | Protocol::Http2 | Protocol::Tls
        );
        if !known {
            c.not_allowed("protocol", "not with DYNAMIC_DNS", "HTTP, HTTP2, GRPC, TLS");
        }
    });
}
