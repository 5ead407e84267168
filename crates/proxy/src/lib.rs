//! Envoy resources to a running L4 and L7 proxy.
//!
//! Two halves meet in `http/{headers,request}.rs`, `stream_info.rs` and `cluster/shared.rs`: the
//! engine (listeners, codecs, the request path, pools, TLS, xDS) and what it asks (parsing,
//! routing, policy, balancing, logs, statistics). What the engine asks, so that both halves agree:
//!
//! * `parse::{listener, cluster, route_configuration, endpoints, bootstrap}` turn one Envoy message
//!   into one parsed value (plain data, `Send + Sync`, behind `Arc`) or into a `ParseError` whose
//!   text is the NACK: resource name, field path, what is allowed. Engine-owned parts
//!   (transport sockets, addresses) come from `tls::parse` and `listener`.
//! * `route::RouteTable` (in an `Arc`): `select(&RequestHead, &StreamInfo, random: u64)` gives the
//!   route entry; the entry is plain data: cluster choice, timeouts, retry policy, mirrors, hash
//!   policy, header edits, redirect or direct response, upgrades, per-filter overrides.
//! * `http::filters::FilterChain` (config, per listener) makes a `FilterStack` per stream, hooks as
//!   in the contract; the engine never looks inside.
//! * `cluster::load_balancer::LoadBalancer` is per worker and cluster: `update(&Arc<Endpoints>)`,
//!   `choose(&Choice{hash, random, tried hosts, …}) -> Option<Arc<Host>>`.
//! * `cluster::circuit_breaker` takes and gives back permits on `ClusterBlock`'s atomics;
//!   `cluster::outlier` is told each result (`on_response(&Host, status)`, `on_local(&Host, ..)`).
//! * `retry::RetryPolicy`/`retry::RetryState`: asked after headers, reset or connect failure:
//!   `Retry{after}` or not.
//! * `access_log::AccessLog::log(&StreamInfo, &RequestHead, Option<&ResponseHead>, trailers)`.
//! * `stats::Stats` is per process with per-worker counters; `admin` asks a `state::View`.
// Fields that Envoy deprecates are still sent, so they are read or refused by name.
#![allow(deprecated)]

#[macro_use]
pub mod parse;

pub mod access_log;
pub mod admin;
pub mod admin_server;
pub mod cluster;
pub mod discovery;
pub mod http;
pub mod listener;
pub mod matcher;
pub mod network;
pub mod rbac;
pub mod retry;
pub mod route;
pub mod run;
pub mod simulate;
pub mod state;
pub mod stats;
pub mod stream_info;
mod sys;
pub mod tls;
pub mod workers;

pub use run::{Options, ProxyError, run, validate};
