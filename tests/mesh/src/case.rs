//! A differential case: a folder with `envoy.yaml`, `calls.yaml` and perhaps `rejects.yaml`.

use crate::call::{Calls, Upstream};
use crate::yaml;
use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

pub struct Case {
    pub name: String,
    /// `envoy.yaml` with its short forms.
    pub config: Value,
    pub calls: Calls,
    pub rejects: Vec<Reject>,
}

/// A change to `envoy.yaml` that makes it wrong.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reject {
    pub name: String,
    /// Merged into the short form.
    pub merge: Value,
    /// What our refusal must name.
    pub field: String,
    /// Envoy accepts it, and the reason why we do not.
    pub envoy_accepts: Option<String>,
}

impl Case {
    pub fn load(folder: &Path) -> Result<Case> {
        let name = folder
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let name = name.context("a case has a folder name")?;
        let config = yaml::read(&folder.join("envoy.yaml"))?;
        let mut calls: Calls = serde_json::from_value(yaml::read(&folder.join("calls.yaml"))?)
            .with_context(|| format!("{name}/calls.yaml"))?;
        if calls.upstreams.is_empty() {
            calls.upstreams.insert("a".to_owned(), Upstream::default());
        }
        for (index, call) in calls.calls.iter_mut().enumerate() {
            if call.name.is_empty() {
                call.name = format!("{} {}", index + 1, call.call);
            }
        }
        let rejects = folder.join("rejects.yaml");
        let rejects = match rejects.is_file() {
            true => serde_json::from_value(yaml::read(&rejects)?)
                .with_context(|| format!("{name}/rejects.yaml"))?,
            false => Vec::new(),
        };
        Ok(Case {
            name,
            config,
            calls,
            rejects,
        })
    }

    /// All cases below `folder`, by name.
    pub fn load_all(folder: &Path) -> Result<Vec<Case>> {
        let entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
        let mut paths: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
        paths.retain(|path| path.join("envoy.yaml").is_file());
        paths.sort();
        paths.iter().map(|path| Case::load(path)).collect()
    }
}
