//! EnvoyFilters whose patches depend on what others do, or can never apply.

use super::Report;
use super::mesh::Mesh;
use crate::kinds::envoy_filter::{ApplyTo, EnvoyConfigObjectPatch, PatchOperation};
use crate::kinds::{Kind, Spec};

pub fn run(mesh: &Mesh<'_>, report: &mut Report) {
    for object in mesh.of_kind(Kind::EnvoyFilter) {
        let Spec::EnvoyFilter(spec) = &object.spec else {
            continue;
        };
        let mut relative = false;
        for (index, patch) in spec.config_patches.iter().enumerate() {
            let operation = patch.patch.as_ref().map(|patch| patch.operation);
            let Some(operation) = operation else { continue };
            let path = format!("spec.configPatches[{index}]");
            let of_routes = matches!(
                patch.apply_to,
                ApplyTo::RouteConfiguration | ApplyTo::HttpRoute
            );
            let filter = matches!(patch.apply_to, ApplyTo::NetworkFilter | ApplyTo::HttpFilter);
            let mut add = |code, text: &str| report.add(code, object, &path, text.to_owned());
            match operation {
                PatchOperation::Add if of_routes => add("IST0153", "ADD has no effect here"),
                PatchOperation::Remove if of_routes => add("IST0154", "REMOVE has no effect here"),
                PatchOperation::Replace if !filter => {
                    add(
                        "IST0152",
                        "REPLACE is for HTTP_FILTER and NETWORK_FILTER only",
                    );
                }
                PatchOperation::InsertBefore
                | PatchOperation::InsertAfter
                | PatchOperation::Remove
                | PatchOperation::Replace
                    if spec.priority == 0 =>
                {
                    if !relative {
                        add(
                            "IST0151",
                            "a relative operation without priority depends on order",
                        );
                    }
                    relative = true;
                    if has_version(patch) {
                        let text = "a relative operation for one proxy version depends on order";
                        add("IST0155", text);
                    }
                }
                _ => {}
            }
        }
    }
}

fn has_version(patch: &EnvoyConfigObjectPatch) -> bool {
    let proxy = patch
        .r#match
        .as_ref()
        .and_then(|found| found.proxy.as_ref());
    proxy.is_some_and(|proxy| !proxy.proxy_version.is_empty())
}
