//! Envoy's `/config_dump`, by sections.

use serde_json::Value;

use crate::commands::apply::{list, word};

/// The whole dump.
pub struct Dump(Value);

impl Dump {
    pub fn new(value: Value) -> Dump {
        Dump(value)
    }

    pub fn whole(self) -> Value {
        self.0
    }

    pub fn clusters(&self) -> Vec<Value> {
        let dump = self.section("ClustersConfigDump");
        let of = |name: &str| list(dump, name).iter().map(|one| one["cluster"].clone());
        of("static_clusters")
            .chain(of("dynamic_active_clusters"))
            .collect()
    }

    pub fn listeners(&self) -> Vec<Value> {
        let dump = self.section("ListenersConfigDump");
        let fixed = list(dump, "static_listeners")
            .iter()
            .map(|one| one["listener"].clone());
        let dynamic = list(dump, "dynamic_listeners").iter();
        let active = dynamic.map(|one| one["active_state"]["listener"].clone());
        fixed.chain(active).filter(|one| !one.is_null()).collect()
    }

    pub fn routes(&self) -> Vec<Value> {
        let dump = self.section("RoutesConfigDump");
        let of = |name: &str| {
            list(dump, name)
                .iter()
                .map(|one| one["route_config"].clone())
        };
        of("static_route_configs")
            .chain(of("dynamic_route_configs"))
            .collect()
    }

    /// With their state: `ACTIVE` or `WARMING`.
    pub fn secrets(&self) -> Vec<Value> {
        let dump = self.section("SecretsConfigDump");
        let mut all = Vec::new();
        for (name, state) in [
            ("static_secrets", "ACTIVE"),
            ("dynamic_active_secrets", "ACTIVE"),
            ("dynamic_warming_secrets", "WARMING"),
        ] {
            for secret in list(dump, name) {
                let mut secret = secret.clone();
                secret["state"] = Value::from(state);
                all.push(secret);
            }
        }
        all
    }

    fn section(&self, name: &str) -> &Value {
        // With the dot: a RoutesConfigDump is no ScopedRoutesConfigDump, which Envoy has too.
        let is_it = |config: &&Value| word(config, "@type").rsplit('.').next() == Some(name);
        list(&self.0, "configs")
            .iter()
            .find(is_it)
            .unwrap_or(&Value::Null)
    }
}
