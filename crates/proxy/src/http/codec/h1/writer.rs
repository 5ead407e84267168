//! The sending half of an HTTP/1 connection: small pieces gather in one buffer, large ones are
//! written from where they are, in one vectored write.
use std::collections::VecDeque;
use std::io::IoSlice;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};

use crate::http::codec::CodecError;
use crate::http::headers::Headers;
use crate::http::request::{Protocol, RequestHead, ResponseHead};
use crate::network::transport::Io;

/// Smaller pieces are copied behind the head instead of getting a slice of their own.
const COPY_BELOW: usize = 8 * 1024;
const MAX_SLICES: usize = 16;

/// How the end of a sent message is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body; nothing is written after the head.
    None,
    Exactly(u64),
    Chunked,
    /// Until the connection closes (HTTP/1.0 downstream), or a tunnel.
    Raw,
}

#[derive(Debug)]
pub struct Writer {
    io: Io,
    tail: Vec<u8>,
    queue: VecDeque<Bytes>,
    queued: usize,
    /// Bytes of the front piece already written.
    framing: Framing,
    /// The tunnel's end is a half close.
    shutdown: bool,
    needs_flush: bool,
    sent: u64,
    /// Trailers are written; else they end here, as in Envoy by default.
    trailers: bool,
}

impl Writer {
    pub fn new(io: Io) -> Writer {
        Writer {
            io,
            tail: Vec::new(),
            queue: VecDeque::new(),
            queued: 0,
            framing: Framing::None,
            shutdown: false,
            needs_flush: false,
            sent: 0,
            trailers: false,
        }
    }

    pub fn with_trailers(mut self, trailers: bool) -> Writer {
        self.trailers = trailers;
        self
    }

    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Bytes handed to the transport since the connection began.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Queues a request head. `Host`, framing and `Connection` are written by us.
    pub fn send_request(&mut self, head: &RequestHead, framing: Framing) {
        let before = self.open();
        let out = &mut self.tail;
        out.extend_from_slice(&head.method);
        out.push(b' ');
        out.extend_from_slice(&head.path);
        out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
        out.extend_from_slice(&head.authority);
        out.extend_from_slice(b"\r\n");
        head.headers.write_http1(out);
        if let Some(upgrade) = &head.upgrade {
            out.extend_from_slice(b"connection: Upgrade\r\nupgrade: ");
            out.extend_from_slice(upgrade);
            out.extend_from_slice(b"\r\n");
        } else if framing == Framing::None && says_no_body(head) {
            out.extend_from_slice(b"content-length: 0\r\n");
        }
        self.end_head(framing, before);
    }

