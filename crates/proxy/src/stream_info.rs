//! The one record of a stream (or TCP connection): what logs, statistics, RBAC and filters read.
//! It holds facts and no behaviour; the engine writes it, filters may add metadata.
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::cluster::shared::Host;
use crate::http::request::Protocol;

/// A set of Envoy's response flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseFlags(u32);

macro_rules! response_flags {
    ($($bit:literal $constant:ident $short:literal $long:literal)*) => {
        impl ResponseFlags {
            $(pub const $constant: ResponseFlags = ResponseFlags(1 << $bit);)*
            /// Each flag with the short and the long name that Envoy logs.
            pub const TABLE: &'static [(ResponseFlags, &'static str, &'static str)] =
                &[$((ResponseFlags::$constant, $short, $long)),*];
        }
    };
}

response_flags! {
    // In the order of the log: Envoy notes that retries ran out before it notes the last failure.
    15 UPSTREAM_RETRY_LIMIT_EXCEEDED "URX" "UpstreamRetryLimitExceeded"
    0 FAILED_LOCAL_HEALTH_CHECK "LH" "FailedLocalHealthCheck"
    1 NO_HEALTHY_UPSTREAM "UH" "NoHealthyUpstream"
    2 UPSTREAM_REQUEST_TIMEOUT "UT" "UpstreamRequestTimeout"
    3 LOCAL_RESET "LR" "LocalReset"
    4 UPSTREAM_REMOTE_RESET "UR" "UpstreamRemoteReset"
    5 UPSTREAM_CONNECTION_FAILURE "UF" "UpstreamConnectionFailure"
    6 UPSTREAM_CONNECTION_TERMINATION "UC" "UpstreamConnectionTermination"
    7 UPSTREAM_OVERFLOW "UO" "UpstreamOverflow"
    8 NO_ROUTE_FOUND "NR" "NoRouteFound"
    9 DELAY_INJECTED "DI" "DelayInjected"
    10 FAULT_INJECTED "FI" "FaultInjected"
    11 RATE_LIMITED "RL" "RateLimited"
    12 UNAUTHORIZED_EXTERNAL_SERVICE "UAEX" "UnauthorizedExternalService"
    13 RATE_LIMIT_SERVICE_ERROR "RLSE" "RateLimitServiceError"
    14 DOWNSTREAM_CONNECTION_TERMINATION "DC" "DownstreamConnectionTermination"
    16 STREAM_IDLE_TIMEOUT "SI" "StreamIdleTimeout"
    17 INVALID_ENVOY_REQUEST_HEADERS "IH" "InvalidEnvoyRequestHeaders"
    18 DOWNSTREAM_PROTOCOL_ERROR "DPE" "DownstreamProtocolError"
    19 UPSTREAM_MAX_STREAM_DURATION_REACHED "UMSDR" "UpstreamMaxStreamDurationReached"
    20 RESPONSE_FROM_CACHE_FILTER "RFCF" "ResponseFromCacheFilter"
    21 NO_FILTER_CONFIG_FOUND "NFCF" "NoFilterConfigFound"
    22 DURATION_TIMEOUT "DT" "DurationTimeout"
    23 UPSTREAM_PROTOCOL_ERROR "UPE" "UpstreamProtocolError"
    24 NO_CLUSTER_FOUND "NC" "NoClusterFound"
    25 OVERLOAD_MANAGER "OM" "OverloadManager"
    26 DNS_RESOLUTION_FAILURE "DF" "DnsResolutionFailed"
    27 DROP_OVERLOAD "DO" "DropOverload"
    28 DOWNSTREAM_REMOTE_RESET "DR" "DownstreamRemoteReset"
    29 UNCONDITIONAL_DROP_OVERLOAD "UDO" "UnconditionalDropOverload"
}

impl ResponseFlags {
    pub const NONE: ResponseFlags = ResponseFlags(0);

    pub fn insert(&mut self, flags: ResponseFlags) {
        self.0 |= flags.0;
    }

    pub fn contains(self, flags: ResponseFlags) -> bool {
        self.0 & flags.0 == flags.0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// `UF,URX`, or `-` for none, as in `%RESPONSE_FLAGS%`.
    pub fn short(self) -> Cow<'static, str> {
        self.names(|row| row.1)
    }

    /// The long names, as in `%RESPONSE_FLAGS_LONG%`.
    pub fn long(self) -> Cow<'static, str> {
        self.names(|row| row.2)
    }

    fn names(
        self,
        pick: fn(&(ResponseFlags, &'static str, &'static str)) -> &'static str,
    ) -> Cow<'static, str> {
        let mut set = Self::TABLE.iter().filter(|row| self.contains(row.0));
        let Some(first) = set.next() else {
            return Cow::Borrowed("-");
        };
        let Some(second) = set.next() else {
            return Cow::Borrowed(pick(first));
        };
        let mut out = format!("{},{}", pick(first), pick(second));
        for row in set {
            out.push(',');
            out.push_str(pick(row));
        }
        Cow::Owned(out)
    }
}

