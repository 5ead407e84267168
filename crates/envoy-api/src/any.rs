//! Messages in and out of `google.protobuf.Any`.

use prost::{Message, Name};
use prost_types::Any;

/// Why an `Any` did not hold what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnyError {
    /// Another type than the one asked for.
    #[error("holds {found}, not {wanted}")]
    Type { found: String, wanted: String },
    /// The right type, but its bytes do not decode.
    #[error("{wanted} does not decode: {reason}")]
    Decode { wanted: String, reason: String },
}

/// Packs a message with its type URL.
pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: M::type_url(),
        value: message.encode_to_vec(),
    }
}

/// Unpacks a message; the part of the type URL before the last `/` is not looked at, as in Envoy.
pub fn unpack<M: Message + Name + Default>(any: &Any) -> Result<M, AnyError> {
    if !is::<M>(any) {
        return Err(AnyError::Type {
            found: any.type_url.clone(),
            wanted: M::full_name(),
        });
    }
    M::decode(any.value.as_slice()).map_err(|error| AnyError::Decode {
        wanted: M::full_name(),
        reason: error.to_string(),
    })
}

/// Whether the `Any` holds this message.
pub fn is<M: Name>(any: &Any) -> bool {
    message_name(&any.type_url) == M::full_name()
}

/// The message name of a type URL: what follows the last `/`.
pub fn message_name(type_url: &str) -> &str {
    type_url.rsplit('/').next().unwrap_or(type_url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Cluster;
    use crate::listener::Listener;

    #[test]
    fn packs_and_unpacks() {
        let cluster = Cluster {
            name: "outbound|80||a".into(),
            ..Default::default()
        };
        let any = pack(&cluster);
        assert_eq!(unpack::<Cluster>(&any), Ok(cluster), "the same message");
        assert!(
            matches!(unpack::<Listener>(&any), Err(AnyError::Type { .. })),
            "another type"
        );
        let cut = Any {
            value: vec![0x0a, 0xff],
            ..any
        };
        assert!(
            matches!(unpack::<Cluster>(&cut), Err(AnyError::Decode { .. })),
            "cut bytes"
        );
    }
}
