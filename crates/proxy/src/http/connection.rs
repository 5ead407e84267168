//! The entry into HTTP: which codec a connection speaks, its loop of streams, idle and drain.
use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;

use super::codec::h1::{Limits, MAX_HEADERS, Reader, Writer, parse};
use super::codec::h2::{self as codec_h2, Coalesce};
use super::codec::{CodecError, h1};
use super::downstream::Downstream;
use super::request::{Protocol, RequestHead};
use super::stream::{self, Received};
use crate::network::Session;
use crate::network::transport::{Io, Transport};
use crate::parse::http_connection_manager::{Codec, HttpConnectionManager};
use crate::parse::http_options::Underscores;
use crate::parse::network_filter::Terminal;
use crate::stats::record::HttpConnection;
use crate::workers::StreamCount;

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves HTTP on a connection until it ends.
pub async fn serve(
    session: Rc<Session>,
    http: Arc<HttpConnectionManager>,
    mut transport: Transport,
) {
    let mut first = BytesMut::new();
    let http2 = match http.codec {
        Codec::Http1 => false,
        Codec::Http2 => true,
        Codec::Auto => match by_negotiation(&session) {
            Some(http2) => http2,
            None => match sniff(&mut transport, &mut first, &http).await {
                Some(http2) => http2,
                None => return,
            },
        },
    };
    let tls = session.connection.tls.is_some();
    let _counted = HttpConnection::begin(&http.stats, http2, tls);
    if http2 {
        serve_http2(session, http, transport, first).await;
    } else {
        serve_http1(session, http, transport, first).await;
    }
}

/// What ALPN or the HTTP inspector said.
fn by_negotiation(session: &Session) -> Option<bool> {
    let connection = &session.connection;
    let alpn = connection.tls.as_ref().and_then(|tls| tls.alpn.as_deref());
    match alpn {
        Some(b"h2") => return Some(true),
        Some(b"http/1.1" | b"http/1.0") => return Some(false),
        _ => {}
    }
    if connection.tls.is_some() {
        return None;
    }
    match connection.application_protocols.first().map(Vec::as_slice) {
        Some(b"h2c") => Some(true),
        Some(b"http/1.1" | b"http/1.0") => Some(false),
        _ => None,
    }
}

/// Reads until the HTTP/2 preface is complete or impossible; `None`: the client went away.
async fn sniff(
    transport: &mut Transport,
    first: &mut BytesMut,
    http: &HttpConnectionManager,
) -> Option<bool> {
    use tokio::io::AsyncReadExt;
    loop {
        let known = first.len().min(HTTP2_PREFACE.len());
        if first[..known] != HTTP2_PREFACE[..known] {
            return Some(false);
        }
        if known == HTTP2_PREFACE.len() {
            return Some(true);
        }
        // Before the first byte the connection is only idle.
        let limit = match known {
            0 => http.limits.idle_timeout,
            _ => http.request_headers_timeout,
        };
        first.reserve(1024);
        let read = transport.read_buf(first);
        let count = match limit {
            None => read.await.ok()?,
            Some(limit) => tokio::time::timeout(limit, read).await.ok()?.ok()?,
        };
        if count == 0 {
            return None;
        }
    }
}

/// The settings for the next stream, the newest of this connection's listener; `None`: it may
/// not have one.
fn current(session: &Session) -> Option<Arc<HttpConnectionManager>> {
    let chain = session.newest_chain()?;
    match &chain.entry.config.terminal {
        Terminal::Http(http) => Some(http.clone()),
        _ => None,
    }
}

fn is_draining(session: &Session, http: &HttpConnectionManager) -> bool {
    let age = session.connection.start.elapsed();
    let too_old = http
        .limits
        .max_connection_duration
        .is_some_and(|most| age >= most);
    too_old || session.is_draining()
}

