//! Codecs behind one face: what a stream receives (`Incoming`) and sends (`Outgoing`), whatever the
//! protocol. HTTP/1.1 is our own; HTTP/2 is the `h2` crate under a coalescing wrapper.
use std::task::{Context, Poll};

use bytes::Bytes;

use super::headers::Headers;

pub mod h1;
pub mod h2;

/// A piece of a message after its head.
#[derive(Debug)]
pub enum Frame {
    Data(Bytes),
    Trailers(Headers),
}

/// Why receiving or sending failed.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The peer closed the connection in the middle of a message.
    #[error("connection closed")]
    Closed,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The peer broke the protocol; for a request, `status` is what it is told.
    #[error("{details}")]
    Protocol { status: u16, details: &'static str },
    /// The peer reset the stream (HTTP/2 reason code).
    #[error("stream reset ({0})")]
    Reset(u32),
    /// The peer refused the stream before it processed anything.
    #[error("stream refused")]
    Refused,
}

impl CodecError {
    pub const fn bad_request(details: &'static str) -> CodecError {
        CodecError::Protocol {
            status: 400,
            details,
        }
    }
}

/// The receiving side of a stream after the head.
#[derive(Debug)]
pub enum Incoming {
    Empty,
    H1(h1::Reader),
    H2(h2::Receiver),
}

/// The sending side of a stream after the head.
#[derive(Debug)]
pub enum Outgoing {
    Closed,
    H1(h1::Writer),
    H2(h2::Sender),
}

impl Incoming {
    /// The next piece; `None` at the end of the message, and ever after.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, CodecError>> {
        match self {
            Incoming::Empty => Poll::Ready(Ok(None)),
            Incoming::H1(reader) => reader.poll_frame(cx),
            Incoming::H2(receiver) => receiver.poll_frame(cx),
        }
    }

    /// The message has ended (known without waiting).
    pub fn is_done(&self) -> bool {
        match self {
            Incoming::Empty => true,
            Incoming::H1(reader) => reader.is_done(),
            Incoming::H2(receiver) => receiver.is_done(),
        }
    }

    /// Ready once the peer has gone away, after the message has ended.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<CodecError> {
        match self {
            Incoming::Empty | Incoming::H2(_) => Poll::Pending,
            Incoming::H1(reader) => reader.poll_closed(cx),
        }
    }
}

impl Outgoing {
    /// Queues body bytes; written by `poll_flush`.
    pub fn send_data(&mut self, bytes: Bytes) -> Result<(), CodecError> {
        match self {
            Outgoing::Closed => Err(CodecError::Closed),
            Outgoing::H1(writer) => writer.send_data(bytes),
            Outgoing::H2(sender) => sender.send_data(bytes),
        }
    }

    /// Queues the end of the message, with trailers where the protocol can carry them.
    pub fn finish(&mut self, trailers: Option<&Headers>) -> Result<(), CodecError> {
        match self {
            Outgoing::Closed => Ok(()),
            Outgoing::H1(writer) => writer.finish(trailers),
            Outgoing::H2(sender) => sender.finish(trailers),
        }
    }

    /// Bytes queued and not yet written.
    pub fn queued(&self) -> usize {
        match self {
            Outgoing::Closed => 0,
            Outgoing::H1(writer) => writer.queued(),
            Outgoing::H2(sender) => sender.queued(),
        }
    }

    /// Ready when all that was queued is written.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CodecError>> {
        match self {
            Outgoing::Closed => Poll::Ready(Ok(())),
            Outgoing::H1(writer) => writer.poll_flush(cx),
            Outgoing::H2(sender) => sender.poll_flush(cx),
        }
    }

    /// Ready once the peer has reset the stream (HTTP/2 only).
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<CodecError> {
        match self {
            Outgoing::H2(sender) => sender.poll_reset(cx),
            _ => Poll::Pending,
        }
    }

    /// Aborts the stream; HTTP/1 can only close the connection, which dropping does.
    pub fn reset(&mut self, reason: u32) {
        if let Outgoing::H2(sender) = self {
            sender.reset(reason);
        }
    }
}
