//! The engine end to end, in one process: real sockets on port 0, small upstreams.
#![allow(clippy::unwrap_used)]
mod harness;
mod hostile;
mod http1;
mod http2;
mod replaced;
mod tcp;
mod tls;
mod xds;
