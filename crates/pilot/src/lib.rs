//! Mesh state to snapshot to per-proxy Envoy resources: two pure steps without IO.
//! Sources feed events into `State`; `generate` translates one type for one proxy.

pub mod cache;
pub mod cluster_name;
pub mod endpoints;
pub mod hostname;
pub mod impact;
pub mod keys;
pub mod kubernetes;
pub mod model;
pub mod snapshot;
pub mod state;
pub mod translate;

pub use endpoints::{EndpointSet, Endpoints};
pub use impact::impact;
pub use model::{NodeError, ProxyView, Role};
pub use snapshot::{Problem, Snapshot, Status, Statuses};
pub use state::{Changes, Event, Revision, State};
pub use translate::generate;
