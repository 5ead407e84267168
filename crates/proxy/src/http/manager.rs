//! What the HTTP connection manager does to heads on the way in and out, before any filter.
pub mod client_certificate;
pub mod path;
pub mod request;
pub mod response;
