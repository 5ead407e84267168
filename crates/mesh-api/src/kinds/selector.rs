//! Which workloads an object applies to.

use std::collections::BTreeMap;

message! {
    /// `selector: {matchLabels: …}` of the security and telemetry kinds and of DestinationRule.
    #[derive(Eq)]
    pub struct WorkloadSelector {
        match_labels: BTreeMap<String, String>,
    }
}

message! {
    /// `workloadSelector: {labels: …}` of Sidecar, ServiceEntry and EnvoyFilter.
    #[derive(Eq)]
    pub struct LabelSelector {
        labels: BTreeMap<String, String>,
    }
}

message! {
    /// The resource a policy is attached to.
    #[derive(Eq)]
    pub struct PolicyTargetReference {
        group: String,
        kind: String,
        name: String,
        /// Must be empty.
        namespace: String,
    }
}

enumeration! {
    /// Which side of a workload's traffic is meant.
    pub enum WorkloadMode {
        Undefined = "UNDEFINED",
        Client = "CLIENT",
        Server = "SERVER",
        ClientAndServer = "CLIENT_AND_SERVER",
    }
}
