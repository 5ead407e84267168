//! WasmPlugin and TrafficExtension.

use std::collections::BTreeSet;

use super::selector::{self, Targets};
use super::{Check, values};
use crate::kinds::traffic_extension::{FilterConfig, TrafficExtension};
use crate::kinds::wasm_plugin::{EnvValueSource, TrafficSelector, VmConfig, WasmPlugin};

pub fn check_wasm_plugin(c: &mut Check<'_>, spec: &WasmPlugin) {
    let targets = Targets {
        selector: spec.selector.as_ref(),
        target_ref: spec.target_ref.as_ref(),
        target_refs: &spec.target_refs,
    };
    selector::check_targets(c, &targets);
    check_module(c, &spec.url, &spec.sha256, spec.vm_config.as_ref());
    check_selectors(c, &spec.r#match);
}

pub fn check_traffic_extension(c: &mut Check<'_>, spec: &TrafficExtension) {
    let targets = Targets {
        selector: spec.selector.as_ref(),
        target_ref: None,
        target_refs: &spec.target_refs,
    };
    selector::check_targets(c, &targets);
    check_selectors(c, &spec.r#match);
    match &spec.filter_config {
        None => c.error("", "wasm or lua must be set"),
        Some(FilterConfig::Wasm(wasm)) => c.at("wasm", |c| {
            check_module(c, &wasm.url, &wasm.sha256, wasm.vm_config.as_ref());
        }),
        Some(FilterConfig::Lua(lua)) => {
            if lua.inline_code.is_empty() || lua.inline_code.len() > 64 << 10 {
                c.not_allowed("lua.inlineCode", "has a bad length", "1 byte to 64 KiB");
            }
        }
    }
}

fn check_module(c: &mut Check<'_>, url: &str, sha256: &str, vm: Option<&VmConfig>) {
    c.verify("url", module_url(url));
    let is_hash = sha256.len() == 64
        && sha256
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !sha256.is_empty() && !is_hash {
        c.error("sha256", "is not a SHA-256 in lower-case hexadecimal");
    }
    c.some("vmConfig", vm, |c, vm| {
        let mut names = BTreeSet::new();
        c.each("env", &vm.env, |c, variable| {
            if variable.name.is_empty() {
                c.error("name", "must be set");
            } else if !names.insert(variable.name.clone()) {
                c.error("name", "is given twice");
            }
            if variable.value_from == EnvValueSource::Host && !variable.value.is_empty() {
                c.error("value", "can be set when valueFrom is INLINE only");
            }
        });
    });
}

/// An image reference, or a URL of a scheme that can be fetched.
fn module_url(url: &str) -> Result<(), String> {
    let schemes = ["oci", "http", "https", "file"];
    if url.is_empty() {
        return Err("must be set".to_owned());
    }
    if url.starts_with("file://") {
        return Ok(());
    }
    if url.contains("://") {
        return values::url(url, &schemes);
    }
    let good = |c: char| c.is_ascii_alphanumeric() || "._-/:@+".contains(c);
    match url.chars().all(good) && url.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        true => Ok(()),
        false => Err(format!("{:?} is not the URL of a module", values::cut(url))),
    }
}

fn check_selectors(c: &mut Check<'_>, selectors: &[TrafficSelector]) {
    c.each("match", selectors, |c, selector| {
        c.each("ports", &selector.ports, |c, port| {
            c.verify("number", values::port(port.number));
        });
    });
}
