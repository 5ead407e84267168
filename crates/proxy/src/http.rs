//! HTTP: heads and headers, codecs, the stream (the request path), filters.
pub mod codec;
pub mod headers;
pub mod request;
pub mod filters;
