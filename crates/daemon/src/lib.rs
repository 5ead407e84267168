//! What every process has: logs, metrics, readiness, drain, signals, admin HTTP, clock, tasks.
//! Nothing here is process-wide: a whole mesh runs inside one test process.

pub mod admin;
pub mod clock;
pub mod drain;
pub mod logging;
pub mod metrics;
pub mod readiness;
pub mod signals;
pub mod tasks;