impl std::ops::BitOr for ResponseFlags {
    type Output = ResponseFlags;

    fn bitor(self, other: ResponseFlags) -> ResponseFlags {
        ResponseFlags(self.0 | other.0)
    }
}

/// What a TLS handshake told about the other side, and about us.
#[derive(Clone, Debug, Default)]
pub struct TlsPeer {
    /// The peer presented a certificate and it was verified.
    pub verified: bool,
    pub uri_sans: Vec<String>,
    pub dns_sans: Vec<String>,
    /// RFC 2253 form, as in `%DOWNSTREAM_PEER_SUBJECT%`.
    pub subject: String,
    pub issuer: String,
    pub serial: String,
    pub fingerprint_sha256: String,
    pub not_before: Option<SystemTime>,
    pub not_after: Option<SystemTime>,
    /// The peer's leaf certificate, DER.
    pub certificate: Vec<u8>,
    pub local_uri_sans: Vec<String>,
    pub local_dns_sans: Vec<String>,
    pub local_subject: String,
    /// `TLSv1.3`.
    pub version: &'static str,
    /// OpenSSL's name, as Envoy logs it.
    pub cipher: &'static str,
    pub alpn: Option<Vec<u8>>,
}

/// The downstream connection: one per accepted socket, shared by its streams.
#[derive(Clone, Debug)]
pub struct Connection {
    pub id: u64,
    /// Destination address (the original one where it was restored).
    pub local: SocketAddr,
    /// Peer's address (from PROXY protocol where it was read).
    pub remote: SocketAddr,
    /// The address of the socket's other end, whatever PROXY protocol said.
    pub direct_remote: SocketAddr,
    /// The original destination was restored by iptables/nftables REDIRECT.
    pub local_restored: bool,
    pub requested_server_name: Option<Arc<str>>,
    /// ALPN offered by the client (from the TLS inspector) or detected (`http/1.1`, `h2c`).
    pub application_protocols: Vec<Vec<u8>>,
    /// `tls` or `raw_buffer`.
    pub transport_protocol: &'static str,
    pub tls: Option<Arc<TlsPeer>>,
    pub filter_chain_name: Arc<str>,
    pub listener_name: Arc<str>,
    pub start: Instant,
}

/// Times since `StreamInfo::start`, as in Envoy's `%…_DURATION%` operators.
#[derive(Clone, Copy, Debug, Default)]
pub struct Durations {
    pub last_downstream_rx: Option<Duration>,
    pub first_upstream_tx: Option<Duration>,
    pub last_upstream_tx: Option<Duration>,
    pub first_upstream_rx: Option<Duration>,
    pub last_upstream_rx: Option<Duration>,
    pub first_downstream_tx: Option<Duration>,
    pub last_downstream_tx: Option<Duration>,
    /// Written at the end of the stream.
    pub total: Option<Duration>,
    pub upstream_connect: Option<Duration>,
}

/// Wire and body bytes of a stream or TCP connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByteCounts {
    /// Body bytes (HTTP) or bytes (TCP) from and to downstream.
    pub received: u64,
    pub sent: u64,
    pub request_headers: u64,
    pub response_headers: u64,
    pub response_trailers: u64,
    pub upstream_received: u64,
    pub upstream_sent: u64,
}

/// Where the request went (the last attempt).
#[derive(Clone, Debug, Default)]
pub struct Upstream {
    pub cluster: Option<Arc<str>>,
    /// `alt_stat_name`, for statistics.
    pub cluster_stat_name: Option<Arc<str>>,
    /// The cluster's `filter_metadata`, for `istio.stats` and logs.
    pub cluster_metadata: Option<Arc<envoy_api::core::Metadata>>,
    pub host: Option<Arc<Host>>,
    pub local: Option<SocketAddr>,
    pub remote: Option<SocketAddr>,
    pub tls: Option<Arc<TlsPeer>>,
    pub protocol: Option<Protocol>,
    pub transport_failure_reason: Option<Cow<'static, str>>,
    pub connection_id: Option<u64>,
    /// Requests that the upstream connection had served before this one.
    pub connection_requests: u64,
}

