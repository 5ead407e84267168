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

/// A label, or what stands for it where no label was written.
fn label<'a>(
    name: &str,
    labels: &'a Labels,
    place: &'a Locality,
    network: &'a str,
) -> Option<&'a str> {
    let derived = match name {
        "topology.kubernetes.io/region" => place.region.as_str(),
        "topology.kubernetes.io/zone" => place.zone.as_str(),
        "topology.istio.io/subzone" => place.subzone.as_str(),
        "topology.istio.io/network" => network,
        _ => "",
    };
    let written = labels.get(name).map(String::as_str);
    written.or_else(|| Some(derived).filter(|value| !value.is_empty()))
}

/// Endpoints with more leading labels in common with the client come first.
fn by_labels<'a>(
    groups: Vec<Group<'a>>,
    priorities: &[String],
    key: &EndpointsKey,
) -> Vec<Group<'a>> {
    let rank = |endpoint: &Endpoint| {
        let missed = priorities.iter().position(|wanted| {
            let (name, fixed) = match wanted.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (wanted.as_str(), None),
            };
            let mine = fixed.or_else(|| label(name, &key.labels, &key.locality, &key.network));
            let theirs = label(
                name,
                &endpoint.labels,
                &endpoint.locality,
                &endpoint.network,
            );
            mine != theirs
        });
        let same = missed.unwrap_or(priorities.len());
        u32::try_from(priorities.len() - same).unwrap_or_default()
    };
    let mut split = Vec::new();
    for group in groups {
        let mut parts: BTreeMap<u32, Vec<(LbEndpoint, &'a Endpoint)>> = BTreeMap::new();
        for endpoint in group.endpoints {
            parts.entry(rank(endpoint.1)).or_default().push(endpoint);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mesh_api::kinds::load_balancer::Failover;

    use super::*;
    use crate::model::{EndpointAddress, ServiceKey};
    use crate::state::Revision;

    fn key(place: &str, labels: &[(&str, &str)]) -> EndpointsKey {
        EndpointsKey {
            cluster: String::new(),
            service: ServiceKey::new("a", "ns"),
            service_revision: Revision(1),
            endpoints: 1,
            rule: None,
            mesh: Revision(1),
            locality: Locality::parse(place),
            network: String::new(),
            labels: labels
                .iter()
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .collect(),
            ipv4: true,
            ipv6: false,
            peers: Revision(1),
        }
    }

    fn endpoint(place: &str, network: &str) -> Endpoint {
        let address = EndpointAddress::parse("10.0.0.1");
        let mut endpoint = Endpoint::new(address, 80, "http");
        endpoint.locality = Locality::parse(place);
        endpoint.labels =
            Arc::new([("topology.istio.io/network".to_owned(), network.to_owned())].into());
        endpoint
    }

    fn result(
        endpoints: &[Endpoint],
        setting: &LocalityLbSetting,
        key: &EndpointsKey,
    ) -> Vec<(String, u32, u32)> {
        let groups = endpoints
            .iter()
            .map(|one| Group::new(one.locality.clone(), vec![(LbEndpoint::default(), one)]))
            .collect();
        let applied = apply(groups, setting, key).into_iter();
        applied
            .map(|g| (g.place.to_string(), g.priority, g.weight))
            .collect()
    }

    #[test]
    fn nearer_places_come_first() {
        let endpoints = [
            endpoint("us/a/1", ""),
            endpoint("us/b", ""),
            endpoint("eu/c", ""),
        ];
        let rule = Failover {
            from: "us".into(),
            to: "eu".into(),
        };
        let failover = LocalityLbSetting {
            failover: vec![rule],
            ..Default::default()
        };
        let wanted = |list: &[(&str, u32, u32)]| {
            list.iter()
                .map(|(p, a, b)| (p.to_string(), *a, *b))
                .collect::<Vec<_>>()
        };
        for (from, want, why) in [
            (
                "us/a/1",
                wanted(&[("us/a/1", 0, 1), ("us/b", 1, 1), ("eu/c", 2, 1)]),
                "compact",
            ),
            (
                "ap/x",
                wanted(&[("us/a/1", 0, 1), ("us/b", 0, 1), ("eu/c", 0, 1)]),
                "all far",
            ),
        ] {
            assert_eq!(
                result(&endpoints, &failover, &key(from, &[])),
                want,
                "{why}"
            );
        }
    }

    #[test]
    fn labels_and_shares_decide() {
        let endpoints = [
            endpoint("us/a", "n1"),
            endpoint("us/b", "n2"),
            endpoint("eu/c", "n2"),
        ];
        let by_network = LocalityLbSetting {
            failover_priority: vec!["topology.istio.io/network".into()],
            ..Default::default()
        };
        let here = key("us/a", &[("topology.istio.io/network", "n2")]);
        let got = result(&endpoints, &by_network, &here);
        assert_eq!(got[0].1 + got[1].1, 0, "the own network first: {got:?}");
        assert_eq!(got[2], ("us/a".to_owned(), 1, 1), "then the others");
        let rule = Distribute {
            from: "us/*".into(),
            to: [("us/a".to_owned(), 80), ("eu/*".to_owned(), 20)].into(),
        };
        let shares = LocalityLbSetting {
            distribute: vec![rule],
            ..Default::default()
        };
        let got = result(&endpoints, &shares, &here);
        let weights: Vec<u32> = got.iter().map(|(.., weight)| *weight).collect();
        assert_eq!(
            weights,
            [80, 0, 20],
            "shares as written, nothing for the rest"
        );
    }
}
