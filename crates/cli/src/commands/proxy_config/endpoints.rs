//! `proxy-config endpoints`, from `/clusters?format=json`.

use serde_json::Value;

use super::Filter;
use super::clusters::Name;
use crate::commands::apply::{list, word};
use crate::output::Table;

/// ENDPOINT STATUS OUTLIER CHECK CLUSTER.
pub fn table(clusters: &Value, filter: &Filter) -> Table {
    let mut rows = Vec::new();
    for status in list(clusters, "cluster_statuses") {
        let cluster = word(status, "name");
        let name = Name::parse(cluster);
        let is_wanted = filter.fqdn.as_deref().is_none_or(|fqdn| name.fqdn == fqdn);
        for host in list(status, "host_statuses").iter().filter(|_| is_wanted) {
            let (address, port) = address(&host["address"]);
            if filter
                .port
                .is_none_or(|wanted| port == Some(u64::from(wanted)))
            {
                let (health, outlier) = health(&host["health_status"]);
                rows.push([
                    address,
                    health.to_owned(),
                    outlier.to_owned(),
                    cluster.to_owned(),
                ]);
            }
        }
    }
    rows.sort();
    let mut table = Table::new(["ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"]);
    for row in rows {
        table.row(row);
    }
    table
}

fn address(address: &Value) -> (String, Option<u64>) {
    let socket = &address["socket_address"];
    match (socket["address"].as_str(), socket["port_value"].as_u64()) {
        (Some(ip), port) if ip.contains(':') => {
            (format!("[{ip}]:{}", port.unwrap_or_default()), port)
        }
        (Some(ip), port) => (format!("{ip}:{}", port.unwrap_or_default()), port),
        _ => (format!("unix://{}", word(&address["pipe"], "path")), None),
    }
}

fn health(status: &Value) -> (&str, &'static str) {
    let health = match word(status, "eds_health_status") {
        "" | "UNKNOWN" => "HEALTHY",
        other => other,
    };
    let is_failed = |name: &str| status[name].as_bool() == Some(true);
    let health = if is_failed("failed_active_health_check") {
        "UNHEALTHY"
    } else {
        health
    };
    let outlier = if is_failed("failed_outlier_check") {
        "FAILED"
    } else {
        "OK"
    };
    (health, outlier)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows() {
        let host = |port: u16| {
            let address = json!({"address": "10.0.0.1", "port_value": port});
            json!({
                "address": {"socket_address": address},
                "health_status": {"eds_health_status": "HEALTHY", "failed_outlier_check": true},
            })
        };
        let name = "outbound|80||a.default.svc.cluster.local";
        let clusters =
            json!({"cluster_statuses": [{"name": name, "host_statuses": [host(1), host(2)]}]});
        let filter = Filter {
            port: Some(2),
            ..Filter::default()
        };
        let text = table(&clusters, &filter).to_string();
        let row = text.lines().nth(1).expect("one row");
        assert!(row.starts_with("10.0.0.1:2"), "{row}");
        assert!(
            row.contains("HEALTHY") && row.contains("FAILED") && row.ends_with(name),
            "{row}"
        );
        assert_eq!(text.lines().count(), 2, "only the port asked for");
    }
}
