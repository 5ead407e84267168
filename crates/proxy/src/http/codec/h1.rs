//! HTTP/1.1, our own: a strict head over httparse, framing by us, one buffer in, vectored writes
//! out.
mod chunked;
pub mod parse;
mod reader;
mod writer;

pub use reader::Reader;
pub use writer::{Framing, Writer};

/// Limits of a head, as Envoy's defaults unless configured.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub head_bytes: usize,
    pub headers: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head_bytes: 60 * 1024,
            headers: 100,
        }
    }
}

/// The most headers that any configuration may allow.
pub const MAX_HEADERS: usize = 256;

/// How the end of a received message is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    None,
    Exactly(u64),
    Chunked,
    UntilClose,
    /// After an accepted upgrade: bytes until the end.
    Tunnel,
}
