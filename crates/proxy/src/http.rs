//! HTTP: heads and headers, codecs, the stream (the request path), filters.
pub mod codec;
pub mod connection;
pub mod downstream;
pub mod exchange;
pub mod filters;
pub mod headers;
pub mod local_reply;
pub mod manager;
pub mod replay;
pub mod request;
pub mod stream;
