//! Load balancers and localities.

use std::collections::BTreeSet;

use super::{Check, values};
use crate::kinds::load_balancer::{
    ConsistentHashLb, Failover, HashAlgorithm, HashKey, HttpCookie, LbPolicy, LoadBalancerSettings,
    LocalityLbSetting, SimpleLb, ZoneAwareLbSetting,
};

pub fn check(c: &mut Check<'_>, balancer: &LoadBalancerSettings, has_outlier: bool) {
    if balancer.locality_lb_setting.is_some() && balancer.zone_aware_lb_setting.is_some() {
        c.error(
            "zoneAwareLbSetting",
            "cannot stand beside localityLbSetting",
        );
    }
    if let Some(LbPolicy::ConsistentHash(hash)) = &balancer.lb_policy {
        c.at("consistentHash", |c| check_hash(c, hash));
    }
    if let Some(LbPolicy::Simple(SimpleLb::LeastConn)) = balancer.lb_policy {
        c.warn("simple", "LEAST_CONN is deprecated, use LEAST_REQUEST");
    }
    c.some(
        "localityLbSetting",
        balancer.locality_lb_setting.as_ref(),
        |c, setting| {
            check_locality(c, setting, has_outlier);
        },
    );
    c.some(
        "zoneAwareLbSetting",
        balancer.zone_aware_lb_setting.as_ref(),
        check_zone_aware,
    );
    check_warmup(c, balancer);
}

fn check_warmup(c: &mut Check<'_>, balancer: &LoadBalancerSettings) {
    if let Some(duration) = balancer.warmup_duration_secs {
        c.verify("warmupDurationSecs", values::duration(duration));
    }
    c.some("warmup", balancer.warmup.as_ref(), |c, warmup| {
        match warmup.duration {
            Some(duration) => c.verify("duration", values::duration(duration)),
            None => c.error("duration", "must be set"),
        }
        if warmup
            .minimum_percent
            .is_some_and(|percent| !(0.0..=100.0).contains(&percent))
        {
            c.not_allowed("minimumPercent", "out of range", "0 to 100");
        }
        if warmup.aggression.is_some_and(|aggression| aggression < 0.0) {
            c.error("aggression", "must not be negative");
        }
    });
}

fn check_hash(c: &mut Check<'_>, hash: &ConsistentHashLb) {
    if let Some(HashKey::HttpCookie(cookie)) = &hash.hash_key {
        c.at("httpCookie", |c| check_cookie(c, cookie));
    }
    if let Some(HashAlgorithm::Maglev(maglev)) = &hash.hash_algorithm
        && maglev.table_size != 0
    {
        if maglev.table_size > 5_000_011 {
            c.error("maglev.tableSize", "must not be greater than 5000011");
        } else if !is_prime(maglev.table_size) {
            c.error("maglev.tableSize", "must be a prime number");
        }
    }
}

fn check_cookie(c: &mut Check<'_>, cookie: &HttpCookie) {
    if cookie.name.is_empty() {
        c.error("name", "must be set");
    }
    let mut seen = BTreeSet::new();
    c.each("attributes", &cookie.attributes, |c, attribute| {
        if attribute.name.is_empty() {
            c.error("name", "must be set");
        } else if !seen.insert(attribute.name.clone()) {
            c.error("name", "is given twice");
        }
    });
}

fn is_prime(number: u64) -> bool {
    let divides = |divisor: &u64| number.is_multiple_of(*divisor);
    number > 1 && !(2..).take_while(|d| d * d <= number).any(|d| divides(&d))
}

pub fn check_locality(c: &mut Check<'_>, setting: &LocalityLbSetting, has_outlier: bool) {
    if !setting.distribute.is_empty() {
        let others = [
            ("failover", setting.failover.is_empty()),
            ("failoverPriority", setting.failover_priority.is_empty()),
        ];
        for (field, empty) in others {
            if !empty {
                c.error(field, "cannot stand beside distribute");
            }
        }
    }
    let region = "topology.kubernetes.io/region";
    let by_region = |label: &String| label.split('=').next() == Some(region);
    if !setting.failover.is_empty() && setting.failover_priority.iter().any(by_region) {
        c.error(
            "failoverPriority",
            format!("cannot name {region} beside failover"),
        );
    }
    let mut sources: Vec<&str> = Vec::new();
    c.each("distribute", &setting.distribute, |c, distribute| {
        let mut total: u64 = 0;
        for weight in distribute.to.values() {
            if !(1..=100).contains(weight) {
                c.not_allowed("to", "a weight is out of range", "1 to 100");
            }
            total += u64::from(*weight);
        }
        if total != 100 {
            c.error("to", format!("the weights add up to {total}, not to 100"));
        }
        let targets: Vec<&str> = distribute.to.keys().map(String::as_str).collect();
        c.verify("to", localities(&targets));
    });
    sources.extend(
        setting
            .distribute
            .iter()
            .map(|distribute| distribute.from.as_str()),
    );
    c.verify("distribute", localities(&sources));
    let fails_over = !setting.failover.is_empty() || !setting.failover_priority.is_empty();
    if fails_over && !has_outlier {
        c.warn("", "failover needs outlierDetection");
    }
    c.each("failover", &setting.failover, check_failover);
}

fn check_failover(c: &mut Check<'_>, failover: &Failover) {
    if failover.from == failover.to {
        c.error("to", "must be another region than from");
    }
    for (field, region) in [("from", &failover.from), ("to", &failover.to)] {
        if region.contains(['/', '*']) {
            c.error(field, "must be a region, without `/` and `*`");
        }
    }
}

fn check_zone_aware(c: &mut Check<'_>, setting: &ZoneAwareLbSetting) {
    c.each("failover", &setting.failover, check_failover);
    c.each(
        "failoverPriority",
        &setting.failover_priority,
        |c, label| {
            let key = label.split('=').next().unwrap_or(label);
            let reserved = [
                "topology.kubernetes.io/region",
                "topology.kubernetes.io/zone",
                "topology.istio.io/subzone",
            ];
            if reserved.contains(&key) {
                c.error("", "must not name a label of the locality");
            }
        },
    );
    if setting.min_cluster_size == Some(0) {
        c.error("minClusterSize", "must be at least 1");
    }
}

/// `region/zone/subzone` with `*` at the end only, none within another.
pub fn localities(list: &[&str]) -> Result<(), String> {
    let mut trimmed: Vec<Vec<&str>> = Vec::new();
    for locality in list {
        let mut parts: Vec<&str> = locality.split('/').collect();
        if parts.len() > 3 || parts.iter().any(|part| part.is_empty()) {
            return Err(format!(
                "{:?} is not region/zone/subzone",
                values::cut(locality)
            ));
        }
        if parts.last() == Some(&"*") {
            parts.pop();
        }
        if parts.iter().any(|part| part.contains('*')) {
            return Err(format!(
                "{:?}: `*` may stand at the end only",
                values::cut(locality)
            ));
        }
        trimmed.push(parts);
    }
    for (index, one) in trimmed.iter().enumerate() {
        for (other, name) in trimmed[..index].iter().zip(list) {
            if one.starts_with(other) || other.starts_with(one) {
                return Err(format!("{:?} and {name:?} overlap", list[index]));
            }
        }
    }
    Ok(())
}