    /// Queues a response head. `close` adds `Connection: close`.
    pub fn send_response(
        &mut self,
        head: &ResponseHead,
        framing: Framing,
        close: bool,
        upgrade: Option<&[u8]>,
    ) {
        let before = self.open();
        let out = &mut self.tail;
        let version: &[u8] = match head.protocol {
            Protocol::Http10 => b"HTTP/1.0 ",
            _ => b"HTTP/1.1 ",
        };
        out.extend_from_slice(version);
        push_status(out, head.status);
        head.headers.write_http1(out);
        if let Some(upgrade) = upgrade {
            out.extend_from_slice(b"connection: Upgrade\r\nupgrade: ");
            out.extend_from_slice(upgrade);
            out.extend_from_slice(b"\r\n");
        } else if close {
            out.extend_from_slice(b"connection: close\r\n");
        } else if head.protocol == Protocol::Http10 {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
        self.end_head(framing, before);
    }

    /// Queues `100 Continue` or another interim response without headers.
    pub fn send_interim(&mut self, status: u16) {
        let before = self.open();
        self.tail.extend_from_slice(b"HTTP/1.1 ");
        push_status(&mut self.tail, status);
        self.tail.extend_from_slice(b"\r\n");
        self.queued += self.tail.len() - before;
    }

    /// From here on bytes are passed as they are (after an accepted upgrade).
    pub fn tunnel(&mut self) {
        self.framing = Framing::Raw;
    }

    pub fn send_data(&mut self, bytes: Bytes) -> Result<(), CodecError> {
        if bytes.is_empty() {
            return Ok(());
        }
        match &mut self.framing {
            Framing::None => return Ok(()),
            Framing::Exactly(left) => {
                let Some(rest) = left.checked_sub(bytes.len() as u64) else {
                    return Err(CodecError::bad_request(
                        "body longer than its content-length",
                    ));
                };
                *left = rest;
                self.push(bytes);
            }
            Framing::Chunked => {
                let before = self.open();
                push_hex(&mut self.tail, bytes.len());
                self.tail.extend_from_slice(b"\r\n");
                self.queued += self.tail.len() - before;
                self.push(bytes);
                self.open();
                self.tail.extend_from_slice(b"\r\n");
                self.queued += 2;
            }
            Framing::Raw => self.push(bytes),
        }
        Ok(())
    }

    pub fn finish(&mut self, trailers: Option<&Headers>) -> Result<(), CodecError> {
        match self.framing {
            Framing::Exactly(left) if left > 0 => return Err(CodecError::Closed),
            Framing::Chunked => {
                let before = self.open();
                self.tail.extend_from_slice(b"0\r\n");
                if let (Some(trailers), true) = (trailers, self.trailers) {
                    trailers.write_http1(&mut self.tail);
                }
                self.tail.extend_from_slice(b"\r\n");
                self.queued += self.tail.len() - before;
            }
            Framing::Raw => self.shutdown = true,
            _ => {}
        }
        if self.framing != Framing::Raw {
            self.framing = Framing::None;
        }
        Ok(())
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CodecError>> {
        while self.queued > 0 {
            self.needs_flush = true;
            let count = if self.queue.is_empty() {
                ready!(self.io.poll_write(cx, &self.tail))?
            } else {
                self.seal();
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let mut used = 0;
                for (slot, piece) in slices.iter_mut().zip(&self.queue) {
                    *slot = IoSlice::new(piece);
                    used += 1;
                }
                ready!(self.io.poll_write_vectored(cx, &slices[..used]))?
            };
            if count == 0 {
                return Poll::Ready(Err(CodecError::Closed));
            }
            self.advance(count);
        }
        if self.needs_flush {
            ready!(self.io.poll_flush(cx))?;
            self.needs_flush = false;
            // An idle connection holds no buffer.
            self.tail = Vec::new();
        }
        if self.shutdown {
            ready!(self.io.poll_shutdown(cx))?;
            self.shutdown = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the transport is closed in our direction.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CodecError>> {
        ready!(self.poll_flush(cx))?;
        ready!(self.io.poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }

    fn open(&mut self) -> usize {
        if self.tail.capacity() == 0 {
            self.tail.reserve(2048);
        }
        self.tail.len()
    }

    fn end_head(&mut self, framing: Framing, before: usize) {
        if framing == Framing::Chunked {
            self.tail
                .extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        self.tail.extend_from_slice(b"\r\n");
        self.queued += self.tail.len() - before;
        self.framing = framing;
    }

    fn push(&mut self, bytes: Bytes) {
        self.queued += bytes.len();
        if bytes.len() < COPY_BELOW {
            self.open();
            self.tail.extend_from_slice(&bytes);
        } else {
            self.seal();
            self.queue.push_back(bytes);
        }
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.queue
                .push_back(Bytes::from(std::mem::take(&mut self.tail)));
        }
    }

    fn advance(&mut self, mut count: usize) {
        self.sent += count as u64;
        self.queued -= count;
        if self.queue.is_empty() {
            if count == self.tail.len() {
                self.tail.clear();
            } else {
                self.seal();
            }
        }
        while count > 0 {
            let Some(front) = self.queue.front_mut() else {
                break;
            };
            if count < front.len() {
                front.advance(count);
                break;
            }
            count -= front.len();
            self.queue.pop_front();
        }
    }
}

/// A method that expects a body, without one: the length says so (RFC 9110 8.6).
fn says_no_body(head: &RequestHead) -> bool {
    let without = [&b"GET"[..], b"HEAD", b"DELETE", b"TRACE", b"CONNECT"];
    !without.contains(&&head.method[..]) && !head.headers.contains("content-length")
}

fn push_status(out: &mut Vec<u8>, status: u16) {
    let digits = [status / 100, status / 10 % 10, status % 10];
    out.extend(digits.map(|digit| b'0' + digit as u8));
    out.push(b' ');
    let reason = http::StatusCode::from_u16(status)
        .ok()
        .and_then(|code| code.canonical_reason());
    out.extend_from_slice(reason.unwrap_or("Unknown").as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn push_hex(out: &mut Vec<u8>, mut value: usize) {
    let mut digits = [0u8; 16];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[value & 15];
        value >>= 4;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
