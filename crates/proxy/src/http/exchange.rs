//! One attempt on one upstream connection: request out, response in, and the connection back to its
//! pool when both are complete.
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::codec::h1::{self, BodyLength, Framing, parse};
use super::codec::{CodecError, Incoming, Outgoing, h2 as codec_h2};
use super::downstream::content_length;
use super::request::{Protocol, RequestHead, ResponseHead};
use crate::cluster::connect::UpstreamConnection;
use crate::cluster::pool::{Http2Lease, Lease, Pool};

/// A response head, or an interim one before it.
#[derive(Debug)]
pub enum Answer {
    Interim(u16),
    Head { head: ResponseHead, upgraded: bool },
}

enum Carrier {
    Http1 {
        connection: Box<crate::cluster::pool::Http1Connection>,
        method: Bytes,
        upgrade: bool,
        keep_alive: bool,
    },
    Http2 {
        lease: Http2Lease,
        response: Pin<Box<h2::client::ResponseFuture>>,
    },
    Gone,
}

/// One request on one connection.
pub struct Exchange {
    pool: Rc<Pool>,
    carrier: Carrier,
    pub connection: Rc<UpstreamConnection>,
    outgoing: Outgoing,
    incoming: Incoming,
    sent_all: bool,
    /// What the connection had sent before this request.
    sent_before: u64,
    limits: h1::Limits,
}

impl Exchange {
    /// Queues the request's head. `end`: it has no body.
    pub fn start(
        pool: Rc<Pool>,
        lease: Lease,
        head: &RequestHead,
        end: bool,
    ) -> Result<Exchange, CodecError> {
        let connection = lease.connection().clone();
        connection.requests.set(connection.requests.get() + 1);
        let mut exchange = Exchange {
            pool,
            carrier: Carrier::Gone,
            connection,
            outgoing: Outgoing::Closed,
            incoming: Incoming::Empty,
            sent_all: end,
            sent_before: 0,
            limits: h1::Limits::default(),
        };
        match lease {
            Lease::Http1(mut connection) => {
                let upgrade = head.upgrade.is_some();
                let framing = match () {
                    () if upgrade || end => Framing::None,
                    () => match content_length(&head.headers) {
                        Some(length) => Framing::Exactly(length),
                        None => Framing::Chunked,
                    },
                };
                exchange.sent_before = connection.writer.sent();
                connection.writer.send_request(head, framing);
                let method = head.method.clone();
                exchange.carrier = Carrier::Http1 {
                    connection,
                    method,
                    upgrade,
                    keep_alive: false,
                };
            }
            Lease::Http2(lease) => {
                let request = codec_h2::to_request(head)?;
                let mut send = lease.shared.send();
                let (response, stream) = send
                    .send_request(request, end)
                    .map_err(|error| codec_h2::stream_error(&error))?;
                if !end {
                    exchange.outgoing = Outgoing::H2(codec_h2::Sender::new(stream));
                }
                exchange.carrier = Carrier::Http2 {
                    lease,
                    response: Box::pin(response),
                };
            }
        }
        Ok(exchange)
    }

    pub fn protocol(&self) -> Protocol {
        match self.carrier {
            Carrier::Http2 { .. } => Protocol::Http2,
            _ => Protocol::Http11,
        }
    }

    /// Bytes of this request may have reached the upstream.
    pub fn has_sent(&self) -> bool {
        match &self.carrier {
            Carrier::Http1 { connection, .. } => connection.writer.sent() > self.sent_before,
            _ => true,
        }
    }

    pub fn send_data(&mut self, bytes: Bytes) -> Result<(), CodecError> {
        match &mut self.carrier {
            Carrier::Http1 { connection, .. } => connection.writer.send_data(bytes),
            _ => self.outgoing.send_data(bytes),
        }
    }

    pub fn finish(&mut self, trailers: Option<&super::headers::Headers>) -> Result<(), CodecError> {
        self.sent_all = true;
        match &mut self.carrier {
            Carrier::Http1 { connection, .. } => connection.writer.finish(trailers),
            _ => self.outgoing.finish(trailers),
        }
    }

    pub fn queued(&self) -> usize {
        match &self.carrier {
            Carrier::Http1 { connection, .. } => connection.writer.queued(),
            _ => self.outgoing.queued(),
        }
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CodecError>> {
        match &mut self.carrier {
            Carrier::Http1 { connection, .. } => connection.writer.poll_flush(cx),
            _ => self.outgoing.poll_flush(cx),
        }
    }

    /// The next head.
    pub fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer, CodecError>> {
        match &mut self.carrier {
            Carrier::Gone => Poll::Ready(Err(CodecError::Closed)),
            Carrier::Http1 {
                connection,
                method,
                upgrade,
                keep_alive,
            } => {
                let bytes = ready!(connection.reader.poll_head(cx, &self.limits))?;
                let Some(bytes) = bytes else {
                    return Poll::Ready(Err(CodecError::Closed));
                };
                let parsed = parse::response(bytes, method, &self.limits)?;
                let status = parsed.head.status;
                if status == 101 {
                    if !*upgrade {
                        return Poll::Ready(Err(CodecError::bad_request("http1.codec_error")));
                    }
                    connection.reader.begin_body(BodyLength::Tunnel);
                    connection.writer.tunnel();
                    let head = parsed.head;
                    return Poll::Ready(Ok(Answer::Head {
                        head,
                        upgraded: true,
                    }));
                }
                if status < 200 {
                    return Poll::Ready(Ok(Answer::Interim(status)));
                }
                // What a refused upgrade leaves on the connection is not ours to guess.
                *keep_alive = parsed.keep_alive && !*upgrade;
                connection.reader.begin_body(parsed.body);
                Poll::Ready(Ok(Answer::Head {
                    head: parsed.head,
                    upgraded: false,
                }))
            }
            Carrier::Http2 { response, .. } => {
                let response = ready!(response.as_mut().poll(cx))
                    .map_err(|error| codec_h2::stream_error(&error))?;
                let (parts, body) = response.into_parts();
                let head = codec_h2::response_head(&parts);
                self.incoming = Incoming::H2(codec_h2::Receiver::new(body));
                Poll::Ready(Ok(Answer::Head {
                    head,
                    upgraded: false,
                }))
            }
        }
    }

    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<super::codec::Frame>, CodecError>> {
        match &mut self.carrier {
            Carrier::Http1 { connection, .. } => connection.reader.poll_frame(cx),
            _ => self.incoming.poll_frame(cx),
        }
    }

    /// The response has ended (known without waiting).
    pub fn is_answered(&self) -> bool {
        match &self.carrier {
            Carrier::Http1 { connection, .. } => connection.reader.is_done(),
            _ => self.incoming.is_done(),
        }
    }

    /// Ends the exchange: a clean connection goes back to its pool, another is closed or reset.
    pub fn end(mut self) {
        self.release();
    }

    fn release(&mut self) {
        match std::mem::replace(&mut self.carrier, Carrier::Gone) {
            Carrier::Gone => {}
            Carrier::Http1 {
                connection,
                keep_alive,
                ..
            } => {
                let clean = keep_alive
                    && self.sent_all
                    && connection.reader.is_done()
                    && connection.writer.queued() == 0;
                self.pool.give_back(connection, clean);
            }
            Carrier::Http2 { lease, .. } => {
                if !(self.sent_all && self.incoming.is_done()) {
                    self.outgoing.reset(h2::Reason::CANCEL.into());
                }
                drop(lease);
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.release();
    }
}
