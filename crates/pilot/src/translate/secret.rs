//! Certificates of gateways from Secret and ConfigMap objects of the proxy's own namespace
//! (istio.md 2.11). A name that may not be read gives no resource.

use std::collections::BTreeMap;

use base64::Engine as _;
use bytes::Bytes;
use envoy_api::core::{DataSource, data_source};
use envoy_api::tls::{CertificateValidationContext, Secret as Wire, TlsCertificate, secret};
use envoy_api::{Resource, ResourceType};
use mesh_api::{Kind, Spec};

use crate::cache::Fragment;
use crate::model::{ProxyView, Role};
use crate::snapshot::Snapshot;

const CA_SUFFIX: &str = "-cacert";

/// The secret of that resource name, if this proxy may have it.
pub fn generate(snapshot: &Snapshot, view: &ProxyView, name: &str) -> Option<Resource> {
    if view.role != Role::Router {
        return None;
    }
    let (kind, path) = match name.split_once("://")? {
        ("kubernetes", path) => (Kind::Secret, path),
        ("configmap", path) => (Kind::ConfigMap, path),
        _ => return None,
    };
    let (namespace, object) = path
        .split_once('/')
        .unwrap_or((view.namespace.as_str(), path));
    // Secrets are only for the gateway's own namespace; bundles of roots are public.
    if kind == Kind::Secret && namespace != view.namespace {
        return None;
    }
    let value = if kind == Kind::ConfigMap {
        roots(&read(snapshot, kind, namespace, object)?)?
    } else if let Some(base) = object.strip_suffix(CA_SUFFIX) {
        let own = read(snapshot, kind, namespace, object);
        let shared = || read(snapshot, kind, namespace, base);
        own.as_ref()
            .and_then(roots)
            .or_else(|| shared().as_ref().and_then(roots))?
    } else {
        certificate(&read(snapshot, kind, namespace, object)?)?
    };
    let wire = Wire {
        name: name.to_owned(),
        r#type: Some(value),
    };
    Some(Fragment::new(name.to_owned(), &wire).resource(ResourceType::Secret))
}

type Values = BTreeMap<String, Bytes>;

fn read(snapshot: &Snapshot, kind: Kind, namespace: &str, name: &str) -> Option<Values> {
    let (object, _) = snapshot.secrets.get(kind, namespace, name)?;
    let decode = |text: &String| {
        let compact: String = text.split_whitespace().collect();
        base64::engine::general_purpose::STANDARD
            .decode(compact)
            .ok()
            .map(Bytes::from)
    };
    let plain = |text: &String| Bytes::from(text.clone().into_bytes());
    let mut values = Values::new();
    match &object.spec {
        Spec::Secret(secret) => {
            for (key, text) in &secret.data {
                values.insert(key.clone(), decode(text)?);
            }
            for (key, text) in &secret.string_data {
                values.insert(key.clone(), plain(text));
            }
        }
        Spec::ConfigMap(map) => {
            for (key, text) in &map.data {
                values.insert(key.clone(), plain(text));
            }
        }
        _ => return None,
    }
    Some(values)
}

fn source(bytes: Bytes) -> DataSource {
    DataSource {
        specifier: Some(data_source::Specifier::InlineBytes(bytes)),
        ..Default::default()
    }
}

fn first(values: &Values, keys: [&str; 2]) -> Option<Bytes> {
    keys.iter()
        .find_map(|key| values.get(*key))
        .filter(|bytes| !bytes.is_empty())
        .cloned()
}

fn certificate(values: &Values) -> Option<secret::Type> {
    Some(secret::Type::TlsCertificate(TlsCertificate {
        certificate_chain: Some(source(first(values, ["tls.crt", "cert"])?)),
        private_key: Some(source(first(values, ["tls.key", "key"])?)),
        ocsp_staple: values.get("tls.ocsp-staple").cloned().map(source),
        ..Default::default()
    }))
}

fn roots(values: &Values) -> Option<secret::Type> {
    let crl = first(values, ["ca.crl", "crl"]);
    Some(secret::Type::ValidationContext(
        CertificateValidationContext {
            trusted_ca: Some(source(first(values, ["ca.crt", "cacert"])?)),
            crl: crl.map(source),
            ..Default::default()
        },
    ))
}