// tidy: long function: one loop over the requests of a connection, in their order.
async fn serve_http1(
    session: Rc<Session>,
    mut http: Arc<HttpConnectionManager>,
    transport: Transport,
    first: BytesMut,
) {
    let io = Io::new(transport);
    let trailers = http.http1.enable_trailers;
    let mut reader = Reader::new(io.clone())
        .with_buffered(first)
        .with_trailers(trailers);
    let mut writer = Writer::new(io.clone()).with_trailers(trailers);
    let mut served: u64 = 0;
    loop {
        let limits = Limits {
            head_bytes: http.max_request_headers_bytes,
            headers: http.limits.max_headers_count.min(MAX_HEADERS),
        };
        let request = match next_request(&session, &mut reader, &limits, &http).await {
            Next::Request(request) => request,
            Next::End => break,
            Next::Bad(error) => {
                let downstream = Downstream::http1(reader, writer, Protocol::Http11, false);
                let downstream = stream::refuse(&session, &http, downstream, &error).await;
                finish(downstream, &http).await;
                return;
            }
        };
        // The settings may have changed while the connection was idle. It was not closed then,
        // even if it may have no further request: that could have crossed one on its way.
        match current(&session) {
            Some(newest) => http = newest,
            None => break,
        }
        served += 1;
        let most = http.limits.max_requests_per_connection;
        let last = most.is_some_and(|most| served >= u64::from(most));
        let close = !request.keep_alive || last || is_draining(&session, &http);
        reader.begin_body(request.body);
        let head_only = &request.head.method[..] == b"HEAD";
        let version = answered_version(&request.head, &http);
        let mut downstream = Downstream::http1(reader, writer, version, head_only);
        if close {
            downstream.close_after();
        }
        let received = Received {
            head: request.head,
            expects_continue: request.expect_continue,
            header_bytes: request.header_bytes,
        };
        let count = StreamCount::new(session.worker.clone());
        let downstream = stream::handle(session.clone(), http.clone(), received, downstream).await;
        drop(count);
        if downstream.closes() || !downstream.incoming.is_done() {
            finish(downstream, &http).await;
            return;
        }
        match downstream.into_http1() {
            Some((r, w)) => (reader, writer) = (r, w),
            None => return,
        }
        if session.chain.drain.is_closing() {
            break;
        }
    }
    let _ = poll_fn(|cx| writer.poll_shutdown(cx)).await;
}

/// Envoy answers HTTP/1.0 in kind only where it accepts it.
fn answered_version(head: &RequestHead, http: &HttpConnectionManager) -> Protocol {
    match head.protocol {
        Protocol::Http10 if http.http1.accept_http10 => Protocol::Http10,
        _ => Protocol::Http11,
    }
}

enum Next {
    Request(Box<Request>),
    /// The connection is over: closed, idle too long, drained.
    End,
    Bad(CodecError),
}

struct Request {
    head: RequestHead,
    body: h1::BodyLength,
    keep_alive: bool,
    expect_continue: bool,
    header_bytes: u64,
}

