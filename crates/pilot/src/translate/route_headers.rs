//! Header operations of virtual services as Envoy header mutations.

use envoy_api::core::header_value_option::HeaderAppendAction;
use envoy_api::core::{HeaderValue, HeaderValueOption};
use mesh_api::kinds::virtual_service::{HeaderOperations, Headers};

/// Mutations in both directions, and the host that replaces the request's.
#[derive(Debug, Default)]
pub struct Mutations {
    pub request_add: Vec<HeaderValueOption>,
    pub request_remove: Vec<String>,
    pub response_add: Vec<HeaderValueOption>,
    pub response_remove: Vec<String>,
    pub host: Option<String>,
}

/// Reads `headers` of a route or of one destination.
pub fn translate(headers: Option<&Headers>) -> Mutations {
    let mut mutations = Mutations::default();
    let Some(headers) = headers else {
        return mutations;
    };
    if let Some(request) = &headers.request {
        mutations.request_add = additions(request);
        mutations.request_remove = removals(request);
        // The host is not a header of its own in Envoy.
        let host = request
            .set
            .iter()
            .chain(&request.add)
            .find(|(name, _)| is_host(name));
        mutations.host = host.map(|(_, value)| value.clone());
    }
    if let Some(response) = &headers.response {
        mutations.response_add = additions(response);
        mutations.response_remove = removals(response);
    }
    mutations
}

fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name == ":authority"
}

/// Envoy refuses to touch pseudo headers.
fn is_internal(name: &str) -> bool {
    name.starts_with(':') || name.eq_ignore_ascii_case("host")
}

fn additions(operations: &HeaderOperations) -> Vec<HeaderValueOption> {
    let set = operations
        .set
        .iter()
        .map(|(name, value)| (name, value, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = operations
        .add
        .iter()
        .map(|(name, value)| (name, value, HeaderAppendAction::AppendIfExistsOrAdd));
    set.chain(add)
        .filter(|(name, ..)| !is_internal(name))
        .map(|(name, value, action)| HeaderValueOption {
            header: Some(HeaderValue {
                key: name.clone(),
                value: value.clone(),
                ..Default::default()
            }),
            append_action: action as i32,
            ..Default::default()
        })
        .collect()
}

fn removals(operations: &HeaderOperations) -> Vec<String> {
    operations
        .remove
        .iter()
        .filter(|name| !is_internal(name))
        .cloned()
        .collect()
}
