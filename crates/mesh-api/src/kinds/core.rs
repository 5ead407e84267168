//! The Kubernetes kinds that the local platform and the registries read.

pub mod config;
pub mod container;
pub mod deployment;
pub mod namespace;
pub mod pod;
pub mod probe;
pub mod service;
pub mod volume;

pub use config::{ConfigMap, Secret};
pub use deployment::DeploymentSpec;
pub use namespace::{Namespace, ServiceAccount};
pub use pod::PodSpec;
pub use service::ServiceSpec;

use serde_json::{Value as Json, json};

use crate::decode::{Decode, Decoder, Encode};
use crate::node::{Node, Value};

/// A number, or the name of one (Kubernetes' IntOrString).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntOrString {
    Int(i32),
    String(String),
}

impl Default for IntOrString {
    fn default() -> Self {
        IntOrString::Int(0)
    }
}

impl Decode for IntOrString {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        match &node.value {
            Value::String(text) => Some(IntOrString::String(text.clone())),
            Value::Number(_) => i32::decode(node, decoder).map(IntOrString::Int),
            _ => {
                decoder.wrong_type(node, "a number or a name");
                None
            }
        }
    }
}

impl Encode for IntOrString {
    fn encode(&self) -> Json {
        match self {
            IntOrString::Int(value) => json!(value),
            IntOrString::String(value) => json!(value),
        }
    }
}

/// A field that is known and not performed: kept as it is, so that it can be warned of.
pub type Opaque = Option<Json>;
