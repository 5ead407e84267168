//! Locality load balancing: which group of endpoints is asked first and how much of the traffic
//! each gets (istio.md 2.5).

use std::collections::BTreeMap;

use envoy_api::endpoint::LbEndpoint;
use mesh_api::kinds::load_balancer::{Distribute, LocalityLbSetting};

use crate::keys::EndpointsKey;
use crate::model::{Endpoint, Labels, Locality};

/// Endpoints of one place at one priority.
pub struct Group<'a> {
    pub place: Locality,
    pub endpoints: Vec<(LbEndpoint, &'a Endpoint)>,
    pub weight: u32,
    pub priority: u32,
}

impl<'a> Group<'a> {
    pub fn new(place: Locality, endpoints: Vec<(LbEndpoint, &'a Endpoint)>) -> Self {
        let weight = total(&endpoints);
        Self {
            place,
            endpoints,
            weight,
            priority: 0,
        }
    }
}

fn total(endpoints: &[(LbEndpoint, &Endpoint)]) -> u32 {
    endpoints.iter().fold(0, |sum: u32, (wire, _)| {
        sum.saturating_add(wire.load_balancing_weight.unwrap_or(1))
    })
}

/// Distributes, else fails over.
pub fn apply<'a>(
    groups: Vec<Group<'a>>,
    setting: &LocalityLbSetting,
    key: &EndpointsKey,
) -> Vec<Group<'a>> {
    let rule = setting
        .distribute
        .iter()
        .find(|rule| key.locality.is_within(&rule.from));
    if let Some(rule) = rule {
        return distribute(groups, rule);
    }
    if !setting.distribute.is_empty() {
        return groups;
    }
    let groups = if setting.failover_priority.is_empty() {
        groups
    } else {
        by_labels(groups, &setting.failover_priority, key)
    };
    if !setting.failover_priority.is_empty() && setting.failover.is_empty() {
        return compact(groups);
    }
    by_distance(groups, setting, key)
}

fn distribute<'a>(mut groups: Vec<Group<'a>>, rule: &Distribute) -> Vec<Group<'a>> {
    let mut taken = vec![false; groups.len()];
    // The most specific target claims its places first.
    let mut targets: Vec<(&String, u32)> = rule
        .to
        .iter()
        .map(|(place, weight)| (place, *weight))
        .collect();
    targets.sort_by_key(|(place, _)| std::cmp::Reverse(place.split('/').count()));
    for (place, weight) in targets {
        let members: Vec<usize> = (0..groups.len())
            .filter(|index| !taken[*index] && groups[*index].place.is_within(place))
            .collect();
        let sum: u32 = members.iter().map(|index| groups[*index].weight).sum();
        for index in members {
            taken[index] = true;
            let share = u64::from(groups[index].weight) * u64::from(weight);
            let share = share.div_ceil(u64::from(sum.max(1)));
            groups[index].weight = u32::try_from(share).unwrap_or(u32::MAX);
        }
    }
    for (index, group) in groups.iter_mut().enumerate() {
        if !taken[index] {
            // No share: the place stays known, its endpoints get nothing.
            group.endpoints.clear();
            group.weight = 0;
        }
    }
    groups
}

/// Own subzone 0, zone 1, region 2, elsewhere 3, and 4 where failover names another region.
fn by_distance<'a>(
    mut groups: Vec<Group<'a>>,
    setting: &LocalityLbSetting,
    key: &EndpointsKey,
) -> Vec<Group<'a>> {
    if key.locality.is_empty() {
        return compact(groups);
    }
    for group in &mut groups {
        let mut distance = key.locality.distance(&group.place);
        if distance == 3 {
            let rule = setting
                .failover
                .iter()
                .find(|rule| rule.from == key.locality.region);
            if rule.is_some_and(|rule| rule.to != group.place.region) {
                distance = 4;
            }
        }
        // After a split by labels, distance orders within each label priority.
        group.priority = group.priority * 5 + distance;
    }
    compact(groups)
}

/// Endpoints with more leading labels in common with the client come first.
fn by_labels<'a>(
    groups: Vec<Group<'a>>,
    priorities: &[String],
    key: &EndpointsKey,
) -> Vec<Group<'a>> {
    let rank = |labels: &Labels| {
        let missed = priorities.iter().position(|wanted| {
            let (name, fixed) = match wanted.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (wanted.as_str(), None),
            };
            let mine = fixed.or_else(|| key.labels.get(name).map(String::as_str));
            mine != labels.get(name).map(String::as_str)
        });
        let same = missed.unwrap_or(priorities.len());
        u32::try_from(priorities.len() - same).unwrap_or_default()
    };
    let mut split = Vec::new();
    for group in groups {
        let mut parts: BTreeMap<u32, Vec<(LbEndpoint, &'a Endpoint)>> = BTreeMap::new();
        for endpoint in group.endpoints {
            parts
                .entry(rank(&endpoint.1.labels))
                .or_default()
                .push(endpoint);
        }
        for (priority, endpoints) in parts {
            let mut part = Group::new(group.place.clone(), endpoints);
            part.priority = priority;
            split.push(part);
        }
    }
    split
}

/// Priorities without gaps from 0: Envoy requires it.
fn compact(mut groups: Vec<Group<'_>>) -> Vec<Group<'_>> {
    let mut used: Vec<u32> = groups
        .iter()
        .filter(|group| !group.endpoints.is_empty())
        .map(|group| group.priority)
        .collect();
    used.sort_unstable();
    used.dedup();
    for group in &mut groups {
        let index = used.iter().position(|priority| *priority >= group.priority);
        group.priority = u32::try_from(index.unwrap_or(used.len())).unwrap_or_default();
    }
    groups.sort_by_key(|group| group.priority);
    groups
}
