//! HTTP: heads and headers, codecs, the stream (the request path), filters.
pub mod headers;
pub mod request;
