//! AuthorizationPolicies: namespaces that exist, selectors that select.

use std::collections::BTreeSet;

use super::Report;
use super::mesh::Mesh;
use crate::kinds::{Kind, Spec};
use crate::labels;

pub fn run(mesh: &Mesh<'_>, report: &mut Report) {
    let namespaces: BTreeSet<&str> = mesh
        .objects
        .iter()
        .map(|object| match object.meta.kind {
            Kind::Namespace => object.meta.name.as_str(),
            _ => object.meta.namespace.as_str(),
        })
        .collect();
    for object in mesh.of_kind(Kind::AuthorizationPolicy) {
        let Spec::AuthorizationPolicy(spec) = &object.spec else {
            continue;
        };
        let everywhere = object.meta.namespace == mesh.options.root_namespace;
        let selector = spec
            .selector
            .as_ref()
            .filter(|s| !s.match_labels.is_empty());
        if let Some(selector) = selector {
            let within = (!everywhere).then_some(object.meta.namespace.as_str());
            if mesh
                .selected(&selector.match_labels, within)
                .next()
                .is_none()
                && !mesh.is_platform_gateway(&selector.match_labels)
            {
                let shown = labels::show(&selector.match_labels);
                let message = format!("no workload has the labels {shown}");
                report.add("IST0127", object, "spec.selector", message);
            }
        }
        for (r, rule) in spec.rules.iter().enumerate() {
            for (f, source) in rule.from.iter().enumerate() {
                let Some(source) = &source.source else {
                    continue;
                };
                for (n, name) in source.namespaces.iter().enumerate() {
                    if !name.contains('*') && !namespaces.contains(name.as_str()) {
                        let path = format!("spec.rules[{r}].from[{f}].source.namespaces[{n}]");
                        let message = format!("the namespace {name:?} is not found");
                        report.add("IST0101", object, &path, message);
                    }
                }
            }
        }
    }
}
