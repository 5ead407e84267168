//! Pod.

use std::collections::BTreeSet;

use super::container;
use crate::host;
use crate::kinds::core::PodSpec;
use crate::validate::{Check, values};

pub fn check(c: &mut Check<'_>, spec: &PodSpec) {
    if spec.containers.is_empty() {
        c.error("containers", "must have at least one container");
    }
    if !matches!(
        spec.restart_policy.as_str(),
        "" | "Always" | "OnFailure" | "Never"
    ) {
        c.not_allowed("restartPolicy", "is not known", "Always, OnFailure, Never");
    }
    if spec
        .termination_grace_period_seconds
        .is_some_and(|seconds| seconds < 0)
    {
        c.error("terminationGracePeriodSeconds", "must not be negative");
    }
    for (field, name) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if !name.is_empty() && !host::is_dns_label(name) {
            c.error(field, format!("{:?} is not a DNS label", values::cut(name)));
        }
    }
    let (new, old) = (&spec.service_account_name, &spec.service_account);
    if !new.is_empty() && !old.is_empty() && new != old {
        c.error("serviceAccount", "differs from serviceAccountName");
    }
    let mut volumes = BTreeSet::new();
    c.each("volumes", &spec.volumes, |c, volume| {
        if !host::is_dns_label(&volume.name) {
            c.error("name", "is not a DNS label");
        }
        if !volumes.insert(volume.name.clone()) {
            c.error("name", "is given twice");
        }
        if volume.source.is_none() {
            c.error("", "has no source (emptyDir, configMap, secret)");
        }
    });
    let mut names = BTreeSet::new();
    for (field, list) in [
        ("initContainers", &spec.init_containers),
        ("containers", &spec.containers),
    ] {
        c.each(field, list, |c, each| {
            container::check(c, each, &volumes);
            if !names.insert(each.name.clone()) {
                c.error("name", "is given twice");
            }
        });
    }
}
