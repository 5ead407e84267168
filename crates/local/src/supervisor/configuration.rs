//! The folder's Istio configuration on its way to the control plane.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::error::LocalError;
use crate::manifest::DesiredMesh;
use crate::supervisor::Supervisor;

/// The keys of what was applied from the folder, to prune what has left it.
const APPLIED: &str = "applied.json";

impl Supervisor {
    /// The folder's Istio configuration goes the way of `stolos apply`; what has left the folder
    /// since the last time is deleted.
    pub(super) async fn apply(&self, desired: &DesiredMesh) -> Result<(), LocalError> {
        let mut files: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for object in &desired.configuration {
            files
                .entry(object.origin.file.to_string())
                .or_default()
                .push(object.to_json());
        }
        let files: Vec<Value> = files
            .into_iter()
            .map(|(name, items)| {
                let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
                json!({"name": name, "text": list.to_string()})
            })
            .collect();
        let body = json!({"files": files, "namespace": "default", "dryRun": false});
        let answer = self.platform.control.post("/v1/apply", &body).await?;
        if !answer.is_success() {
            return Err(LocalError::refused(format!(
                "the control plane refuses the folder's configuration: {}",
                refusal(&answer.json()).unwrap_or_else(|| answer.error_text())
            )));
        }
        let keys: Vec<Value> = desired
            .configuration
            .iter()
            .map(|one| {
                let meta = &one.meta;
                json!({"kind": meta.kind, "namespace": meta.namespace, "name": meta.name})
            })
            .collect();
        let before: Vec<Value> = self.platform.state.load(APPLIED);
        let gone: Vec<Value> = before
            .into_iter()
            .filter(|key| !keys.contains(key))
            .collect();
        if !gone.is_empty() {
            self.platform
                .control
                .post("/v1/delete", &json!({"objects": gone}))
                .await?;
        }
        self.platform.state.store(APPLIED, &keys)
    }
}

/// The errors of an apply that was refused, a line each.
fn refusal(json: &Value) -> Option<String> {
    let errors = json
        .get("errors")?
        .as_array()
        .filter(|errors| !errors.is_empty())?;
    let text = |error: &Value| match serde_json::from_value::<mesh_api::Diagnostic>(error.clone()) {
        Ok(diagnostic) => diagnostic.to_string(),
        Err(_) => error.to_string(),
    };
    Some(errors.iter().map(text).collect::<Vec<_>>().join("\n"))
}
