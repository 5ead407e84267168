//! Canonical proto3 JSON of any message in the set, nested `Any` opened. For bootstraps, dumps
//! and tests: the slow path only.

use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, SerializeOptions};

static DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(DESCRIPTORS).expect("BUG: the embedded descriptor set does not decode")
});

/// Why JSON could not be read as a message, or a message not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}: {reason}")]
pub struct JsonError {
    /// The message's full name.
    pub message: String,
    /// What is wrong, with the field where the reader knows it.
    pub reason: String,
}

/// The descriptors of every message of this crate.
pub fn descriptors() -> &'static DescriptorPool {
    &POOL
}

/// A message as canonical JSON (lowerCamelCase, defaults left out).
pub fn to_json<M: Message + Name>(message: &M) -> Result<serde_json::Value, JsonError> {
    write::<M>(message, &SerializeOptions::new().skip_default_fields(true))
}

/// A message as Envoy's admin writes it: original field names (snake_case), defaults left out.
pub fn to_admin_json<M: Message + Name>(message: &M) -> Result<serde_json::Value, JsonError> {
    let options = SerializeOptions::new()
        .skip_default_fields(true)
        .use_proto_field_name(true);
    write::<M>(message, &options)
}

/// Reads canonical JSON; both spellings of a field name are taken, an unknown field is an error.
pub fn from_json<M: Message + Name + Default>(value: serde_json::Value) -> Result<M, JsonError> {
    let descriptor = descriptor::<M>()?;
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let dynamic = DynamicMessage::deserialize_with_options(descriptor, value, &options)
        .map_err(|error| failed::<M>(error))?;
    M::decode(dynamic.encode_to_vec().as_slice()).map_err(|error| failed::<M>(error))
}

fn write<M: Message + Name>(
    message: &M,
    options: &SerializeOptions,
) -> Result<serde_json::Value, JsonError> {
    let bytes = message.encode_to_vec();
    let dynamic = DynamicMessage::decode(descriptor::<M>()?, bytes.as_slice())
        .map_err(|error| failed::<M>(error))?;
    dynamic
        .serialize_with_options(serde_json::value::Serializer, options)
        .map_err(|error| failed::<M>(error))
}

fn descriptor<M: Name>() -> Result<prost_reflect::MessageDescriptor, JsonError> {
    POOL.get_message_by_name(&M::full_name())
        .ok_or_else(|| failed::<M>("is not in the descriptor set"))
}

fn failed<M: Name>(reason: impl ToString) -> JsonError {
    JsonError {
        message: M::full_name(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Cluster;
    use crate::istio::stats::PluginConfig;
    use crate::listener::{Filter, FilterChain, Listener, filter};

    #[test]
    fn round_trips_with_nested_any() {
        let inner = PluginConfig {
            disable_host_header_fallback: true,
            ..Default::default()
        };
        let config = crate::any::pack(&inner);
        let listener = Listener {
            name: "virtualInbound".into(),
            filter_chains: vec![FilterChain {
                filters: vec![Filter {
                    name: "istio.stats".into(),
                    config_type: Some(filter::ConfigType::TypedConfig(config)),
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let json = to_json(&listener).expect("writes");
        let typed = &json["filterChains"][0]["filters"][0]["typedConfig"];
        assert_eq!(
            typed["disableHostHeaderFallback"], true,
            "the Any is opened"
        );
        assert_eq!(
            from_json::<Listener>(json).expect("reads"),
            listener,
            "the same message"
        );
    }

    #[test]
    fn refuses_unknown_fields_by_name() {
        let value = serde_json::json!({"name": "a", "connect_timeout": "5s", "nonsense": 1});
        let error = from_json::<Cluster>(value).expect_err("unknown field");
        assert!(error.reason.contains("nonsense"), "{error}");
    }
}
