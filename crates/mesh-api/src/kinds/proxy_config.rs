//! ProxyConfig (the custom resource): settings of a workload's proxy at injection time.
//! The mesh-wide `defaultConfig` is in `mesh_config`.

use std::collections::BTreeMap;

use super::selector::WorkloadSelector;

message! {
    pub struct ProxyConfig {
        selector: Option<WorkloadSelector>,
        concurrency: Option<i32>,
        environment_variables: BTreeMap<String, String>,
        image: Option<ProxyImage>,
    }
}

message! {
    pub struct ProxyImage {
        image_type: String,
    }
}
