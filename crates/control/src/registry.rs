//! Registries: sources of services, workloads and endpoints. Each sends events, none is asked.

pub mod local;
