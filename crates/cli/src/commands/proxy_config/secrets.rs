//! `proxy-config secrets`: what the proxy proves itself with and whom it trusts.

use serde_json::Value;

use crate::commands::apply::{list, word};
use crate::output::Table;

/// RESOURCE NAME, TYPE, STATUS, VALID CERT, SERIAL NUMBER, NOT AFTER, NOT BEFORE, TRUST DOMAIN.
pub fn table(secrets: &[Value], certificates: &Value) -> Table {
    let mut table = Table::new([
        "RESOURCE NAME",
        "TYPE",
        "STATUS",
        "VALID CERT",
        "SERIAL NUMBER",
        "NOT AFTER",
        "NOT BEFORE",
        "TRUST DOMAIN",
    ]);
    for secret in secrets {
        let body = &secret["secret"];
        let is_root = !body["validation_context"].is_null();
        let kind = if is_root { "CA" } else { "Cert Chain" };
        let facts = facts(certificates, is_root);
        table.row([
            word(secret, "name").to_owned(),
            kind.to_owned(),
            word(secret, "state").to_owned(),
            facts.is_some_and(is_valid).to_string(),
            facts
                .map_or("", |one| word(one, "serial_number"))
                .to_owned(),
            facts
                .map_or("", |one| word(one, "expiration_time"))
                .to_owned(),
            facts.map_or("", |one| word(one, "valid_from")).to_owned(),
            facts.map_or(String::new(), trust_domain),
        ]);
    }
    table
}

/// The certificate in `/certs`: the first of a chain, or the first authority.
fn facts(certificates: &Value, is_root: bool) -> Option<&Value> {
    let name = if is_root { "ca_cert" } else { "cert_chain" };
    list(certificates, "certificates")
        .iter()
        .flat_map(|one| list(one, name))
        .next()
}

fn is_valid(facts: &Value) -> bool {
    let time = |name: &str| word(facts, name).parse::<jiff::Timestamp>().ok();
    let now = jiff::Timestamp::now();
    matches!((time("valid_from"), time("expiration_time")), (Some(from), Some(to))
        if from <= now && now < to)
}

fn trust_domain(facts: &Value) -> String {
    let uris = list(facts, "subject_alt_names")
        .iter()
        .map(|name| word(name, "uri"));
    uris.filter_map(|uri| uri.strip_prefix("spiffe://"))
        .filter_map(|rest| rest.split('/').next())
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_chain_and_a_root() {
        let certificates = json!({"certificates": [{
            "ca_cert": [{"serial_number": "1", "valid_from": "2020-01-01T00:00:00Z",
                         "expiration_time": "2120-01-01T00:00:00Z"}],
            "cert_chain": [{"serial_number": "2", "valid_from": "2020-01-01T00:00:00Z",
                            "expiration_time": "2021-01-01T00:00:00Z",
                            "subject_alt_names": [{"uri": "spiffe://cluster.local/ns/a/sa/b"}]}],
        }]});
        let secrets = [
            json!({"name": "default", "state": "ACTIVE", "secret": {"tls_certificate": {}}}),
            json!({"name": "ROOTCA", "state": "ACTIVE", "secret": {"validation_context": {}}}),
        ];
        let text = table(&secrets, &certificates).to_string();
        let rows: Vec<&str> = text.lines().collect();
        assert!(
            rows[1].contains("Cert Chain") && rows[1].contains("false"),
            "{}",
            rows[1]
        );
        assert!(rows[1].ends_with("cluster.local"), "{}", rows[1]);
        assert!(
            rows[2].contains("CA") && rows[2].contains("true"),
            "{}",
            rows[2]
        );
    }
}
