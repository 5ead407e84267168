//! The mesh configuration's file: read at the start, watched from then on.

use std::path::Path;
use std::sync::Arc;

use daemon::drain::DrainWatch;
use mesh_api::mesh_config::MeshConfig;
use pilot::Event;
use pki::TrustDomain;

use crate::ControlError;
use crate::pipeline::{Source, Sources};
use crate::watch::DirectoryWatch;

/// The mesh configuration at the start: a bad one is an error.
pub(crate) fn read(path: Option<&Path>) -> Result<MeshConfig, ControlError> {
    let Some(path) = path else {
        return Ok(MeshConfig::default());
    };
    let text = std::fs::read_to_string(path).map_err(ControlError::io(path.display()))?;
    parse(path, &text).map_err(ControlError::MeshConfig)
}

fn parse(path: &Path, text: &str) -> Result<MeshConfig, String> {
    MeshConfig::parse(&path.display().to_string(), text).map_err(|diagnostics| {
        let lines: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })
}

/// A bad or unfitting mesh configuration is reported, and the last good one stays.
pub(crate) async fn watch(
    path: &Path,
    trust_domain: &TrustDomain,
    sources: Sources,
    drain: DrainWatch,
) {
    let mut watching = DirectoryWatch::file(path);
    let mut last = None;
    loop {
        let text = tokio::fs::read_to_string(path).await.ok();
        if let Some(text) = text.filter(|text| last.as_ref() != Some(text)) {
            match parse(path, &text) {
                Ok(mesh) if mesh.trust_domain != trust_domain.as_str() => {
                    tracing::warn!("a changed trust domain needs a restart; nothing was changed");
                }
                Ok(mesh) => {
                    let event = Event::MeshConfig(Arc::new(mesh));
                    if !sources.send(Source::MeshConfig, vec![event]).await {
                        return;
                    }
                }
                Err(reason) => tracing::warn!(%reason, "the mesh configuration is not changed"),
            }
            last = Some(text);
        }
        if drain.unless_draining(watching.changed()).await.is_none() {
            return;
        }
    }
}
