//! Traffic capture: the rules that send a pod's connections through its proxy.
//! The rules are text first (what `istio-iptables` would make), then applied, atomically per table.

pub mod apply;
pub mod flags;
pub mod iptables;
pub mod nftables;
pub mod options;
pub mod rules;

pub use options::{Exempt, Mode, Options, Ports, Ranges};

/// What went wrong, and whose mistake it is.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error("{flag}: {reason}")]
    Option { flag: String, reason: String },
    #[error("not supported: {0}")]
    NotSupported(String),
    #[error("{command}: {reason}")]
    Command { command: String, reason: String },
}
