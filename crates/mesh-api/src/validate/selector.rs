//! Selectors and target references.

use std::collections::BTreeMap;

use super::{Check, values};
use crate::kinds::selector::{LabelSelector, PolicyTargetReference, WorkloadSelector};

/// The ways in which a policy says to whom it applies; at most one may be used.
pub struct Targets<'s> {
    pub selector: Option<&'s WorkloadSelector>,
    pub target_ref: Option<&'s PolicyTargetReference>,
    pub target_refs: &'s [PolicyTargetReference],
}

pub fn check_targets(c: &mut Check<'_>, targets: &Targets<'_>) {
    let used = [
        targets.selector.is_some(),
        targets.target_ref.is_some(),
        !targets.target_refs.is_empty(),
    ];
    if used.iter().filter(|used| **used).count() > 1 {
        c.error(
            "",
            "only one of selector, targetRef and targetRefs may be set",
        );
    }
    c.some("selector", targets.selector, check_workload_selector);
    c.some("targetRef", targets.target_ref, check_target);
    c.each("targetRefs", targets.target_refs, check_target);
}

pub fn check_workload_selector(c: &mut Check<'_>, selector: &WorkloadSelector) {
    check_labels(c, "matchLabels", &selector.match_labels);
}

pub fn check_label_selector(c: &mut Check<'_>, selector: &LabelSelector) {
    check_labels(c, "labels", &selector.labels);
}

fn check_labels(c: &mut Check<'_>, field: &str, labels: &BTreeMap<String, String>) {
    if labels.is_empty() {
        c.warn(field, "the selector is empty and selects every workload");
    }
    for (key, value) in labels {
        if key.is_empty() {
            c.error(field, "the key of a label is empty");
        } else if key.contains('*') || value.contains('*') {
            c.error(
                field,
                format!("wildcards are not supported in selectors: {key}={value}"),
            );
        } else if value.len() > 63 {
            c.error(
                field,
                format!("the value of {key} is longer than 63 characters"),
            );
        }
    }
}

const ALLOWED: &str = "Service, networking.istio.io ServiceEntry, \
                       gateway.networking.k8s.io Gateway or GatewayClass";

fn check_target(c: &mut Check<'_>, target: &PolicyTargetReference) {
    if target.name.is_empty() {
        c.error("name", "must be set");
    }
    if !target.namespace.is_empty() {
        c.error(
            "namespace",
            "references to other namespaces are not supported",
        );
    }
    let known = matches!(
        (target.group.as_str(), target.kind.as_str()),
        ("" | "core", "Service")
            | ("networking.istio.io", "ServiceEntry")
            | ("gateway.networking.k8s.io", "Gateway" | "GatewayClass")
    );
    if !known {
        let shown = values::cut(&format!("{}/{}", target.group, target.kind));
        c.not_allowed("", format!("{shown} cannot be a target"), ALLOWED);
    }
}
