//! The embedded platform: Kubernetes-shaped manifests run as processes in network namespaces.

pub mod board;
pub mod client;
pub mod dns;
pub mod error;
pub mod init;
pub mod manifest;
pub mod network;
pub mod nft;
pub mod node;
pub mod platform;
pub mod pod;
pub mod publish;
pub mod publisher;
pub mod services;
pub mod state_dir;
pub mod supervisor;
mod sys;

pub use error::LocalError;
pub use sys::end_when_nobody_reads;
