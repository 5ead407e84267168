//! The client's side of one stream, whatever its protocol: body in, head and body out.
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;

use super::codec::h1::Framing;
use super::codec::{CodecError, Incoming, Outgoing, h1, h2 as codec_h2};
use super::request::{Protocol, ResponseHead};

/// Where the response head goes.
#[derive(Debug)]
enum Respond {
    Http1 { version: Protocol, head_only: bool },
    Http2(SendResponse<Bytes>),
    Done,
}

/// One stream towards the client.
#[derive(Debug)]
pub struct Downstream {
    pub incoming: Incoming,
    pub outgoing: Outgoing,
    respond: Respond,
    /// The HTTP/1 connection ends after this response.
    close: bool,
    started: bool,
}

impl Downstream {
    pub fn http1(
        reader: h1::Reader,
        writer: h1::Writer,
        version: Protocol,
        head_only: bool,
    ) -> Downstream {
        Downstream {
            incoming: Incoming::H1(reader),
            outgoing: Outgoing::H1(writer),
            respond: Respond::Http1 { version, head_only },
            close: false,
            started: false,
        }
    }

    pub fn http2(stream: h2::RecvStream, respond: SendResponse<Bytes>) -> Downstream {
        Downstream {
            incoming: Incoming::H2(codec_h2::Receiver::new(stream)),
            outgoing: Outgoing::Closed,
            respond: Respond::Http2(respond),
            close: false,
            started: false,
        }
    }

    pub fn is_http2(&self) -> bool {
        matches!(self.incoming, Incoming::H2(_))
    }

    /// The response's head has been queued.
    pub fn is_started(&self) -> bool {
        self.started
    }

    /// The connection closes after this response (told to the client where there is time).
    pub fn close_after(&mut self) {
        self.close = true;
    }

    pub fn closes(&self) -> bool {
        self.close
    }

    /// Queues `100 Continue`.
    pub fn send_continue(&mut self) {
        match (&mut self.respond, &mut self.outgoing) {
            (
                Respond::Http1 {
                    version: Protocol::Http11,
                    ..
                },
                Outgoing::H1(writer),
            ) => {
                writer.send_interim(100);
            }
            (Respond::Http2(respond), _) => {
                let mut interim = http::Response::new(());
                *interim.status_mut() = http::StatusCode::CONTINUE;
                let _ = respond.send_informational(interim);
            }
            _ => {}
        }
    }

    /// Queues the head; `end`: nothing follows. `upgrade` goes with a 101.
    pub fn send_head(
        &mut self,
        head: &mut ResponseHead,
        end: bool,
        upgrade: Option<&[u8]>,
    ) -> Result<(), CodecError> {
        self.started = true;
        match std::mem::replace(&mut self.respond, Respond::Done) {
            Respond::Http1 { version, head_only } => {
                let Outgoing::H1(writer) = &mut self.outgoing else {
                    return Err(CodecError::Closed);
                };
                head.protocol = version;
                // A response before the whole request was read: nobody waits for the rest.
                self.close |= !self.incoming.is_done() && upgrade.is_none();
                let framing = if upgrade.is_some() {
                    Framing::Raw
                } else {
                    response_framing(head, end, head_only)
                };
                self.close |= framing == Framing::Raw && upgrade.is_none();
                writer.send_response(head, framing, self.close, upgrade);
                Ok(())
            }
            Respond::Http2(mut respond) => {
                head.protocol = Protocol::Http2;
                let response = codec_h2::to_response(head);
                let stream = respond
                    .send_response(response, end)
                    .map_err(|error| codec_h2::stream_error(&error))?;
                self.outgoing = if end {
                    Outgoing::Closed
                } else {
                    Outgoing::H2(codec_h2::Sender::new(stream))
                };
                Ok(())
            }
            Respond::Done => Err(CodecError::Closed),
        }
    }

    /// Ready once the client is gone or has reset the stream.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<CodecError> {
        if let Respond::Http2(respond) = &mut self.respond {
            return match respond.poll_reset(cx) {
                Poll::Ready(Ok(reason)) => Poll::Ready(CodecError::Reset(reason.into())),
                Poll::Ready(Err(error)) => Poll::Ready(codec_h2::stream_error(&error)),
                Poll::Pending => Poll::Pending,
            };
        }
        if let Poll::Ready(error) = self.outgoing.poll_reset(cx) {
            return Poll::Ready(error);
        }
        // While the body is still coming, its reader notices.
        if self.incoming.is_done() {
            self.incoming.poll_closed(cx)
        } else {
            Poll::Pending
        }
    }

    /// Aborts the stream.
    pub fn reset(&mut self, reason: u32) {
        match &mut self.respond {
            Respond::Http2(respond) => respond.send_reset(h2::Reason::from(reason)),
            _ => self.outgoing.reset(reason),
        }
        self.close = true;
    }

    /// The HTTP/1 halves back, for the next request.
    pub fn into_http1(self) -> Option<(h1::Reader, h1::Writer)> {
        match (self.incoming, self.outgoing) {
            (Incoming::H1(reader), Outgoing::H1(writer)) => Some((reader, writer)),
            _ => None,
        }
    }
}

fn response_framing(head: &mut ResponseHead, end: bool, head_only: bool) -> Framing {
    let without_body = head_only || matches!(head.status, 100..200 | 204 | 304);
    if without_body {
        return Framing::None;
    }
    if end {
        if !head.headers.contains("content-length") {
            head.headers.append("content-length", b"0");
        }
        return Framing::None;
    }
    match content_length(&head.headers) {
        Some(length) => Framing::Exactly(length),
        None if head.protocol == Protocol::Http10 => Framing::Raw,
        None => Framing::Chunked,
    }
}

/// A valid `content-length`; another value is not one.
pub fn content_length(headers: &super::headers::Headers) -> Option<u64> {
    headers
        .get_str("content-length")
        .and_then(|value| value.parse().ok())
}
