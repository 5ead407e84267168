//! WasmPlugin: a WebAssembly filter for a workload's proxy.

use serde_json::Value as Json;

use super::port::PortSelector;
use super::selector::{PolicyTargetReference, WorkloadMode, WorkloadSelector};

message! {
    pub struct WasmPlugin {
        selector: Option<WorkloadSelector>,
        target_ref: Option<PolicyTargetReference>,
        target_refs: Vec<PolicyTargetReference>,
        url: String,
        sha256: String,
        image_pull_policy: PullPolicy,
        image_pull_secret: String,
        verification_key: String,
        plugin_config: Option<Json>,
        plugin_name: String,
        phase: PluginPhase,
        priority: Option<i32>,
        vm_config: Option<VmConfig>,
        r#match: Vec<TrafficSelector>,
        fail_strategy: FailStrategy,
        r#type: PluginType,
    }
}

enumeration! {
    pub enum PullPolicy {
        Unspecified = "UNSPECIFIED_POLICY",
        IfNotPresent = "IfNotPresent",
        Always = "Always",
    }
}

enumeration! {
    pub enum PluginPhase {
        Unspecified = "UNSPECIFIED_PHASE",
        Authn = "AUTHN",
        Authz = "AUTHZ",
        Stats = "STATS",
    }
}

enumeration! {
    pub enum FailStrategy {
        FailClose = "FAIL_CLOSE",
        FailOpen = "FAIL_OPEN",
        FailReload = "FAIL_RELOAD",
    }
}

enumeration! {
    pub enum PluginType {
        Unspecified = "UNSPECIFIED_PLUGIN_TYPE",
        Http = "HTTP",
        Network = "NETWORK",
    }
}

message! {
    pub struct VmConfig {
        env: Vec<EnvVar>,
    }
}

message! {
    pub struct EnvVar {
        name: String,
        value_from: EnvValueSource,
        value: String,
    }
}

enumeration! {
    pub enum EnvValueSource { Inline = "INLINE", Host = "HOST" }
}

message! {
    pub struct TrafficSelector {
        mode: WorkloadMode,
        ports: Vec<PortSelector>,
    }
}