/// A workload as Istio's peer metadata describes it (istio.md 7.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The node id, `x-envoy-peer-metadata-id`.
    pub id: String,
    pub name: String,
    pub namespace: String,
    pub workload: String,
    pub cluster: String,
    pub owner: String,
    /// `service.istio.io/canonical-name`.
    pub service: String,
    /// `service.istio.io/canonical-revision`.
    pub revision: String,
    pub app: String,
    pub version: String,
    pub labels: BTreeMap<String, String>,
    pub identity: String,
    pub region: String,
    pub availability_zone: String,
}

/// Filter state values that are not the typed fields of `StreamInfo`.
#[derive(Clone, Debug, PartialEq)]
pub enum FilterState {
    Text(String),
    Struct(prost_types::Struct),
    Hosts(Vec<SocketAddr>),
}

/// The record of one stream.
#[derive(Clone, Debug)]
pub struct StreamInfo {
    pub start: SystemTime,
    pub started: Instant,
    pub durations: Durations,
    pub bytes: ByteCounts,
    pub downstream: Rc<Connection>,
    /// `None` for a TCP connection.
    pub protocol: Option<Protocol>,
    pub response_flags: ResponseFlags,
    pub response_code: Option<u16>,
    /// `via_upstream`, `route_not_found`, `rbac_access_denied_matched_policy[…]`, …
    pub response_code_details: Option<Cow<'static, str>>,
    pub connection_termination_details: Option<Cow<'static, str>>,
    pub route_name: Option<Arc<str>>,
    pub virtual_host: Option<Arc<str>>,
    pub route_metadata: Option<Arc<envoy_api::core::Metadata>>,
    pub upstream: Upstream,
    pub attempt_count: u32,
    pub request_id: Option<String>,
    /// Trusted client address (after `use_remote_address`, XFF hops).
    pub client: SocketAddr,
    /// The request came from a private address without proxies in between (`x-envoy-internal`).
    pub internal: bool,
    pub downstream_peer: Option<Rc<Peer>>,
    pub upstream_peer: Option<Rc<Peer>>,
    /// ALPN protocols to offer to the upstream instead of the cluster's (`istio.alpn`).
    pub upstream_alpn: Option<Arc<[Vec<u8>]>>,
    pub dynamic_metadata: BTreeMap<String, prost_types::Struct>,
    pub filter_state: BTreeMap<String, FilterState>,
    /// Response status of gRPC, from headers or trailers.
    pub grpc_status: Option<u32>,
    /// The stream is a WebSocket or another upgrade that was accepted.
    pub upgraded: bool,
}

impl StreamInfo {
    pub fn new(downstream: Rc<Connection>, protocol: Option<Protocol>) -> StreamInfo {
        let client = downstream.remote;
        StreamInfo {
            start: SystemTime::now(),
            started: Instant::now(),
            durations: Durations::default(),
            bytes: ByteCounts::default(),
            downstream,
            protocol,
            response_flags: ResponseFlags::NONE,
            response_code: None,
            response_code_details: None,
            connection_termination_details: None,
            route_name: None,
            virtual_host: None,
            route_metadata: None,
            upstream: Upstream::default(),
            attempt_count: 0,
            request_id: None,
            client,
            internal: false,
            downstream_peer: None,
            upstream_peer: None,
            upstream_alpn: None,
            dynamic_metadata: BTreeMap::new(),
            filter_state: BTreeMap::new(),
            grpc_status: None,
            upgraded: false,
        }
    }

    /// The time since the stream began, for `durations`.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The verified URI SANs of the downstream peer.
    pub fn peer_uri_sans(&self) -> &[String] {
        match &self.downstream.tls {
            Some(tls) if tls.verified => &tls.uri_sans,
            _ => &[],
        }
    }
}

impl Connection {
    /// A plain connection between two addresses; tests, simulation and listeners start from it.
    pub fn plain(id: u64, local: SocketAddr, remote: SocketAddr) -> Connection {
        Connection {
            id,
            local,
            remote,
            direct_remote: remote,
            local_restored: false,
            requested_server_name: None,
            application_protocols: Vec::new(),
            transport_protocol: "raw_buffer",
            tls: None,
            filter_chain_name: Arc::from(""),
            listener_name: Arc::from(""),
            start: Instant::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_read_as_envoy_writes_them() {
        let both = ResponseFlags::UPSTREAM_CONNECTION_FAILURE
            | ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED;
        for (flags, short, long) in [
            (ResponseFlags::NONE, "-", "-"),
            (ResponseFlags::NO_ROUTE_FOUND, "NR", "NoRouteFound"),
            (
                both,
                "URX,UF",
                "UpstreamRetryLimitExceeded,UpstreamConnectionFailure",
            ),
        ] {
            assert_eq!(
                (flags.short().as_ref(), flags.long().as_ref()),
                (short, long)
            );
        }
    }
}
