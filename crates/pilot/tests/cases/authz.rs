//! Istio's authorization goldens: the same policies give RBAC filters of the same meaning.

use std::path::Path;
use std::sync::Arc;

use envoy_api::json;
use envoy_api::rbac::Rbac;
use mesh_api::Spec;
use mesh_api::mesh_config::MeshConfig;
use mesh_api::parse::{ParseOptions, parse};
use pilot::Revision;
use pilot::snapshot::AuthorizationEntry;
use pilot::translate::rbac::RbacFilters;
use serde_json::Value;

use super::load::testdata;
use super::yaml;

#[test]
fn policies_mean_what_istio_makes_of_them() {
    let Some(folder) = testdata("istio/goldens/authz") else {
        return;
    };
    for (case, outs, trust_domain, aliases) in [
        (
            "http/allow-empty-rule",
            &["out"][..],
            "cluster.local",
            &[][..],
        ),
        ("http/deny-empty-rule", &["out"], "cluster.local", &[]),
        (
            "http/deny-and-allow",
            &["out1", "out2"],
            "cluster.local",
            &[],
        ),
        ("http/trust-domains", &["out"], "td1", &["cluster.local"]),
        (
            "http/td-aliases-source-principal",
            &["out"],
            "new-td",
            &["old-td", "some-trustdomain"],
        ),
        ("http/dry-run-allow", &["out"], "cluster.local", &[]),
        ("tcp/allow-both-http-tcp", &["out"], "cluster.local", &[]),
    ] {
        let input = std::fs::read_to_string(folder.join(format!("{case}-in.yaml"))).unwrap();
        let config = MeshConfig {
            trust_domain: trust_domain.to_owned(),
            trust_domain_aliases: aliases.iter().map(ToString::to_string).collect(),
            ..MeshConfig::default()
        };
        let got = filters(&input, config, case.starts_with("tcp"));
        let want: Vec<Rbac> = outs
            .iter()
            .map(|out| golden(&folder.join(format!("{case}-{out}.yaml"))))
            .collect();
        let show = |list: &[Rbac]| -> Vec<Value> {
            list.iter()
                .map(|rbac| json::to_json(rbac).unwrap())
                .collect()
        };
        if want.iter().all(|w| got.contains(w)) && want.len() == got.len() {
            continue;
        }
        println!("GOT {case} {}", serde_json::to_string(&show(&got)).unwrap());
        println!(
            "WANT {case} {}",
            serde_json::to_string(&show(&want)).unwrap()
        );
        assert_eq!(show(&got), show(&want), "{case}");
    }
}

fn golden(path: &Path) -> Rbac {
    let document = yaml::read(&std::fs::read_to_string(path).unwrap()).remove(0);
    let config = &document["typedConfig"];
    let rules = match &config["rules"] {
        Value::Null => &config["shadowRules"],
        rules => rules,
    };
    json::from_json(rules.clone()).unwrap()
}

fn filters(input: &str, config: MeshConfig, tcp: bool) -> Vec<Rbac> {
    // Beside the state, which refuses policies with parts that are not in force yet.
    let options = ParseOptions {
        default_namespace: "foo".to_owned(),
    };
    let entry = |object: mesh_api::Object| match &object.spec {
        Spec::AuthorizationPolicy(spec) => Some(Arc::new(AuthorizationEntry {
            key: object.key(),
            revision: Revision::default(),
            dry_run: object.meta.annotations.contains_key("istio.io/dry-run"),
            spec: (**spec).clone(),
        })),
        _ => None,
    };
    let entries: Vec<Arc<AuthorizationEntry>> = parse("in.yaml", input, &options)
        .objects
        .into_iter()
        .filter_map(entry)
        .collect();
    let filters = RbacFilters::new(&entries, &config);
    let rules = |rules: Option<Rbac>, shadow: Option<Rbac>| rules.or(shadow);
    if tcp {
        return filters
            .network()
            .filter_map(|filter| match filter.config_type {
                Some(envoy_api::listener::filter::ConfigType::TypedConfig(any)) => {
                    let rbac: envoy_api::rbac_network::Rbac = envoy_api::any::unpack(&any).unwrap();
                    rules(rbac.rules, rbac.shadow_rules)
                }
                _ => None,
            })
            .collect();
    }
    filters
        .http()
        .filter_map(|filter| match filter.config_type {
            Some(envoy_api::hcm::http_filter::ConfigType::TypedConfig(any)) => {
                let rbac: envoy_api::rbac_http::Rbac = envoy_api::any::unpack(&any).unwrap();
                rules(rbac.rules, rbac.shadow_rules)
            }
            _ => None,
        })
        .collect()
}
