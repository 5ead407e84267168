//! Deployment: a number of equal pods.

use std::collections::BTreeMap;

use super::pod::PodSpec;
use super::{IntOrString, Opaque};

message! {
    pub struct DeploymentSpec {
        /// Unset: 1.
        replicas: Option<i32>,
        selector: Option<LabelSelector>,
        template: Option<PodTemplate>,
        strategy: Option<DeploymentStrategy>,
        min_ready_seconds: i32,
        revision_history_limit: Option<i32>,
        paused: bool,
        progress_deadline_seconds: Option<i32>,
    }
}

message! {
    pub struct LabelSelector {
        match_labels: BTreeMap<String, String>,
        match_expressions: Vec<LabelSelectorRequirement>,
    }
}

message! {
    pub struct LabelSelectorRequirement {
        key: String,
        operator: String,
        values: Vec<String>,
    }
}

message! {
    pub struct PodTemplate {
        metadata: Option<TemplateMetadata>,
        spec: Option<PodSpec>,
    }
}

message! {
    pub struct TemplateMetadata {
        name: String,
        namespace: String,
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
        creation_timestamp: Opaque,
    }
}

message! {
    pub struct DeploymentStrategy {
        /// `RollingUpdate` (also when empty) or `Recreate`.
        r#type: String,
        rolling_update: Option<RollingUpdate>,
    }
}

message! {
    pub struct RollingUpdate {
        max_surge: Option<IntOrString>,
        max_unavailable: Option<IntOrString>,
    }
}
