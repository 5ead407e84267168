//! WorkloadEntry: one workload outside of the platform, also inline in a ServiceEntry.

use std::collections::BTreeMap;

message! {
    #[derive(Eq)]
    pub struct WorkloadEntry {
        /// An IP address, a name (DNS resolutions only) or `unix:///path`.
        address: String,
        ports: BTreeMap<String, u32>,
        labels: BTreeMap<String, String>,
        network: String,
        /// `region/zone/subzone`.
        locality: String,
        /// 0: 1.
        weight: u32,
        service_account: String,
    }
}
