//! `/listeners`: names and addresses.

use std::fmt::Write;

use envoy_api::admin;

use super::clusters::wire_address;
use super::{Answer, Picture, Query, message_json};
use crate::cluster::shared::Address;

pub fn answer(query: &Query, picture: &Picture) -> Answer {
    let active = picture
        .listeners
        .iter()
        .filter(|listener| !listener.warming);
    if query.get("format").is_some_and(|format| format == "json") {
        let listener_statuses = active
            .map(|listener| {
                let mut addresses = listener
                    .addresses
                    .iter()
                    .map(|one| wire_address(&Address::Socket(*one)));
                admin::ListenerStatus {
                    name: listener.config.name.to_string(),
                    local_address: addresses.next(),
                    additional_local_addresses: addresses.collect(),
                }
            })
            .collect();
        return Answer::json(&message_json(&admin::Listeners { listener_statuses }));
    }
    let mut out = String::new();
    for listener in active {
        let addresses: Vec<String> = listener.addresses.iter().map(ToString::to_string).collect();
        let _ = writeln!(out, "{}::{}", listener.config.name, addresses.join(","));
    }
    Answer::text(out)
}
