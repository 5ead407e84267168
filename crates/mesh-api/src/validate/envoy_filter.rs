//! EnvoyFilter: what must be there for a patch to make sense. Envoy's own content is not read.

use super::selector::{self, Targets};
use super::{Check, values};
use crate::kinds::envoy_filter::{
    ApplyTo, EnvoyConfigObjectMatch, EnvoyConfigObjectPatch, EnvoyFilter, ObjectTypes,
    PatchContext, PatchOperation,
};

pub fn check(c: &mut Check<'_>, spec: &EnvoyFilter) {
    if spec.workload_selector.is_some() && !spec.target_refs.is_empty() {
        c.error("targetRefs", "cannot stand beside workloadSelector");
    }
    c.some(
        "workloadSelector",
        spec.workload_selector.as_ref(),
        selector::check_label_selector,
    );
    let targets = Targets {
        selector: None,
        target_ref: None,
        target_refs: &spec.target_refs,
    };
    selector::check_targets(c, &targets);
    c.each("configPatches", &spec.config_patches, check_patch);
}

fn check_patch(c: &mut Check<'_>, patch: &EnvoyConfigObjectPatch) {
    if patch.apply_to == ApplyTo::Invalid {
        c.not_allowed("applyTo", "must be set", &ApplyTo::NAMES[1..].join(", "));
    }
    match &patch.patch {
        None => c.error("patch", "must be provided"),
        Some(change) => {
            if change.operation == PatchOperation::Invalid {
                let allowed = PatchOperation::NAMES[1..].join(", ");
                c.not_allowed("patch.operation", "must be set", &allowed);
            }
            if change.operation != PatchOperation::Remove && change.value.is_none() {
                c.error("patch.value", "must be provided");
            }
        }
    }
    c.some("match", patch.r#match.as_ref(), |c, found| {
        check_match(c, found, patch.apply_to)
    });
}

fn check_match(c: &mut Check<'_>, found: &EnvoyConfigObjectMatch, apply_to: ApplyTo) {
    let at_waypoint = found.context == PatchContext::Waypoint;
    let waypoint = matches!(found.object_types, Some(ObjectTypes::Waypoint(_)));
    if at_waypoint != waypoint {
        c.error("", "waypoint goes with context WAYPOINT, and only with it");
    }
    if let Some(proxy) = &found.proxy
        && !proxy.proxy_version.is_empty()
    {
        c.verify("proxy.proxyVersion", values::regex(&proxy.proxy_version));
    }
    let of_listener = matches!(
        apply_to,
        ApplyTo::Listener
            | ApplyTo::FilterChain
            | ApplyTo::NetworkFilter
            | ApplyTo::HttpFilter
            | ApplyTo::ListenerFilter
            | ApplyTo::ExtensionConfig
    );
    let of_routes = matches!(
        apply_to,
        ApplyTo::RouteConfiguration | ApplyTo::VirtualHost | ApplyTo::HttpRoute
    );
    let fits = match &found.object_types {
        None | Some(ObjectTypes::Waypoint(_)) => true,
        Some(ObjectTypes::Listener(_)) => of_listener,
        Some(ObjectTypes::RouteConfiguration(_)) => of_routes,
        Some(ObjectTypes::Cluster(_)) => apply_to == ApplyTo::Cluster,
    };
    if !fits {
        c.error(
            "",
            format!(
                "the match is of another sort than applyTo {}",
                apply_to.as_str()
            ),
        );
    }
    if let Some(ObjectTypes::Waypoint(waypoint)) = &found.object_types
        && waypoint.port_number != 0
    {
        c.verify("waypoint.portNumber", values::port(waypoint.port_number));
    }
}
