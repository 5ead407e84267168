//! The Kubernetes kinds: the checks of an API server that matter to what we do with them.

pub mod config;
pub mod container;
pub mod deployment;
pub mod pod;
pub mod service;
