//! DestinationRule: host, subsets and their policies.

use super::export_to::{self, Owner};
use super::{Check, selector, traffic_policy, values};
use crate::host;
use crate::kinds::destination_rule::{DestinationRule, Subset};

pub fn check(c: &mut Check<'_>, spec: &DestinationRule) {
    c.verify(
        "host",
        host::check_wildcard_domain(&spec.host).or_else(|why| {
            if values::is_ip(&spec.host) {
                Ok(())
            } else {
                Err(why)
            }
        }),
    );
    c.some(
        "trafficPolicy",
        spec.traffic_policy.as_ref(),
        traffic_policy::check,
    );
    c.each("subsets", &spec.subsets, check_subset);
    for (index, subset) in spec.subsets.iter().enumerate() {
        if spec.subsets[..index]
            .iter()
            .any(|other| other.name == subset.name)
        {
            c.error(&format!("subsets[{index}].name"), "is given twice");
        }
    }
    let selector = spec.workload_selector.as_ref();
    c.some(
        "workloadSelector",
        selector,
        selector::check_workload_selector,
    );
    let owner = match selector {
        Some(_) => Owner::SelectingDestinationRule,
        None => Owner::Other,
    };
    export_to::check(c, &spec.export_to, owner);
}

fn check_subset(c: &mut Check<'_>, subset: &Subset) {
    if !host::is_dns_label(&subset.name) {
        let shown = values::cut(&subset.name);
        c.error("name", format!("{shown:?} is not the name of a subset"));
    }
    c.verify("labels", crate::labels::check(&subset.labels));
    c.some(
        "trafficPolicy",
        subset.traffic_policy.as_ref(),
        traffic_policy::check,
    );
}
