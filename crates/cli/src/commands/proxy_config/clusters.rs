//! `proxy-config clusters`.

use serde_json::Value;

use super::Filter;
use crate::commands::apply::word;
use crate::output::Table;

/// SERVICE FQDN, PORT, SUBSET, DIRECTION, TYPE, DESTINATION RULE.
pub fn table(clusters: &[Value], filter: &Filter) -> Table {
    let mut rows: Vec<[String; 6]> = clusters.iter().map(row).collect();
    rows.retain(|row| {
        filter.fqdn.as_ref().is_none_or(|fqdn| row[0] == *fqdn)
            && filter.port.is_none_or(|port| row[1] == port.to_string())
    });
    rows.sort();
    let mut table = Table::new([
        "SERVICE FQDN",
        "PORT",
        "SUBSET",
        "DIRECTION",
        "TYPE",
        "DESTINATION RULE",
    ]);
    for row in rows {
        table.row(row);
    }
    table
}

fn row(cluster: &Value) -> [String; 6] {
    let kind = match word(cluster, "type") {
        "" => word(&cluster["cluster_type"], "name"),
        other => other,
    };
    let kind = if kind.is_empty() { "STATIC" } else { kind };
    let name = Name::parse(word(cluster, "name"));
    [
        name.fqdn.to_owned(),
        name.port.to_owned(),
        name.subset.to_owned(),
        name.direction.to_owned(),
        kind.to_owned(),
        destination_rule(cluster),
    ]
}

/// `direction|port|subset|fqdn` in its parts; any other name is its own FQDN.
pub struct Name<'a> {
    pub direction: &'a str,
    pub port: &'a str,
    pub subset: &'a str,
    pub fqdn: &'a str,
}

impl<'a> Name<'a> {
    pub fn parse(name: &'a str) -> Name<'a> {
        let dash = |text: &'a str| if text.is_empty() { "-" } else { text };
        match name.split('|').collect::<Vec<_>>().as_slice() {
            [direction, port, subset, fqdn] => Name {
                direction: dash(direction),
                port: dash(port),
                subset: dash(subset),
                fqdn,
            },
            _ => Name {
                direction: "-",
                port: "-",
                subset: "-",
                fqdn: name,
            },
        }
    }
}

/// From the metadata `config: /apis/networking.istio.io/…/namespaces/NS/destination-rule/NAME`.
fn destination_rule(cluster: &Value) -> String {
    let config = word(&cluster["metadata"]["filter_metadata"]["istio"], "config");
    let parts: Vec<&str> = config.split('/').collect();
    match parts.as_slice() {
        [.., namespace, "destination-rule", name] => format!("{name}.{namespace}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows() {
        let config = "/apis/networking.istio.io/v1/namespaces/default/destination-rule/reviews";
        let cluster = json!({
            "name": "outbound|9080|v1|reviews.default.svc.cluster.local", "type": "EDS",
            "metadata": {"filter_metadata": {"istio": {"config": config}}},
        });
        let fqdn = "reviews.default.svc.cluster.local";
        let want = [fqdn, "9080", "v1", "outbound", "EDS", "reviews.default"];
        assert_eq!(
            row(&cluster),
            want.map(str::to_owned),
            "a subset with its rule"
        );
        let want = ["PassthroughCluster", "-", "-", "-", "ORIGINAL_DST", ""];
        let cluster = json!({"name": "PassthroughCluster", "type": "ORIGINAL_DST"});
        assert_eq!(
            row(&cluster),
            want.map(str::to_owned),
            "a name of no service"
        );
    }
}
