//! Deployment.

use super::pod;
use crate::kinds::core::DeploymentSpec;
use crate::labels;
use crate::validate::Check;

pub fn check(c: &mut Check<'_>, spec: &DeploymentSpec) {
    if spec.replicas.is_some_and(|replicas| replicas < 0) {
        c.error("replicas", "must not be negative");
    }
    let template_labels = spec
        .template
        .as_ref()
        .and_then(|template| template.metadata.as_ref())
        .map(|metadata| metadata.labels.clone())
        .unwrap_or_default();
    match &spec.selector {
        None => c.error("selector", "must be provided"),
        Some(selector) => {
            let empty = selector.match_labels.is_empty() && selector.match_expressions.is_empty();
            if empty {
                c.error("selector", "must not be empty");
            } else if !labels::is_subset(&selector.match_labels, &template_labels) {
                c.error(
                    "selector.matchLabels",
                    "does not select the template's labels",
                );
            }
        }
    }
    c.verify("template.metadata.labels", labels::check(&template_labels));
    let kind = spec
        .strategy
        .as_ref()
        .map_or("", |strategy| strategy.r#type.as_str());
    if !matches!(kind, "" | "RollingUpdate" | "Recreate") {
        c.not_allowed("strategy.type", "is not known", "RollingUpdate, Recreate");
    }
    match spec
        .template
        .as_ref()
        .and_then(|template| template.spec.as_ref())
    {
        None => c.error("template.spec", "must be provided"),
        Some(pod_spec) => c.at("template.spec", |c| {
            if !matches!(pod_spec.restart_policy.as_str(), "" | "Always") {
                c.not_allowed("restartPolicy", "not in a Deployment", "Always");
            }
            pod::check(c, pod_spec);
        }),
    }
}
