//! Findings of this crate about the user's manifests, in the same form as those of `mesh-api`.

use mesh_api::{Diagnostic, Object, Reason, Severity};

/// Collects everything before anything is refused.
#[derive(Debug, Default)]
pub struct Problems {
    pub list: Vec<Diagnostic>,
}

impl Problems {
    pub fn error(&mut self, object: &Object, path: &str, message: impl Into<String>) {
        self.push(
            object,
            path,
            (Severity::Error, Reason::Invalid),
            message.into(),
        );
    }

    /// A known field that this release does not perform.
    pub fn not_performed(&mut self, object: &Object, path: &str) {
        let message = "is not performed on the local platform".to_owned();
        self.push(
            object,
            path,
            (Severity::Warning, Reason::NotPerformed),
            message,
        );
    }

    fn push(
        &mut self,
        object: &Object,
        path: &str,
        (severity, reason): (Severity, Reason),
        message: String,
    ) {
        let place = object.origin.place(path);
        self.list.push(Diagnostic {
            severity,
            reason,
            file: object.origin.file.clone(),
            line: place.line,
            column: place.column,
            path: path.to_owned(),
            object: Some(object.key()),
            message,
            allowed: None,
        });
    }

    /// Says what is allowed in the finding just made.
    pub fn allow(&mut self, allowed: impl Into<String>) {
        if let Some(last) = self.list.last_mut() {
            last.allowed = Some(allowed.into());
        }
    }

    pub fn has_errors(&self) -> bool {
        self.list.iter().any(Diagnostic::is_error)
    }
}
