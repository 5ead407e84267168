//! Everything that looks at whole translations: golden cases, Envoy's own verdict, Istio's
//! simulation set, caching.
#![allow(clippy::unwrap_used)] // everything here is test code

#[path = "cases/access.rs"]
mod access;
#[path = "cases/authz.rs"]
mod authz;
#[path = "cases/bookinfo.rs"]
mod bookinfo;
#[path = "cases/caching.rs"]
mod caching;
#[path = "cases/envoy.rs"]
mod envoy;
#[path = "cases/golden.rs"]
mod golden;
#[path = "cases/load.rs"]
mod load;
#[path = "cases/scale.rs"]
mod scale;
#[path = "cases/simulation.rs"]
mod simulation;
#[path = "cases/unit_tables.rs"]
mod unit_tables;
#[path = "cases/yaml.rs"]
mod yaml;
