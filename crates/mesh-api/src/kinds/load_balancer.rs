//! Load balancing: algorithm, locality, warm-up.

use std::collections::BTreeMap;
use std::time::Duration;

message! {
    pub struct LoadBalancerSettings {
        locality_lb_setting: Option<LocalityLbSetting>,
        zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
        /// Deprecated; `warmup` wins.
        warmup_duration_secs: Option<Duration>,
        warmup: Option<WarmupConfiguration>,
    } oneof {
        lb_policy: LbPolicy,
    }
}

oneof! {
    pub enum LbPolicy {
        Simple(SimpleLb) = "simple",
        ConsistentHash(ConsistentHashLb) = "consistentHash",
        BackendUtilization(BackendUtilization) = "backendUtilization",
    }
}

enumeration! {
    pub enum SimpleLb {
        Unspecified = "UNSPECIFIED",
        /// Deprecated: the same as `LEAST_REQUEST`.
        LeastConn = "LEAST_CONN",
        Random = "RANDOM",
        Passthrough = "PASSTHROUGH",
        RoundRobin = "ROUND_ROBIN",
        LeastRequest = "LEAST_REQUEST",
    }
}

message! {
    /// Two independent groups: what is hashed, and with which table.
    pub struct ConsistentHashLb {
        /// Deprecated; `ring_hash.minimum_ring_size` wins.
        minimum_ring_size: u64,
    } oneof {
        hash_key: HashKey,
        hash_algorithm: HashAlgorithm,
    }
}

oneof! {
    pub enum HashKey {
        HttpHeaderName(String) = "httpHeaderName",
        HttpCookie(HttpCookie) = "httpCookie",
        UseSourceIp(bool) = "useSourceIp",
        HttpQueryParameterName(String) = "httpQueryParameterName",
    }
}

oneof! {
    pub enum HashAlgorithm {
        RingHash(RingHash) = "ringHash",
        Maglev(MagLev) = "maglev",
    }
}

message! {
    pub struct RingHash {
        /// 0: 1024.
        minimum_ring_size: u64,
    }
}

message! {
    pub struct MagLev {
        /// 0: 65537.
        table_size: u64,
    }
}

message! {
    pub struct HttpCookie {
        name: String,
        path: String,
        ttl: Option<Duration>,
        attributes: Vec<CookieAttribute>,
    }
}

message! {
    pub struct CookieAttribute {
        name: String,
        value: String,
    }
}

message! {
    pub struct BackendUtilization {
        weight_update_period: Option<Duration>,
        weight_stabilization_period: Option<Duration>,
        weight_expiration_period: Option<Duration>,
        error_utilization_penalty_percent: Option<u32>,
        metric_names_for_computing_utilization: Vec<String>,
    }
}

message! {
    pub struct LocalityLbSetting {
        distribute: Vec<Distribute>,
        failover: Vec<Failover>,
        failover_priority: Vec<String>,
        enabled: Option<bool>,
    }
}

message! {
    pub struct Distribute {
        from: String,
        to: BTreeMap<String, u32>,
    }
}

message! {
    pub struct Failover {
        from: String,
        to: String,
    }
}

message! {
    pub struct ZoneAwareLbSetting {
        enabled: Option<bool>,
        failover: Vec<Failover>,
        failover_priority: Vec<String>,
        min_cluster_size: Option<u64>,
    }
}

message! {
    pub struct WarmupConfiguration {
        duration: Option<Duration>,
        /// Unset: 10.
        minimum_percent: Option<f64>,
        /// Unset: 1.
        aggression: Option<f64>,
    }
}
