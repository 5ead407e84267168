//! Destination rules, merged per host and namespace, and the order in which a client finds the
//! one that applies (istio.md 1.4).

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::kinds::destination_rule::DestinationRule;
use mesh_api::{Kind, ObjectKey, Spec};

use super::{Problem, Statuses, Visibility, age_order, of_kind};
use crate::hostname;
use crate::model::{Labels, ServiceKey, selects};
use crate::state::{Revision, State};

/// One or more rules for one host in one namespace.
#[derive(Debug)]
pub struct MergedRule {
    pub host: String,
    pub namespace: String,
    /// The first, which gives its name to telemetry.
    pub key: ObjectKey,
    pub revision: Revision,
    pub visibility: Visibility,
    /// Clients it is for; `None` means all.
    pub selector: Option<Labels>,
    pub spec: DestinationRule,
}

#[derive(Debug, Default)]
pub struct DestinationRules {
    by_namespace: BTreeMap<String, Vec<Arc<MergedRule>>>,
    root_namespace: String,
}

impl DestinationRules {
    pub(super) fn build(state: &State, statuses: &mut Statuses) -> Self {
        let mut objects: Vec<_> = of_kind(state, Kind::DestinationRule).collect();
        objects.sort_by_cached_key(|(key, object)| {
            age_order(object.value.meta.creation_timestamp, key)
        });
        let default = &state.mesh.value.default_destination_rule_export_to;
        let mut by_namespace: BTreeMap<String, Vec<MergedRule>> = BTreeMap::new();
        for (key, object) in objects {
            let Spec::DestinationRule(spec) = &object.value.spec else {
                continue;
            };
            let rule = MergedRule {
                host: hostname::resolve(&spec.host, &key.namespace, &state.domain),
                namespace: key.namespace.clone(),
                key: key.clone(),
                revision: object.revision,
                visibility: Visibility::new(&spec.export_to, default, &key.namespace),
                selector: spec
                    .workload_selector
                    .as_ref()
                    .map(|s| s.match_labels.clone()),
                spec: (**spec).clone(),
            };
            let rules = by_namespace.entry(key.namespace.clone()).or_default();
            add(rules, rule, statuses);
        }
        let by_namespace = by_namespace
            .into_iter()
            .map(|(namespace, mut rules)| {
                rules.sort_by(|one, other| hostname::by_specificity(&one.host, &other.host));
                (namespace, rules.into_iter().map(Arc::new).collect())
            })
            .collect();
        Self {
            by_namespace,
            root_namespace: state.mesh.value.root_namespace.clone(),
        }
    }

    /// The rule a client uses for a service: its own namespace's, then the service's, then the
    /// root namespace's; within one the most specific host.
    pub fn find(
        &self,
        namespace: &str,
        labels: &Labels,
        service: &ServiceKey,
    ) -> Option<&Arc<MergedRule>> {
        let host = service.hostname.as_str();
        let in_root = namespace == self.root_namespace;
        let own = self.best(namespace, host, |rule| {
            let selected = rule
                .selector
                .as_ref()
                .is_none_or(|wanted| selects(wanted, labels));
            selected && (!in_root || rule.visibility.is_private_to(namespace))
        });
        let exported = |owner: &str| {
            self.best(owner, host, |rule| {
                rule.selector.is_none() && rule.visibility.allows(namespace)
            })
        };
        own.or_else(|| exported(&service.namespace))
            .or_else(|| exported(&self.root_namespace))
    }

    fn best(
        &self,
        namespace: &str,
        host: &str,
        usable: impl Fn(&MergedRule) -> bool,
    ) -> Option<&Arc<MergedRule>> {
        let rules = self.by_namespace.get(namespace)?;
        let fits = |rule: &&Arc<MergedRule>| hostname::covers(&rule.host, host) && usable(rule);
        let first = rules.iter().find(fits)?;
        // A rule for these very workloads beats one for all.
        let same_host = rules
            .iter()
            .filter(|rule| rule.host == first.host)
            .filter(fits);
        same_host
            .clone()
            .find(|rule| rule.selector.is_some())
            .or(Some(first))
    }
}

/// Merges into an older rule for the same host, or stands beside it.
fn add(rules: &mut Vec<MergedRule>, rule: MergedRule, statuses: &mut Statuses) {
    let older = rules.iter_mut().find(|older| {
        older.host == rule.host
            && older.selector == rule.selector
            && older.visibility == rule.visibility
    });
    let Some(older) = older else {
        rules.push(rule);
        return;
    };
    for subset in rule.spec.subsets {
        if older
            .spec
            .subsets
            .iter()
            .any(|known| known.name == subset.name)
        {
            let message = format!(
                "subset `{}` is already defined by {}",
                subset.name, older.key
            );
            statuses.add(&rule.key, Problem::conflict(message));
        } else {
            older.spec.subsets.push(subset);
        }
    }
    match (&older.spec.traffic_policy, rule.spec.traffic_policy) {
        (None, policy) => older.spec.traffic_policy = policy,
        (Some(_), Some(_)) => {
            let message = format!("the trafficPolicy of {} for this host wins", older.key);
            statuses.add(&rule.key, Problem::conflict(message));
        }
        (Some(_), None) => {}
    }
    older.revision = Revision::combine([older.revision, rule.revision]);
}
