//! TrafficExtension: a WebAssembly or Lua filter for a workload's proxy.

use serde_json::Value as Json;

use super::selector::{PolicyTargetReference, WorkloadSelector};
use super::wasm_plugin::{FailStrategy, PluginType, PullPolicy, TrafficSelector, VmConfig};

message! {
    pub struct TrafficExtension {
        selector: Option<WorkloadSelector>,
        target_refs: Vec<PolicyTargetReference>,
        phase: ExecutionPhase,
        priority: Option<i32>,
        r#match: Vec<TrafficSelector>,
    } oneof {
        filter_config: FilterConfig,
    }
}

enumeration! {
    pub enum ExecutionPhase {
        Unspecified = "UNSPECIFIED",
        Authn = "AUTHN",
        Authz = "AUTHZ",
        Stats = "STATS",
    }
}

oneof! {
    pub enum FilterConfig {
        Wasm(WasmConfig) = "wasm",
        Lua(LuaConfig) = "lua",
    }
}

message! {
    pub struct WasmConfig {
        url: String,
        sha256: String,
        image_pull_policy: PullPolicy,
        image_pull_secret: String,
        verification_key: String,
        plugin_config: Option<Json>,
        plugin_name: String,
        fail_strategy: FailStrategy,
        vm_config: Option<VmConfig>,
        r#type: PluginType,
    }
}

message! {
    pub struct LuaConfig {
        inline_code: String,
    }
}
