//! One named, versioned, encoded resource: what pilot makes and the discovery server sends.

use bytes::Bytes;

use crate::ResourceType;

/// A resource as it travels: encoded once, shared by every stream that sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// The type, which gives the type URL.
    pub kind: ResourceType,
    /// Unique within its type.
    pub name: String,
    /// A hash of the content, never a generation: a reconnect must not resend what is equal.
    pub version: String,
    /// The encoded message, that is `Any.value`.
    pub body: Bytes,
}