async fn next_request(
    session: &Session,
    reader: &mut Reader,
    limits: &Limits,
    http: &HttpConnectionManager,
) -> Next {
    let chain = session.chain.clone();
    // As in Envoy: an idle connection stays open while its chain drains (its next response says
    // `connection: close`), because closing it could cross a request on its way.
    let mut closed = std::pin::pin!(chain.drain.closed());
    // Between requests the idle timeout counts; once bytes are there, the one for heads.
    let mut idle = http
        .limits
        .idle_timeout
        .map(|idle| Box::pin(tokio::time::sleep(idle)));
    let mut started = false;
    let (of_head, of_request) = (http.request_headers_timeout, http.request_timeout);
    let head_limit = of_head.into_iter().chain(of_request).min();
    let got = poll_fn(|cx| {
        if let Poll::Ready(result) = reader.poll_head(cx, limits) {
            return Poll::Ready(Some(result));
        }
        if !reader.is_empty() && !started {
            started = true;
            idle = head_limit.map(|limit| Box::pin(tokio::time::sleep(limit)));
        }
        if let Some(timer) = &mut idle
            && timer.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(None);
        }
        if reader.is_empty() && closed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await;
    let bytes = match got {
        None if started => {
            let overall = of_head.is_none_or(|own| of_request.is_some_and(|all| all < own));
            let details = if overall {
                "request_overall_timeout"
            } else {
                "request_header_timeout"
            };
            return Next::Bad(CodecError::Protocol {
                status: 408,
                details,
            });
        }
        None | Some(Ok(None)) | Some(Err(CodecError::Closed | CodecError::Io(_))) => {
            return Next::End;
        }
        Some(Err(error)) => return Next::Bad(error),
        Some(Ok(Some(bytes))) => bytes,
    };
    let header_bytes = bytes.len() as u64;
    match parse::request(bytes, limits).and_then(|parsed| acceptable(parsed, http)) {
        Ok(parsed) => Next::Request(Box::new(Request {
            head: parsed.head,
            body: parsed.body,
            keep_alive: parsed.keep_alive,
            expect_continue: parsed.expect_continue,
            header_bytes,
        })),
        Err(error) => Next::Bad(error),
    }
}

/// What the connection manager's settings say of a head that is well formed.
fn acceptable(
    mut request: parse::Request,
    http: &HttpConnectionManager,
) -> Result<parse::Request, CodecError> {
    let head = &mut request.head;
    if head.protocol == Protocol::Http10 && !http.http1.accept_http10 {
        return Err(CodecError::Protocol {
            status: 426,
            details: "low_version",
        });
    }
    if !head.authority.iter().all(|byte| is_authority_byte(*byte)) {
        return Err(CodecError::bad_request("http.invalid_authority"));
    }
    if http.limits.underscores != Underscores::Allow {
        let odd = |name: &[u8]| name.contains(&b'_');
        let names = head.headers.iter().filter(|(name, _)| odd(name));
        let names: Vec<Vec<u8>> = names.map(|(name, _)| name.to_ascii_lowercase()).collect();
        if !names.is_empty() && http.limits.underscores == Underscores::Reject {
            return Err(CodecError::bad_request("http1.unexpected_underscore"));
        }
        for name in names
            .iter()
            .filter_map(|name| std::str::from_utf8(name).ok())
        {
            head.headers.remove(name);
        }
    }
    Ok(request)
}

/// RFC 3986: what a host, a port and user information may hold.
fn is_authority_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]@".contains(&byte)
}

/// Sends what is queued, closes our direction and reads on for a moment: a reset would destroy
/// the response on its way.
async fn finish(mut downstream: Downstream, http: &HttpConnectionManager) {
    let limit = http.delayed_close_timeout.unwrap_or(Duration::ZERO);
    if poll_fn(|cx| downstream.outgoing.poll_flush(cx))
        .await
        .is_err()
    {
        return;
    }
    let Some((mut reader, mut writer)) = downstream.into_http1() else {
        return;
    };
    if poll_fn(|cx| writer.poll_shutdown(cx)).await.is_err() || limit.is_zero() {
        return;
    }
    let linger = poll_fn(|cx| reader.poll_discard(cx));
    let _ = tokio::time::timeout(limit, linger).await;
}

