//! Stores and registries to pilot to the xDS server; certificate service; status; debug.
