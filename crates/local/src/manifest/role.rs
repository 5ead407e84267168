//! Which pods get a proxy, and which one: labels and annotations first, then the settings.

use std::collections::BTreeMap;

use crate::manifest::local_mesh::{Injection, LocalMesh, ProxyChoice};
use crate::manifest::template::{PodTemplate, ProxyRole};

/// The pod's annotation that chooses the proxy.
pub const PROXY_ANNOTATION: &str = "local.stolos.dev/proxy";
const INJECT: &str = "sidecar.istio.io/inject";
const NAMESPACE_INJECTION: &str = "istio-injection";

/// What pod and namespace say.
pub struct Asked<'a> {
    pub labels: &'a BTreeMap<String, String>,
    pub annotations: &'a BTreeMap<String, String>,
    pub namespace_labels: &'a BTreeMap<String, String>,
}

pub fn of(asked: &Asked<'_>, settings: &LocalMesh) -> Result<ProxyRole, String> {
    let choice = match asked.annotations.get(PROXY_ANNOTATION) {
        None => settings.proxy,
        Some(word) => ProxyChoice::from_name(word).ok_or_else(|| {
            format!("annotation {PROXY_ANNOTATION}: {word:?} is no proxy (stolos | envoy)")
        })?,
    };
    // The label comes first, as in Istio.
    let own = asked
        .labels
        .get(INJECT)
        .or_else(|| asked.annotations.get(INJECT));
    let namespace = asked.namespace_labels.get(NAMESPACE_INJECTION);
    let inject = match (own.map(String::as_str), namespace.map(String::as_str)) {
        (Some("true"), _) => true,
        (Some("false"), _) => false,
        (Some(word), _) => return Err(format!("{INJECT}: {word:?} is neither true nor false")),
        (None, Some("enabled")) => true,
        (None, Some("disabled")) => false,
        (None, _) => settings.inject == Injection::All,
    };
    Ok(if inject {
        ProxyRole::Sidecar(choice)
    } else {
        ProxyRole::None
    })
}

/// The labels that Istio's injector gives to a pod with a proxy.
pub fn add_labels(template: &mut PodTemplate, workload: &str) {
    if template.proxy == ProxyRole::None {
        return;
    }
    let labels = &mut template.labels;
    let first = |labels: &BTreeMap<String, String>, keys: &[&str], default: &str| {
        let found = keys.iter().find_map(|key| labels.get(*key).cloned());
        found.unwrap_or_else(|| default.to_owned())
    };
    let name = first(labels, &["app.kubernetes.io/name", "app"], workload);
    let revision = first(labels, &["app.kubernetes.io/version", "version"], "latest");
    for (key, value) in [
        ("security.istio.io/tlsMode", "istio".to_owned()),
        ("service.istio.io/canonical-name", name),
        ("service.istio.io/canonical-revision", revision),
    ] {
        labels.entry(key.to_owned()).or_insert(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gets_a_sidecar() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        let sidecar = Ok(ProxyRole::Sidecar(ProxyChoice::Stolos));
        for (labels, annotations, namespace, want, why) in [
            (
                map(&[]),
                map(&[]),
                map(&[]),
                sidecar.clone(),
                "on unless refused",
            ),
            (
                map(&[(INJECT, "false")]),
                map(&[]),
                map(&[]),
                Ok(ProxyRole::None),
                "the label",
            ),
            (
                map(&[]),
                map(&[(INJECT, "false")]),
                map(&[]),
                Ok(ProxyRole::None),
                "annotation",
            ),
            (
                map(&[(INJECT, "true")]),
                map(&[(INJECT, "false")]),
                map(&[]),
                sidecar.clone(),
                "the label wins",
            ),
            (
                map(&[]),
                map(&[]),
                map(&[(NAMESPACE_INJECTION, "disabled")]),
                Ok(ProxyRole::None),
                "the namespace's label",
            ),
            (
                map(&[]),
                map(&[(PROXY_ANNOTATION, "envoy")]),
                map(&[]),
                Ok(ProxyRole::Sidecar(ProxyChoice::Envoy)),
                "the pod chooses its proxy",
            ),
        ] {
            let asked = Asked {
                labels: &labels,
                annotations: &annotations,
                namespace_labels: &namespace,
            };
            assert_eq!(of(&asked, &LocalMesh::default()), want, "{why}");
        }
    }
}
