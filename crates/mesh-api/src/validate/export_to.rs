//! `exportTo`: to which namespaces an object is visible.

use std::collections::BTreeSet;

use super::{Check, values};

/// Who asks; the rules differ a little.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Other,
    ServiceEntry,
    /// A DestinationRule with a workload selector is for its own namespace only.
    SelectingDestinationRule,
}

pub fn check(c: &mut Check<'_>, export_to: &[String], owner: Owner) {
    let own = c.object.meta.namespace.clone();
    let mut seen = BTreeSet::new();
    c.each("exportTo", export_to, |c, entry| {
        match entry.as_str() {
            "*" | "." => {}
            "~" if owner == Owner::ServiceEntry => {}
            "~" => c.error("", "`~` is for ServiceEntry only"),
            name if values::is_namespace(name) => {}
            name => {
                let message = format!("{:?} is not a namespace", values::cut(name));
                c.not_allowed("", message, "*, ., ~ or the name of a namespace");
            }
        }
        let namespace = if entry == "." {
            own.clone()
        } else {
            entry.clone()
        };
        if !seen.insert(namespace) {
            c.error("", format!("{entry} is given twice"));
        }
    });
    let everyone = export_to.iter().any(|entry| entry == "*");
    let nobody = export_to.iter().any(|entry| entry == "~");
    if export_to.len() > 1 && (everyone || nobody) {
        let sign = if everyone { "*" } else { "~" };
        c.error(
            "exportTo",
            format!("`{sign}` cannot stand beside other entries"),
        );
    }
    if owner == Owner::SelectingDestinationRule && export_to.iter().any(|entry| entry != ".") {
        c.not_allowed(
            "exportTo",
            "a rule with workloadSelector is for its own namespace",
            ".",
        );
    }
}
