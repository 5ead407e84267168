//! Envoy resources to a running L4 and L7 proxy.
