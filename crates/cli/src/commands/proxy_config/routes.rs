//! `proxy-config routes`: a row for each route.

use serde_json::Value;

use super::Filter;
use crate::commands::apply::{list, word};
use crate::output::Table;

/// At most this many domains in a cell, then how many more there are.
const MOST_DOMAINS: usize = 2;

/// NAME VHOST NAME DOMAINS MATCH VIRTUAL SERVICE.
pub fn table(routes: &[Value], filter: &Filter) -> Table {
    let mut table = Table::new(["NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"]);
    let mut sorted: Vec<&Value> = routes.iter().collect();
    sorted.sort_by_key(|config| word(config, "name").to_owned());
    for config in sorted {
        let name = word(config, "name");
        if filter.name.as_deref().is_some_and(|wanted| wanted != name) {
            continue;
        }
        for host in list(config, "virtual_hosts") {
            for route in list(host, "routes") {
                table.row([
                    name.to_owned(),
                    word(host, "name").to_owned(),
                    domains(host),
                    path(&route["match"]),
                    virtual_service(route),
                ]);
            }
        }
    }
    table
}

fn domains(host: &Value) -> String {
    let all: Vec<&str> = list(host, "domains")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    match all.len() {
        0..=MOST_DOMAINS => all.join(", "),
        count => {
            let rest = count - MOST_DOMAINS + 1;
            format!("{} + {rest} more...", all[..MOST_DOMAINS - 1].join(", "))
        }
    }
}

/// The path condition: `/exact`, `/prefix*`, `regex …`.
pub fn path(condition: &Value) -> String {
    if let Some(exact) = condition["path"].as_str() {
        return exact.to_owned();
    }
    for name in ["prefix", "path_separated_prefix"] {
        if let Some(prefix) = condition[name].as_str() {
            return format!("{prefix}*");
        }
    }
    match condition["safe_regex"]["regex"].as_str() {
        Some(regex) => format!("regex {regex}"),
        None => String::new(),
    }
}

/// From the metadata `config: /apis/…/namespaces/NS/virtual-service/NAME`; 404 for a direct one.
fn virtual_service(route: &Value) -> String {
    if let Some(status) = route["direct_response"]["status"].as_u64() {
        return status.to_string();
    }
    let config = word(&route["metadata"]["filter_metadata"]["istio"], "config");
    match config.split('/').collect::<Vec<_>>().as_slice() {
        [.., namespace, "virtual-service", name] => format!("{name}.{namespace}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths() {
        for (condition, want) in [
            (json!({"prefix": "/"}), "/*"),
            (json!({"path": "/a"}), "/a"),
            (json!({"safe_regex": {"regex": "/a.*"}}), "regex /a.*"),
        ] {
            assert_eq!(path(&condition), want, "{condition}");
        }
    }
}
