//! The TLS server on 15012: accepts, authenticates, and gives each call to discovery or to the
//! certificate service.

pub(crate) mod authenticate;
pub(crate) mod connection;
pub(crate) mod discovery;
pub mod proxies;
pub(crate) mod resources;
