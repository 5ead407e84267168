//! Authorization policies as Envoy RBAC filters, for HTTP and for TCP (istio.md 1.12).

use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_api::any::pack;
use envoy_api::hcm::{HttpFilter, http_filter};
use envoy_api::listener::{Filter, filter};
use envoy_api::rbac::{self, Policy, rbac::Action as WireAction};
use mesh_api::kinds::authorization_policy::Action;
use mesh_api::mesh_config::MeshConfig;

use super::rbac_rule;
use crate::snapshot::AuthorizationEntry;

/// The filters of one workload's policies, in order: audit, deny, allow.
#[derive(Debug, Default, Clone)]
pub struct RbacFilters {
    http: Vec<(WireAction, Rules)>,
    tcp: Vec<(WireAction, Rules)>,
}

/// Enforced policies, and those that only count what they would do.
#[derive(Debug, Default, Clone)]
struct Rules {
    enforced: Option<BTreeMap<String, Policy>>,
    shadow: Option<BTreeMap<String, Policy>>,
}

impl RbacFilters {
    pub fn new(policies: &[Arc<AuthorizationEntry>], mesh: &MeshConfig) -> Self {
        let mut filters = Self::default();
        let order = [
            (Action::Audit, WireAction::Log),
            (Action::Deny, WireAction::Deny),
            (Action::Allow, WireAction::Allow),
        ];
        for (action, wire) in order {
            // A provider that is not performed must not open a door: its policies deny.
            let of_action = |entry: &&Arc<AuthorizationEntry>| {
                entry.spec.action == action
                    || action == Action::Deny && entry.spec.action == Action::Custom
            };
            let group: Vec<&Arc<AuthorizationEntry>> = policies.iter().filter(of_action).collect();
            if group.is_empty() {
                continue;
            }
            filters.http.push((wire, rules(&group, wire, mesh, false)));
            filters.tcp.push((wire, rules(&group, wire, mesh, true)));
        }
        filters
    }

    pub fn http(&self) -> impl Iterator<Item = HttpFilter> {
        self.http.iter().map(|(action, rules)| {
            let config = envoy_api::rbac_http::Rbac {
                rules: rules
                    .enforced
                    .clone()
                    .map(|policies| wire(*action, policies)),
                shadow_rules: rules.shadow.clone().map(|policies| wire(*action, policies)),
                shadow_rules_stat_prefix: shadow_prefix(*action, rules),
                ..Default::default()
            };
            HttpFilter {
                name: "envoy.filters.http.rbac".to_owned(),
                config_type: Some(http_filter::ConfigType::TypedConfig(pack(&config))),
                ..Default::default()
            }
        })
    }

    pub fn network(&self) -> impl Iterator<Item = Filter> {
        self.tcp.iter().map(|(action, rules)| {
            let config = envoy_api::rbac_network::Rbac {
                rules: rules
                    .enforced
                    .clone()
                    .map(|policies| wire(*action, policies)),
                shadow_rules: rules.shadow.clone().map(|policies| wire(*action, policies)),
                shadow_rules_stat_prefix: shadow_prefix(*action, rules),
                stat_prefix: "tcp.".to_owned(),
                ..Default::default()
            };
            Filter {
                name: "envoy.filters.network.rbac".to_owned(),
                config_type: Some(filter::ConfigType::TypedConfig(pack(&config))),
            }
        })
    }
}

fn shadow_prefix(action: WireAction, rules: &Rules) -> String {
    if rules.shadow.is_none() {
        return String::new();
    }
    match action {
        WireAction::Deny => "istio_dry_run_deny_",
        _ => "istio_dry_run_allow_",
    }
    .to_owned()
}

fn wire(action: WireAction, policies: BTreeMap<String, Policy>) -> rbac::Rbac {
    rbac::Rbac {
        action: action as i32,
        policies,
        ..Default::default()
    }
}

fn rules(
    group: &[&Arc<AuthorizationEntry>],
    action: WireAction,
    mesh: &MeshConfig,
    tcp: bool,
) -> Rules {
    let mut rules = Rules::default();
    for entry in group {
        let target = if entry.dry_run {
            &mut rules.shadow
        } else {
            &mut rules.enforced
        };
        let policies = target.get_or_insert_default();
        let (namespace, name) = (&entry.key.namespace, &entry.key.name);
        for (index, rule) in entry.spec.rules.iter().enumerate() {
            let context = rbac_rule::Context {
                namespace,
                trust_domain: &mesh.trust_domain,
                aliases: &mesh.trust_domain_aliases,
                allow: action == WireAction::Allow,
                tcp,
            };
            if let Some(policy) = rbac_rule::translate(rule, &context) {
                policies.insert(
                    format!("ns[{namespace}]-policy[{name}]-rule[{index}]"),
                    policy,
                );
            }
        }
    }
    rules
}
