//! Istio's own cases, read from the test data: one binary, one module for each suite.

#[path = "istio/crd.rs"]
mod crd;
#[path = "istio/samples.rs"]
mod samples;
#[path = "istio/testdata.rs"]
mod testdata;
#[path = "istio/unit_tables.rs"]
mod unit_tables;
#[path = "istio/validation.rs"]
mod validation;
