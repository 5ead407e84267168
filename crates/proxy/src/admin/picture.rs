//! What the admin endpoints see: filled by the process from its state for each request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::cluster::shared::{ClusterBlock, Endpoints};
use crate::parse::Environment;
use crate::parse::cluster::Cluster;
use crate::parse::listener::Listener;

#[derive(Debug, Clone)]
pub struct Picture {
    /// Encoded, as it was given.
    pub bootstrap: Arc<envoy_api::bootstrap::Bootstrap>,
    pub environment: Environment,
    pub started: SystemTime,
    pub clusters: Vec<ClusterPicture>,
    pub listeners: Vec<ListenerPicture>,
    pub routes: Vec<ResourcePicture>,
    pub endpoints: Vec<ResourcePicture>,
    pub secrets: Vec<ResourcePicture>,
    pub runtime: Vec<(String, String)>,
    pub concurrency: usize,
    pub ready: bool,
    pub draining: bool,
    /// Set by `/healthcheck/fail`.
    pub failed: bool,
    pub drain_time: Duration,
}

/// A resource's encoded message as it came.
#[derive(Debug, Clone)]
pub struct RawPicture {
    pub body: Bytes,
    pub version: String,
    pub updated: SystemTime,
    pub is_static: bool,
}

#[derive(Debug, Clone)]
pub struct ClusterPicture {
    pub config: Arc<Cluster>,
    pub block: Option<Arc<ClusterBlock>>,
    pub endpoints: Arc<Endpoints>,
    pub raw: RawPicture,
    pub warming: bool,
}

#[derive(Debug, Clone)]
pub struct ListenerPicture {
    pub config: Arc<Listener>,
    /// Where it accepts connections.
    pub addresses: Vec<SocketAddr>,
    pub raw: RawPicture,
    pub warming: bool,
}

#[derive(Debug, Clone)]
pub struct ResourcePicture {
    pub name: Arc<str>,
    pub raw: RawPicture,
}

/// A protobuf timestamp in milliseconds, as Envoy writes it.
pub fn timestamp(time: SystemTime) -> prost_types::Timestamp {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    prost_types::Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_millis()).unwrap_or(0) * 1_000_000,
    }
}
