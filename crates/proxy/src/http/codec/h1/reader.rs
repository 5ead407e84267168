//! The receiving half of an HTTP/1 connection: heads and bodies out of one buffer, which exists
//! only while there is something in it.
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};

use super::chunked::{Decoder, Step};
use super::{BodyLength, Limits, parse};
use crate::http::codec::{CodecError, Frame};
use crate::network::transport::Io;

const HEAD_READ: usize = 8 * 1024;
const BODY_READ: usize = 64 * 1024;
/// What a client may send ahead (pipelining) while a request is being answered.
const MAX_AHEAD: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Done,
    Exactly(u64),
    Chunked(Decoder),
    UntilClose,
    Tunnel,
}

#[derive(Debug)]
pub struct Reader {
    io: Io,
    buf: BytesMut,
    body: Body,
    scanned: usize,
    eof: bool,
    /// Bytes taken from the transport since the connection began.
    received: u64,
    /// Trailers are passed on; else they end here, as in Envoy by default.
    trailers: bool,
}

impl Reader {
    pub fn new(io: Io) -> Reader {
        Reader {
            io,
            buf: BytesMut::new(),
            body: Body::Done,
            scanned: 0,
            eof: false,
            received: 0,
            trailers: false,
        }
    }

    pub fn with_trailers(mut self, trailers: bool) -> Reader {
        self.trailers = trailers;
        self
    }

    /// Begins with bytes that were read before.
    pub fn with_buffered(mut self, bytes: BytesMut) -> Reader {
        self.buf = bytes;
        self
    }

    /// Reads and drops until the end of the stream.
    pub fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.buf.clear();
            match self.poll_fill(cx, HEAD_READ) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(_) => return Poll::Ready(()),
            }
        }
    }

    pub fn io(&self) -> &Io {
        &self.io
    }

    pub fn received(&self) -> u64 {
        self.received
    }

    pub fn is_done(&self) -> bool {
        self.body == Body::Done
    }

    /// Nothing is buffered: no second request or unasked response is waiting.
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// Sets how the message after the head ends.
    pub fn begin_body(&mut self, length: BodyLength) {
        self.body = match length {
            BodyLength::None | BodyLength::Exactly(0) => Body::Done,
            BodyLength::Exactly(length) => Body::Exactly(length),
            BodyLength::Chunked => Body::Chunked(Decoder::Size),
            BodyLength::UntilClose => Body::UntilClose,
            BodyLength::Tunnel => Body::Tunnel,
        };
    }

    /// The bytes of the next head; `Ok(None)` when the peer closed between messages.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        limits: &Limits,
    ) -> Poll<Result<Option<bytes::Bytes>, CodecError>> {
        loop {
            if self.scanned == 0 && !self.buf.is_empty() {
                let blank = parse::leading_blank(&self.buf);
                self.buf.advance(blank);
            }
            let waits = self.buf.is_empty() || &self.buf[..] == b"\r";
            if !waits {
                if let Some(end) = parse::head_end(&self.buf, &mut self.scanned)? {
                    if end > limits.head_bytes {
                        return Poll::Ready(Err(too_large()));
                    }
                    self.scanned = 0;
                    return Poll::Ready(Ok(Some(self.buf.split_to(end).freeze())));
                }
                if self.buf.len() > limits.head_bytes {
                    return Poll::Ready(Err(too_large()));
                }
            }
            if ready!(self.poll_fill(cx, HEAD_READ))? == 0 {
                let clean = self.buf.is_empty();
                return Poll::Ready(if clean {
                    Ok(None)
                } else {
                    Err(CodecError::Closed)
                });
            }
        }
    }

    /// The next piece of the body.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, CodecError>> {
        loop {
            match &mut self.body {
                Body::Done => return Poll::Ready(Ok(None)),
                Body::Exactly(left) if !self.buf.is_empty() => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX);
                    let count = self.buf.len().min(most);
                    *left -= count as u64;
                    if *left == 0 {
                        self.body = Body::Done;
                    }
                    let data = self.buf.split_to(count).freeze();
                    return Poll::Ready(Ok(Some(Frame::Data(data))));
                }
                Body::Chunked(decoder) => match decoder.step(&mut self.buf)? {
                    Step::Frame(Frame::Trailers(lines)) => {
                        self.body = Body::Done;
                        let kept = self.trailers.then_some(Frame::Trailers(lines));
                        return Poll::Ready(Ok(kept));
                    }
                    Step::Frame(frame) => return Poll::Ready(Ok(Some(frame))),
                    Step::Done => {
                        self.body = Body::Done;
                        return Poll::Ready(Ok(None));
                    }
                    Step::More => {}
                },
                Body::UntilClose | Body::Tunnel if !self.buf.is_empty() => {
                    let data = std::mem::take(&mut self.buf).freeze();
                    return Poll::Ready(Ok(Some(Frame::Data(data))));
                }
                _ => {}
            }
            let want = match self.body {
                Body::Exactly(left) => usize::try_from(left).unwrap_or(BODY_READ).min(BODY_READ),
                Body::Chunked(Decoder::Data(_)) => BODY_READ,
                _ => BODY_READ / 4,
            };
            if ready!(self.poll_fill(cx, want))? == 0 {
                let ends_so = matches!(self.body, Body::UntilClose | Body::Tunnel);
                if ends_so {
                    self.body = Body::Done;
                    return Poll::Ready(Ok(None));
                }
                // As Envoy's codec sees it: the message is broken, not only the connection.
                return Poll::Ready(Err(CodecError::bad_request("http1.codec_error")));
            }
        }
    }

    /// Ready when the peer is gone (or sends more ahead than it may); bytes that arrive are kept.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<CodecError> {
        loop {
            if self.buf.len() > MAX_AHEAD {
                return Poll::Pending;
            }
            match self.poll_fill(cx, HEAD_READ) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(CodecError::Closed),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(error),
            }
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<usize, CodecError>> {
        if self.eof {
            return Poll::Ready(Ok(0));
        }
        if self.buf.is_empty() {
            // An idle connection holds no buffer.
            if self.io.poll_readable(cx)?.is_pending() {
                self.buf = BytesMut::new();
                return Poll::Pending;
            }
        }
        self.buf.reserve(want.max(512));
        let count = ready!(self.io.poll_read(cx, &mut self.buf))?;
        self.received += count as u64;
        self.eof = count == 0;
        Poll::Ready(Ok(count))
    }
}

fn too_large() -> CodecError {
    CodecError::Protocol {
        status: 431,
        details: "http1.headers_too_large",
    }
}
