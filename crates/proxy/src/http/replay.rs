//! The request's body on its way to the upstream: streamed as it arrives, and kept (to a limit)
//! while another attempt may need it again.
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::codec::{CodecError, Frame, Incoming};
use super::exchange::Exchange;
use super::headers::Headers;

/// More than this waits for the other side before more is read.
pub const HIGH_WATER: usize = 64 * 1024;

/// Which side a transfer failed on.
#[derive(Debug)]
pub enum Side {
    Downstream(CodecError),
    Upstream(CodecError),
}

#[derive(Debug)]
pub struct RequestBody {
    kept: Vec<Bytes>,
    kept_bytes: usize,
    limit: usize,
    keeping: bool,
    ended: bool,
    trailers: Option<Headers>,
    /// Of this attempt.
    position: usize,
    finished: bool,
    pub received: u64,
}

impl RequestBody {
    /// `limit`: how much may be kept for another attempt; 0 keeps nothing.
    pub fn new(limit: usize, ended: bool) -> RequestBody {
        RequestBody {
            kept: Vec::new(),
            kept_bytes: 0,
            limit,
            keeping: limit > 0,
            ended,
            trailers: None,
            position: 0,
            finished: false,
            received: 0,
        }
    }

    /// The request has no body at all.
    pub fn is_empty(&self) -> bool {
        self.ended && self.kept.is_empty() && self.trailers.is_none() && self.received == 0
    }

    /// All of it can be sent again.
    pub fn can_replay(&self) -> bool {
        self.keeping || self.received == 0
    }

    /// Nothing more will be retried: forget what is not needed for this attempt.
    pub fn stop_keeping(&mut self) {
        self.keeping = false;
        if self.position >= self.kept.len() {
            self.kept.clear();
            self.position = 0;
        }
    }

    /// Begins an attempt from the first byte.
    pub fn rewind(&mut self) {
        self.position = 0;
        self.finished = false;
    }

    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// What was received so far, whole; for copies of the request.
    pub fn kept(&self) -> &[Bytes] {
        &self.kept
    }

    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Puts back what a filter has taken and held.
    pub fn push_front_buffered(&mut self, bytes: Bytes) {
        self.received += bytes.len() as u64;
        self.kept_bytes += bytes.len();
        self.kept.push(bytes);
    }

    /// Moves what can be moved; ready when the whole body is with the upstream.
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        incoming: &mut Incoming,
        exchange: &mut Exchange,
    ) -> Poll<Result<(), Side>> {
        loop {
            if self.finished {
                ready!(exchange.poll_flush(cx)).map_err(Side::Upstream)?;
                return Poll::Ready(Ok(()));
            }
            if exchange.queued() > HIGH_WATER {
                ready!(exchange.poll_flush(cx)).map_err(Side::Upstream)?;
            }
            if let Some(bytes) = self.kept.get(self.position) {
                exchange.send_data(bytes.clone()).map_err(Side::Upstream)?;
                self.position += 1;
                if !self.keeping && self.position == self.kept.len() {
                    self.kept.clear();
                    self.position = 0;
                }
                continue;
            }
            if self.ended {
                exchange
                    .finish(self.trailers.as_ref())
                    .map_err(Side::Upstream)?;
                self.finished = true;
                continue;
            }
            match incoming.poll_frame(cx) {
                Poll::Pending => {
                    ready!(exchange.poll_flush(cx)).map_err(Side::Upstream)?;
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Side::Downstream(error))),
                Poll::Ready(Ok(None)) => self.ended = true,
                Poll::Ready(Ok(Some(Frame::Trailers(trailers)))) => {
                    self.trailers = Some(trailers);
                    self.ended = true;
                }
                Poll::Ready(Ok(Some(Frame::Data(bytes)))) => {
                    self.received += bytes.len() as u64;
                    if incoming.is_done() {
                        self.ended = true;
                    }
                    self.keep(&bytes);
                    exchange.send_data(bytes).map_err(Side::Upstream)?;
                }
            }
        }
    }

    fn keep(&mut self, bytes: &Bytes) {
        if !self.keeping {
            return;
        }
        self.kept_bytes += bytes.len();
        if self.kept_bytes > self.limit {
            self.keeping = false;
            self.kept.clear();
            self.position = 0;
            return;
        }
        self.kept.push(bytes.clone());
        self.position = self.kept.len();
    }
}
