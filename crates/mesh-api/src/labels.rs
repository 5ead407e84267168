//! Labels: selection by them, their syntax, and the canonical service they name.

use std::collections::BTreeMap;

pub type Labels = BTreeMap<String, String>;

/// Whether every label of `selector` is among `labels`; an empty selector selects everything.
pub fn is_subset(selector: &Labels, labels: &Labels) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

/// The same, but an empty selector selects nothing.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    !selector.is_empty() && is_subset(selector, labels)
}

/// `a=b,c` with sorted keys.
pub fn show(labels: &Labels) -> String {
    let pairs = labels.iter().map(|(key, value)| match value.as_str() {
        "" => key.clone(),
        value => format!("{key}={value}"),
    });
    pairs.collect::<Vec<_>>().join(",")
}

/// Checks keys (`[prefix/]name`) and values as Kubernetes does.
pub fn check(labels: &Labels) -> Result<(), String> {
    for (key, value) in labels {
        check_key(key)?;
        if !value.is_empty() && !is_name(value) {
            return Err(format!("the value {value:?} of label {key:?} is not valid"));
        }
    }
    Ok(())
}

/// A label's or an annotation's key.
pub fn check_key(key: &str) -> Result<(), String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let prefix_is_good =
        prefix.is_none_or(|p| p.len() <= 253 && p.split('.').all(crate::host::is_dns_label));
    match prefix_is_good && is_name(name) {
        true => Ok(()),
        false => Err(format!("{key:?} is not a valid key")),
    }
}

/// Up to 63 letters, digits, `-`, `_`, `.`, with a letter or digit at both ends.
fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

const NAME_LABELS: [&str; 3] = [
    "service.istio.io/canonical-name",
    "app.kubernetes.io/name",
    "app",
];
const REVISION_LABELS: [&str; 3] = [
    "service.istio.io/canonical-revision",
    "app.kubernetes.io/version",
    "version",
];

/// The canonical service's name and revision.
pub fn canonical_service<'l>(labels: &'l Labels, workload_name: &'l str) -> (&'l str, &'l str) {
    let first = |keys: [&str; 3]| keys.iter().find_map(|key| labels.get(*key));
    let name = first(NAME_LABELS).map_or(workload_name, String::as_str);
    let revision = first(REVISION_LABELS).map_or("latest", String::as_str);
    (name, revision)
}

/// Whether a label names the canonical service.
pub fn names_canonical_service(labels: &Labels) -> bool {
    NAME_LABELS.iter().any(|key| labels.contains_key(*key))
}
