//! The embedded platform: Kubernetes-shaped manifests run as processes in network namespaces.

pub mod board;
pub mod client;
mod dns;
pub mod error;
pub mod init;
pub mod manifest;
mod network;
mod nft;
pub mod node;
mod platform;
mod pod;
mod publish;
mod publisher;
mod services;
pub mod state_dir;
pub mod supervisor;
mod sys;

pub use error::LocalError;
