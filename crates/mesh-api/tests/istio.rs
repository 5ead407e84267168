//! Istio's own cases, read from the test data: one binary, one module for each suite.

// A helper of a test may panic as a test may.
#![allow(clippy::unwrap_used)]

#[path = "istio/analyzers.rs"]
mod analyzers;
#[path = "istio/crd.rs"]
mod crd;
#[path = "istio/crd_fields.rs"]
mod crd_fields;
#[path = "istio/samples.rs"]
mod samples;
#[path = "istio/testdata.rs"]
mod testdata;
#[path = "istio/unit_tables.rs"]
mod unit_tables;
#[path = "istio/validation.rs"]
mod validation;
