//! A container's environment: `env`, `envFrom` and what they refer to.

use std::collections::BTreeMap;

use mesh_api::kinds::core::container::{Container, EnvSource, EnvVar, KeyRef};

use crate::manifest::problems::Problems;
use crate::manifest::resolve::{PodSource, Sources};
use crate::manifest::template::{EnvValue, Field};

/// Names and values in the order in which they are defined.
pub type Env = Vec<(String, EnvValue)>;

/// Adds what the container's `envFrom` and `env` say to what its image says.
pub fn add(
    source: &PodSource<'_>,
    container: &Container,
    path: &str,
    (sources, problems, env): (&Sources<'_>, &mut Problems, &mut Env),
) {
    let namespace = &source.object.meta.namespace;
    for (index, from) in container.env_from.iter().enumerate() {
        let found = [
            ("configMapRef", &from.config_map_ref),
            ("secretRef", &from.secret_ref),
        ];
        for (field, reference) in found {
            let Some(reference) = reference else { continue };
            let values = match field {
                "configMapRef" => sources.config_map(namespace, &reference.name),
                _ => sources.secret(namespace, &reference.name),
            };
            if values.is_none() && reference.optional != Some(true) {
                let path = format!("{path}.envFrom[{index}].{field}.name");
                problems.error(
                    source.object,
                    &path,
                    format!("there is no {}", reference.name),
                );
            }
            for (key, value) in values.unwrap_or_default() {
                let value = String::from_utf8_lossy(&value).into_owned();
                env.push((format!("{}{key}", from.prefix), EnvValue::Literal(value)));
            }
        }
    }
    for (index, variable) in container.env.iter().enumerate() {
        let path = format!("{path}.env[{index}]");
        if let Some(value) = env_value(source, variable, &path, (sources, problems)) {
            env.push((variable.name.clone(), value));
        }
    }
}

fn env_value(
    source: &PodSource<'_>,
    variable: &EnvVar,
    path: &str,
    (sources, problems): (&Sources<'_>, &mut Problems),
) -> Option<EnvValue> {
    let origin = variable
        .value_from
        .as_ref()
        .and_then(|from| from.source.as_ref());
    let namespace = &source.object.meta.namespace;
    match origin {
        None => Some(EnvValue::Text(variable.value.clone())),
        Some(EnvSource::FieldRef(reference)) => {
            let field = field(&reference.field_path);
            if field.is_none() {
                let path = format!("{path}.valueFrom.fieldRef.fieldPath");
                let message = format!("cannot be read: {}", reference.field_path);
                problems.error(source.object, &path, message);
                problems.allow(FIELDS);
            }
            field.map(EnvValue::Field)
        }
        Some(EnvSource::ConfigMapKeyRef(key)) => {
            let values = sources.config_map(namespace, &key.name);
            key_value(source, ("configMapKeyRef", key), values, path, problems)
        }
        Some(EnvSource::SecretKeyRef(key)) => {
            let values = sources.secret(namespace, &key.name);
            key_value(source, ("secretKeyRef", key), values, path, problems)
        }
        Some(EnvSource::ResourceFieldRef(_) | EnvSource::FileKeyRef(_)) => {
            problems.error(source.object, path, "this valueFrom is not supported");
            problems.allow("fieldRef | configMapKeyRef | secretKeyRef");
            None
        }
    }
}

fn key_value(
    source: &PodSource<'_>,
    (field, key): (&str, &KeyRef),
    values: Option<BTreeMap<String, Vec<u8>>>,
    path: &str,
    problems: &mut Problems,
) -> Option<EnvValue> {
    let value = values.and_then(|mut values| values.remove(&key.key));
    if value.is_none() && key.optional != Some(true) {
        let message = format!("there is no key {} in {}", key.key, key.name);
        problems.error(source.object, &format!("{path}.valueFrom.{field}"), message);
    }
    value.map(|value| EnvValue::Literal(String::from_utf8_lossy(&value).into_owned()))
}

const FIELDS: &str = "metadata.{name,namespace,uid,labels['KEY'],annotations['KEY']} | \
                      spec.{nodeName,serviceAccountName} | status.{podIP,podIPs,hostIP}";

fn field(path: &str) -> Option<Field> {
    let keyed = |prefix: &str| {
        let key = path.strip_prefix(prefix)?.strip_suffix("']")?;
        Some(key.to_owned())
    };
    match path {
        "metadata.name" => Some(Field::Name),
        "metadata.namespace" => Some(Field::Namespace),
        "metadata.uid" => Some(Field::Uid),
        "status.podIP" | "status.podIPs" => Some(Field::PodIp),
        "status.hostIP" | "status.hostIPs" => Some(Field::HostIp),
        "spec.nodeName" => Some(Field::NodeName),
        "spec.serviceAccountName" => Some(Field::ServiceAccount),
        _ => keyed("metadata.labels['")
            .map(Field::Label)
            .or_else(|| keyed("metadata.annotations['").map(Field::Annotation)),
    }
}
