//! Gateways of the same workloads that serve with one certificate: a client that re-uses its
//! HTTP/2 connection for another host gets 404.

use super::Report;
use super::mesh::Mesh;
use crate::kinds::gateway::Gateway;
use crate::kinds::tls_settings::ServerTlsSettings;
use crate::kinds::{Kind, Spec};
use crate::labels;

pub fn run(mesh: &Mesh<'_>, report: &mut Report) {
    let gateways: Vec<_> = mesh
        .of_kind(Kind::Gateway)
        .filter_map(|object| match &object.spec {
            Spec::Gateway(spec) => Some((object, &**spec)),
            _ => None,
        })
        .collect();
    for (index, (object, spec)) in gateways.iter().enumerate() {
        let others: Vec<String> = gateways
            .iter()
            .enumerate()
            .filter(|(at, (_, other))| *at != index && shares_certificate(spec, other))
            .map(|(_, (other, _))| format!("{}/{}", other.meta.namespace, other.meta.name))
            .collect();
        if !others.is_empty() {
            let message = format!(
                "{} use the same certificate, which may give 404 to clients that re-use \
                 connections",
                others.join(", "),
            );
            report.add("IST0138", object, "spec.servers", message);
        }
    }
}

fn shares_certificate(one: &Gateway, other: &Gateway) -> bool {
    labels::is_subset(&other.selector, &one.selector)
        && tls(one).any(|mine| tls(other).any(|theirs| same(mine, theirs)))
}

fn tls(gateway: &Gateway) -> impl Iterator<Item = &ServerTlsSettings> {
    gateway
        .servers
        .iter()
        .filter_map(|server| server.tls.as_ref())
}

fn same(one: &ServerTlsSettings, other: &ServerTlsSettings) -> bool {
    if !one.credential_name.is_empty() {
        return one.credential_name == other.credential_name;
    }
    let files = |tls: &ServerTlsSettings| {
        (
            tls.server_certificate.clone(),
            tls.private_key.clone(),
            tls.ca_certificates.clone(),
        )
    };
    !one.server_certificate.is_empty() && files(one) == files(other)
}
