//! HTTP/2 on the `h2` crate: heads to and from our `Headers`, both directions of a stream, reasons.
use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{CodecError, Frame};
use crate::http::headers::Headers;
use crate::http::request::{Protocol, RequestHead, ResponseHead, Scheme};

mod coalesce;
mod keepalive;

pub use coalesce::Coalesce;
pub use keepalive::keepalive;

/// The receiving side of a stream.
#[derive(Debug)]
pub struct Receiver {
    stream: RecvStream,
    done: bool,
}

impl Receiver {
    pub fn new(stream: RecvStream) -> Receiver {
        let done = stream.is_end_stream();
        Receiver { stream, done }
    }

    pub fn is_done(&self) -> bool {
        self.done
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, CodecError>> {
        if self.done {
            return Poll::Ready(Ok(None));
        }
        loop {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(bytes)) if bytes.is_empty() => {}
                Some(Ok(bytes)) => {
                    // Given back as it is handed on: the stream asks only when it can queue more.
                    let _ = self.stream.flow_control().release_capacity(bytes.len());
                    self.done = self.stream.is_end_stream();
                    return Poll::Ready(Ok(Some(Frame::Data(bytes))));
                }
                Some(Err(error)) => return Poll::Ready(Err(stream_error(&error))),
                None => break,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx)).map_err(|e| stream_error(&e))?;
        self.done = true;
        Poll::Ready(Ok(trailers.map(|map| Frame::Trailers(headers_of(&map)))))
    }
}

#[derive(Debug)]
enum End {
    Data,
    Trailers(HeaderMap),
}

/// The sending side of a stream.
#[derive(Debug)]
pub struct Sender {
    stream: SendStream<Bytes>,
    queue: VecDeque<Bytes>,
    queued: usize,
    end: Option<End>,
}

impl Sender {
    pub fn new(stream: SendStream<Bytes>) -> Sender {
        Sender {
            stream,
            queue: VecDeque::new(),
            queued: 0,
            end: None,
        }
    }

    pub fn queued(&self) -> usize {
        self.queued
    }

    pub fn send_data(&mut self, bytes: Bytes) -> Result<(), CodecError> {
        if !bytes.is_empty() {
            self.queued += bytes.len();
            self.queue.push_back(bytes);
        }
        Ok(())
    }

    pub fn finish(&mut self, trailers: Option<&Headers>) -> Result<(), CodecError> {
        self.end = Some(match trailers {
            Some(trailers) => End::Trailers(header_map(trailers)),
            None => End::Data,
        });
        Ok(())
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CodecError>> {
        while let Some(front) = self.queue.front_mut() {
            self.stream.reserve_capacity(front.len());
            let capacity = match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(capacity)) => capacity,
                Some(Err(error)) => return Poll::Ready(Err(stream_error(&error))),
                None => return Poll::Ready(Err(CodecError::Closed)),
            };
            if capacity == 0 {
                continue;
            }
            let piece = front.split_to(capacity.min(front.len()));
            if front.is_empty() {
                self.queue.pop_front();
            }
            self.queued -= piece.len();
            let last = self.queue.is_empty() && matches!(self.end, Some(End::Data));
            if last {
                self.end = None;
            }
            self.stream
                .send_data(piece, last)
                .map_err(|e| stream_error(&e))?;
        }
        match self.end.take() {
            None => {}
            Some(End::Data) => {
                self.stream
                    .send_data(Bytes::new(), true)
                    .map_err(|e| stream_error(&e))?;
            }
            Some(End::Trailers(map)) => {
                self.stream
                    .send_trailers(map)
                    .map_err(|e| stream_error(&e))?;
            }
        }
        Poll::Ready(Ok(()))
    }

    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<CodecError> {
        match ready!(self.stream.poll_reset(cx)) {
            Ok(reason) => Poll::Ready(reset(reason)),
            Err(error) => Poll::Ready(stream_error(&error)),
        }
    }

    pub fn reset(&mut self, reason: u32) {
        self.stream.send_reset(Reason::from(reason));
    }
}

