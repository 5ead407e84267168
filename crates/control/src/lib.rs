//! The control plane: stores and registries into pilot, pilot out through the discovery server;
//! certificate service, status, debug. `run` is the whole process, `start` for tests.

mod admin;
mod authority;
mod ca_service;
mod debug;
pub mod metrics;
mod options;
pub mod pipeline;
pub mod registry;
mod run;
pub mod serve;
mod status;
pub mod store;
mod watch;

pub use options::{ControlError, Options};
pub use run::{Control, run, start};
