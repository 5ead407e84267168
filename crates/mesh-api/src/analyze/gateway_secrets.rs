//! Secrets that Gateways name: they exist beside the gateway's workload and hold a certificate.

use super::Report;
use super::mesh::Mesh;
use crate::kinds::core::Secret;
use crate::kinds::gateway::{Gateway, Server};
use crate::kinds::{Kind, Spec};
use crate::labels;
use crate::object::Object;

pub fn run(mesh: &Mesh<'_>, report: &mut Report) {
    for object in mesh.of_kind(Kind::Gateway) {
        let Spec::Gateway(spec) = &object.spec else {
            continue;
        };
        if spec
            .servers
            .iter()
            .all(|server| credentials(server).is_empty())
        {
            continue;
        }
        let Some(namespace) = workload_namespace(mesh, spec) else {
            let shown = labels::show(&spec.selector);
            let message = format!("no workload is selected by {shown:?}");
            report.add("IST0101", object, "spec.selector", message);
            continue;
        };
        for (index, server) in spec.servers.iter().enumerate() {
            for name in credentials(server) {
                check(mesh, report, (object, index), (&namespace, name));
            }
        }
    }
}

/// Names of secrets; references by URL are not looked at.
fn credentials(server: &Server) -> Vec<&str> {
    let Some(tls) = &server.tls else {
        return Vec::new();
    };
    let one = Some(tls.credential_name.as_str());
    let all = one
        .into_iter()
        .chain(tls.credential_names.iter().map(String::as_str));
    all.filter(|name| !name.is_empty() && !name.contains("://"))
        .collect()
}

fn workload_namespace(mesh: &Mesh<'_>, spec: &Gateway) -> Option<String> {
    if mesh.is_platform_gateway(&spec.selector) {
        return Some(mesh.options.root_namespace.clone());
    }
    let workload = mesh
        .workloads
        .iter()
        .find(|w| labels::is_subset(&spec.selector, w.labels))?;
    Some(workload.object.meta.namespace.clone())
}

fn check(
    mesh: &Mesh<'_>,
    report: &mut Report,
    (object, server): (&Object, usize),
    (namespace, name): (&str, &str),
) {
    let path = format!("spec.servers[{server}].tls.credentialName");
    let mut secrets = mesh.of_kind(Kind::Secret);
    let found = secrets.find(|s| s.meta.name == name && s.meta.namespace == namespace);
    match found.map(|secret| &secret.spec) {
        Some(Spec::Secret(secret)) if !holds_certificate(secret) => {
            let message = format!("the secret {namespace}/{name} holds no certificate and key");
            report.add("IST0161", object, &path, message);
        }
        Some(_) => {}
        None => {
            let message = format!("the secret {namespace}/{name} is not found");
            report.add("IST0101", object, &path, message);
        }
    }
}

fn holds_certificate(secret: &Secret) -> bool {
    // What base64 makes of `-----BEGIN`.
    const PEM: &str = "LS0tLS1CRUdJT";
    let has = |key: &str| {
        secret
            .data
            .get(key)
            .is_some_and(|value| value.trim_start().starts_with(PEM))
            || secret
                .string_data
                .get(key)
                .is_some_and(|text| text.contains("-----BEGIN"))
    };
    (has("tls.crt") && has("tls.key")) || (has("cert") && has("key"))
}
