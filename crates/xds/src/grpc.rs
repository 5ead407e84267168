//! gRPC over hyper's HTTP/2 with our own framing, so that message bodies are shared chunks and
//! never copied through a codec. `client` and `server` are the two ends; `transport` opens calls.

pub mod client;
mod frame;
pub mod server;
mod status;
pub mod transport;

pub use frame::{Chunks, MAX_MESSAGE};
pub use status::{Code, Status};
