//! What can go wrong on the local platform, sorted by who is to blame.

use std::io;

/// One failure; its text says what, where and, where we know it, what to do.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The user's manifests; every problem with file and line.
    #[error("{}", lines(.0))]
    Manifest(Vec<mesh_api::Diagnostic>),
    /// The user asked for something that cannot be (a port in use, no such pod …).
    #[error("{0}")]
    Refused(String),
    /// The system refused.
    #[error("cannot {action}: {source}")]
    System { action: String, source: io::Error },
    /// Something of ours, or a program of ours, failed.
    #[error("{0}")]
    Failed(String),
}

impl LocalError {
    pub fn system(action: &str, source: io::Error) -> LocalError {
        LocalError::System {
            action: action.to_owned(),
            source,
        }
    }

    pub fn failed(text: impl Into<String>) -> LocalError {
        LocalError::Failed(text.into())
    }

    pub fn refused(text: impl Into<String>) -> LocalError {
        LocalError::Refused(text.into())
    }
}

fn lines(problems: &[mesh_api::Diagnostic]) -> String {
    problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}
