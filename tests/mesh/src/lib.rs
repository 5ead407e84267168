//! Shared pieces of the whole-mesh tests.