/// An `h2` error in our words.
pub fn stream_error(error: &h2::Error) -> CodecError {
    if error.is_io() {
        return CodecError::Closed;
    }
    // A stream beyond the last one that an orderly GOAWAY names was not processed.
    if error.is_go_away() && error.reason() == Some(Reason::NO_ERROR) {
        return if error.is_remote() {
            CodecError::Refused
        } else {
            CodecError::Closed
        };
    }
    match error.reason() {
        Some(reason) => reset(reason),
        None => CodecError::Closed,
    }
}

fn reset(reason: Reason) -> CodecError {
    if reason == Reason::REFUSED_STREAM {
        CodecError::Refused
    } else {
        CodecError::Reset(reason.into())
    }
}

/// A received request's head; crumbs of `cookie` are joined (RFC 9113 8.2.3).
pub fn request_head(parts: &http::request::Parts) -> Result<RequestHead, CodecError> {
    let mut headers = headers_of(&parts.headers);
    let host = headers.get("host").map(Bytes::copy_from_slice);
    headers.remove("host");
    let authority = match parts.uri.authority() {
        Some(authority) => Bytes::copy_from_slice(authority.as_str().as_bytes()),
        None => host.unwrap_or_default(),
    };
    let path = match parts.uri.path_and_query() {
        Some(path) => Bytes::copy_from_slice(path.as_str().as_bytes()),
        None => Bytes::new(),
    };
    let scheme = match parts.uri.scheme_str() {
        Some("https") => Scheme::Https,
        _ => Scheme::Http,
    };
    join_cookies(&mut headers);
    let protocol = parts.extensions.get::<h2::ext::Protocol>();
    let upgrade = protocol.map(|one| Bytes::from(one.as_str().to_ascii_lowercase()));
    Ok(RequestHead {
        method: method_bytes(&parts.method),
        scheme,
        authority,
        path,
        original_path: None,
        protocol: Protocol::Http2,
        upgrade,
        headers,
    })
}

fn method_bytes(method: &http::Method) -> Bytes {
    match method.as_str() {
        "GET" => Bytes::from_static(b"GET"),
        "POST" => Bytes::from_static(b"POST"),
        other => Bytes::copy_from_slice(other.as_bytes()),
    }
}

fn join_cookies(headers: &mut Headers) {
    if headers.get_all("cookie").nth(1).is_some() {
        let joined = headers
            .get_all("cookie")
            .collect::<Vec<_>>()
            .join(&b"; "[..]);
        headers.set("cookie", &joined);
    }
}

pub fn response_head(parts: &http::response::Parts) -> ResponseHead {
    let headers = headers_of(&parts.headers);
    ResponseHead {
        status: parts.status.as_u16(),
        protocol: Protocol::Http2,
        headers,
    }
}

/// A request for the `h2` client; an error names what it cannot carry.
pub fn to_request(head: &RequestHead) -> Result<http::Request<()>, CodecError> {
    let refused = |_| CodecError::bad_request("http2.invalid.header.field");
    let authority = http::uri::Authority::from_maybe_shared(head.authority.clone())
        .map_err(|_| CodecError::bad_request("http2.invalid.header.field"))?;
    let path = http::uri::PathAndQuery::from_maybe_shared(head.path.clone())
        .map_err(|_| CodecError::bad_request("http2.invalid.header.field"))?;
    let uri = http::Uri::builder()
        .scheme(head.scheme.as_str())
        .authority(authority)
        .path_and_query(path)
        .build()
        .map_err(refused)?;
    let mut request = http::Request::new(());
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    *request.method_mut() = http::Method::from_bytes(&head.method)
        .map_err(|_| CodecError::bad_request("http2.invalid.header.field"))?;
    *request.headers_mut() = header_map(&head.headers);
    Ok(request)
}

pub fn to_response(head: &ResponseHead) -> http::Response<()> {
    let mut response = http::Response::new(());
    if let Ok(status) = http::StatusCode::from_u16(head.status) {
        *response.status_mut() = status;
    }
    *response.version_mut() = http::Version::HTTP_2;
    *response.headers_mut() = header_map(&head.headers);
    response
}

fn header_map(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter() {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            map.append(name, value);
        }
    }
    map
}

fn headers_of(map: &HeaderMap) -> Headers {
    let bytes = map
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    let mut headers = Headers::with_capacity(map.len() + 8, bytes);
    for (name, value) in map {
        headers.append(name.as_str(), value.as_bytes());
    }
    headers
}
