//! `proxy-config listeners`: a row for each filter chain.

use serde_json::Value;

use super::Filter;
use crate::commands::apply::{list, word};
use crate::output::Table;

/// ADDRESSES PORT MATCH DESTINATION.
pub fn table(listeners: &[Value], filter: &Filter) -> Table {
    let mut table = Table::new(["ADDRESSES", "PORT", "MATCH", "DESTINATION"]);
    let mut sorted: Vec<&Value> = listeners.iter().collect();
    sorted.sort_by_key(|listener| (port(listener), address(listener)));
    for listener in sorted {
        if filter
            .port
            .is_some_and(|wanted| port(listener) != u64::from(wanted))
        {
            continue;
        }
        let chains = list(listener, "filter_chains").iter();
        let default = Some(&listener["default_filter_chain"]).filter(|chain| !chain.is_null());
        for (chain, is_default) in chains
            .map(|chain| (chain, false))
            .chain(default.map(|chain| (chain, true)))
        {
            let condition = if is_default {
                "ALL".to_owned()
            } else {
                condition(chain)
            };
            let port = port(listener).to_string();
            table.row([address(listener), port, condition, destination(chain)]);
        }
    }
    table
}

fn address(listener: &Value) -> String {
    word(&listener["address"]["socket_address"], "address").to_owned()
}

fn port(listener: &Value) -> u64 {
    listener["address"]["socket_address"]["port_value"]
        .as_u64()
        .unwrap_or_default()
}

/// `SNI: a,b`, `Trans: tls; App: h2; Addr: 10.0.0.0/8:80`, or ALL.
fn condition(chain: &Value) -> String {
    let condition = &chain["filter_chain_match"];
    let words = |name: &str| {
        list(condition, name)
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(",")
    };
    let mut parts = Vec::new();
    for (title, text) in [
        ("SNI", words("server_names")),
        ("Trans", word(condition, "transport_protocol").to_owned()),
        ("App", words("application_protocols")),
        ("Addr", addresses(condition)),
    ] {
        if !text.is_empty() {
            parts.push(format!("{title}: {text}"));
        }
    }
    if parts.is_empty() {
        "ALL".to_owned()
    } else {
        parts.join("; ")
    }
}

fn addresses(condition: &Value) -> String {
    let range = |range: &Value| {
        let length = range["prefix_len"].as_u64().unwrap_or_default();
        format!("{}/{length}", word(range, "address_prefix"))
    };
    let mut ranges: Vec<String> = list(condition, "prefix_ranges").iter().map(range).collect();
    if let Some(port) = condition["destination_port"].as_u64() {
        match ranges.as_mut_slice() {
            [] => ranges.push(format!("*:{port}")),
            some => some
                .iter_mut()
                .for_each(|range| range.push_str(&format!(":{port}"))),
        }
    }
    ranges.join(",")
}

/// `Route: 9080`, `Cluster: …`, `Inline Route: /*`, `Non-HTTP/Non-TCP`.
fn destination(chain: &Value) -> String {
    for filter in list(chain, "filters") {
        let config = &filter["typed_config"];
        let kind = word(config, "@type");
        if kind.ends_with("HttpConnectionManager") {
            let name = word(&config["rds"], "route_config_name");
            if !name.is_empty() {
                return format!("Route: {name}");
            }
            return format!("Inline Route: {}", inline(&config["route_config"]));
        }
        if kind.ends_with("TcpProxy") {
            let weighted = list(&config["weighted_clusters"], "clusters").iter();
            let names: Vec<&str> = weighted.map(|one| word(one, "name")).collect();
            return match word(config, "cluster") {
                "" => format!("Cluster: {}", names.join(",")),
                cluster => format!("Cluster: {cluster}"),
            };
        }
    }
    "Non-HTTP/Non-TCP".to_owned()
}

fn inline(config: &Value) -> String {
    let hosts = list(config, "virtual_hosts").iter();
    let routes = hosts.flat_map(|host| list(host, "routes"));
    let paths: Vec<String> = routes
        .map(|route| super::routes::path(&route["match"]))
        .collect();
    paths.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions() {
        for (json, want) in [
            (json!({}), "ALL"),
            (json!({"server_names": ["a", "b"]}), "SNI: a,b"),
            (
                json!({"transport_protocol": "tls", "destination_port": 80}),
                "Trans: tls; Addr: *:80",
            ),
        ] {
            assert_eq!(
                condition(&json!({"filter_chain_match": json})),
                want,
                "{json}"
            );
        }
    }
}
