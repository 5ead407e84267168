//! `core.v3.Metadata` as a cheap, shared value with typed look-ups.

use std::sync::Arc;

use envoy_api::core;
use prost_types::{Struct, Value, value::Kind};

/// Metadata as the API has it, shared; an absent message is empty.
pub type Metadata = Arc<core::Metadata>;

pub fn parse(message: Option<&core::Metadata>) -> Metadata {
    Arc::new(message.cloned().unwrap_or_default())
}

/// The value under `filter_metadata[namespace]` at `path`.
pub fn find<'a>(metadata: &'a core::Metadata, namespace: &str, path: &[&str]) -> Option<&'a Value> {
    let mut fields = metadata.filter_metadata.get(namespace)?;
    let (last, parents) = path.split_last()?;
    for key in parents {
        fields = as_struct(fields.fields.get(*key)?)?;
    }
    fields.fields.get(*last)
}

pub fn as_struct(value: &Value) -> Option<&Struct> {
    match value.kind.as_ref()? {
        Kind::StructValue(fields) => Some(fields),
        _ => None,
    }
}

pub fn as_str(value: &Value) -> Option<&str> {
    match value.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

/// A protobuf value as JSON; numbers that are whole lose their fraction, as Envoy prints them.
pub fn to_json(value: &Value) -> serde_json::Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(value)) => (*value).into(),
        Some(Kind::StringValue(value)) => value.clone().into(),
        Some(Kind::NumberValue(value)) => {
            if value.fract() == 0.0 && value.abs() < 9e15 {
                (*value as i64).into()
            } else {
                serde_json::Number::from_f64(*value).map_or(serde_json::Value::Null, Into::into)
            }
        }
        Some(Kind::StructValue(fields)) => struct_to_json(fields),
        Some(Kind::ListValue(list)) => list.values.iter().map(to_json).collect(),
    }
}

pub fn struct_to_json(fields: &Struct) -> serde_json::Value {
    serde_json::Value::Object(
        fields
            .fields
            .iter()
            .map(|(key, value)| (key.clone(), to_json(value)))
            .collect(),
    )
}
