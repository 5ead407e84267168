//! DestinationRule: what happens to traffic after routing, per host and subset.

use std::collections::BTreeMap;

use super::selector::WorkloadSelector;
use super::traffic_policy::TrafficPolicy;

message! {
    pub struct DestinationRule {
        host: String,
        traffic_policy: Option<TrafficPolicy>,
        subsets: Vec<Subset>,
        export_to: Vec<String>,
        workload_selector: Option<WorkloadSelector>,
    }
}

message! {
    pub struct Subset {
        name: String,
        labels: BTreeMap<String, String>,
        traffic_policy: Option<TrafficPolicy>,
    }
}
