//! One finding about what the user wrote: where it is, what is wrong, what would be right.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::object::ObjectKey;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

/// Why a diagnostic exists, for machines (status conditions, tests, exit codes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reason {
    /// Not YAML or JSON at all, or beyond the limits for size and depth.
    Syntax,
    /// A kind or API version that is not known.
    UnknownKind,
    UnknownField,
    WrongType,
    /// Well-formed but against the rules of its kind.
    Invalid,
    /// A rule that is never reached, because one before it takes everything.
    Unreachable,
    /// A match that changes nothing, because one before it holds it.
    Ineffective,
    /// Valid, and not performed by this release.
    NotPerformed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    pub severity: Severity,
    pub reason: Reason,
    pub file: Arc<str>,
    /// Counted from 1; 0 when the object did not come from a file.
    pub line: u32,
    pub column: u32,
    /// `spec.http[0].route[1].weight`; empty when it concerns the whole document.
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectKey>,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
}

impl Diagnostic {
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
        }
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if !self.file.is_empty() || self.line > 0 {
            f.write_str(" ")?;
        }
        write!(f, "{}: ", self.severity)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.allowed {
            Some(allowed) => write!(f, " (allowed: {allowed})"),
            None => Ok(()),
        }
    }
}