fn http2_settings(http: &HttpConnectionManager) -> h2::server::Builder {
    let options = &http.http2;
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(options.initial_stream_window.min(i32::MAX as u32))
        .initial_connection_window_size(options.initial_connection_window.min(i32::MAX as u32))
        .max_concurrent_streams(options.max_concurrent_streams)
        .header_table_size(options.hpack_table_size)
        .max_header_list_size(u32::try_from(http.max_request_headers_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(256 * 1024);
    builder
}

// tidy: long function: one select over what may happen to a connection.
async fn serve_http2(
    session: Rc<Session>,
    http: Arc<HttpConnectionManager>,
    transport: Transport,
    first: BytesMut,
) {
    let options = &http.http2;
    let builder = http2_settings(&http);
    let io = Coalesce::new(transport).with_buffered(first);
    let Ok(mut connection) = builder.handshake::<_, bytes::Bytes>(io).await else {
        return;
    };
    let active = Rc::new(Cell::new(0u32));
    let mut graceful = false;
    let (ping, seed) = (connection.ping_pong(), session.connection.id);
    let mut answers = std::pin::pin!(codec_h2::keepalive(ping, options.keepalive.as_ref(), seed));
    let idle = http.limits.idle_timeout;
    let lifetime = http.limits.max_connection_duration;
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = connection.accept() => accepted,
            () = async {
                tokio::select! {
                    () = session.chain.drain.drained() => {}
                    () = session.worker.drain.drained() => {}
                }
            }, if !graceful => {
                connection.graceful_shutdown();
                graceful = true;
                continue;
            }
            () = session.chain.drain.closed() => {
                connection.abrupt_shutdown(h2::Reason::NO_ERROR);
                let _ = poll_fn(|cx| connection.poll_closed(cx)).await;
                return;
            }
            () = &mut answers => return,
            () = until_age(&session, lifetime), if !graceful => {
                connection.graceful_shutdown();
                graceful = true;
                continue;
            }
            () = idle_for(idle, &active), if !graceful => {
                connection.graceful_shutdown();
                graceful = true;
                continue;
            }
        };
        let Some(Ok((request, mut respond))) = accepted else {
            break;
        };
        let Some(http) = current(&session) else {
            // Nothing of it was processed; the streams in flight may end.
            respond.send_reset(h2::Reason::REFUSED_STREAM);
            connection.graceful_shutdown();
            graceful = true;
            continue;
        };
        let count = StreamCount::new(session.worker.clone());
        let (session, guard) = (session.clone(), (Active::new(active.clone()), count));
        tokio::task::spawn_local(async move {
            serve_http2_stream(session, http, request, respond).await;
            drop(guard);
        });
    }
}

async fn serve_http2_stream(
    session: Rc<Session>,
    http: Arc<HttpConnectionManager>,
    request: http::Request<h2::RecvStream>,
    respond: h2::server::SendResponse<bytes::Bytes>,
) {
    let (parts, body) = request.into_parts();
    let mut downstream = Downstream::http2(body, respond);
    match codec_h2::request_head(&parts) {
        Err(_) => downstream.reset(h2::Reason::PROTOCOL_ERROR.into()),
        Ok(head) => {
            let header_bytes = head.headers.byte_size() as u64;
            let expects_continue = head.headers.get("expect") == Some(b"100-continue");
            let received = Received {
                head,
                expects_continue,
                header_bytes,
            };
            let mut downstream = stream::handle(session, http, received, downstream).await;
            let _ = poll_fn(|cx| downstream.outgoing.poll_flush(cx)).await;
            if !downstream.incoming.is_done() {
                // The response is complete: the rest of the request is of no use (RFC 9113 8.1).
                downstream.reset(h2::Reason::NO_ERROR.into());
            }
        }
    }
}

/// Counts the streams of a connection.
struct Active(Rc<Cell<u32>>);

impl Active {
    fn new(count: Rc<Cell<u32>>) -> Active {
        count.set(count.get() + 1);
        Active(count)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn until_age(session: &Session, lifetime: Option<Duration>) {
    match lifetime {
        None => std::future::pending().await,
        Some(most) => {
            let left = most.saturating_sub(session.connection.start.elapsed());
            tokio::time::sleep(left).await;
        }
    }
}

async fn idle_for(limit: Option<Duration>, active: &Cell<u32>) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(limit).await;
        if active.get() == 0 {
            return;
        }
    }
}
