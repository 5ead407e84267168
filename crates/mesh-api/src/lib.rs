//! What users write: Istio kinds and the Kubernetes kinds we read; parse, validate, analyze.
//! Pure: no input or output happens here.

pub mod analyze;
#[macro_use]
pub mod decode;
pub mod diagnostic;
pub mod host;
pub mod kinds;
pub mod labels;
pub mod mesh_config;
pub mod node;
pub mod object;
pub mod parse;
pub mod performed;
pub mod port;
pub mod validate;

pub use diagnostic::{Diagnostic, Reason, Severity};
pub use kinds::{Kind, Spec};
pub use object::{Metadata, Object, ObjectKey, Origin};
