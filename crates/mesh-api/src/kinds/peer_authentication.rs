//! PeerAuthentication: whether a workload takes plain text, mutual TLS or both.

use std::collections::BTreeMap;

use super::selector::WorkloadSelector;

message! {
    pub struct PeerAuthentication {
        selector: Option<WorkloadSelector>,
        mtls: Option<MutualTls>,
        /// By the workload's port, not the service's.
        port_level_mtls: BTreeMap<u32, MutualTls>,
    }
}

message! {
    #[derive(Eq)]
    pub struct MutualTls {
        mode: MutualTlsMode,
    }
}

enumeration! {
    pub enum MutualTlsMode {
        Unset = "UNSET",
        Disable = "DISABLE",
        Permissive = "PERMISSIVE",
        Strict = "STRICT",
    }
}
