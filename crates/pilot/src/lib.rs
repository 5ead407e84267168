//! Mesh state to snapshot to per-proxy Envoy resources.
