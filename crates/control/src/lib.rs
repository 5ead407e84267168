//! The control plane: stores and registries into pilot, pilot out through the discovery server;
//! certificate service, status, debug. `run` is the whole process, `start` for tests.

mod admin;
mod authority;
mod ca_service;
mod debug;
mod foundation;
mod metrics;
mod options;
mod pipeline;
pub mod registry;
mod run;
mod serve;
mod status;
mod store;
mod watch;

pub use options::{ControlError, Options};
pub use run::{Control, run, start};
pub use store::objects::StoreError;
