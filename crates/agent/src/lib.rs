//! Bootstrap, identity, SDS, xDS relay, DNS, capture, probes; runs our proxy or supervises a real Envoy.

pub mod capture;
