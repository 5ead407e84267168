//! ConfigMap and Secret.

use std::collections::BTreeMap;

use crate::kinds::core::{ConfigMap, Secret};
use crate::validate::Check;

pub fn check_config_map(c: &mut Check<'_>, spec: &ConfigMap) {
    check_keys(c, "data", &spec.data);
    check_keys(c, "binaryData", &spec.binary_data);
    check_base64(c, "binaryData", &spec.binary_data);
    if let Some(key) = spec
        .data
        .keys()
        .find(|key| spec.binary_data.contains_key(*key))
    {
        c.error("binaryData", format!("{key} is in data too"));
    }
}

pub fn check_secret(c: &mut Check<'_>, spec: &Secret) {
    check_keys(c, "data", &spec.data);
    check_keys(c, "stringData", &spec.string_data);
    check_base64(c, "data", &spec.data);
}

/// Keys become file names.
fn check_keys(c: &mut Check<'_>, field: &str, map: &BTreeMap<String, String>) {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    for key in map.keys() {
        let is_name = !key.is_empty() && key.len() <= 253 && key.bytes().all(good);
        if !is_name || key == "." || key.starts_with("..") {
            let shown = crate::validate::values::cut(key);
            c.error(field, format!("{shown:?} is not a valid key"));
        }
    }
}

fn check_base64(c: &mut Check<'_>, field: &str, map: &BTreeMap<String, String>) {
    for (key, value) in map {
        let text: Vec<u8> = value.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let body = text.iter().rev().skip_while(|b| **b == b'=').count();
        let good = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
        let padding = text.len() - body;
        let is_base64 =
            text.len().is_multiple_of(4) && padding <= 2 && text[..body].iter().all(good);
        if !is_base64 {
            c.error(field, format!("the value of {key} is not base64"));
        }
    }
}
