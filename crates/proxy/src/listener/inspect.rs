//! Listener filters: look at a connection's first bytes before a chain is chosen. Bytes read here
//! are delivered again; what a filter may read is bounded.
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::proxy_protocol::{self, Header};
use crate::parse::listener::{Listener, ListenerFilterKind};
use crate::stream_info::Connection;

const MAX_REQUEST_LINE: usize = 64 * 1024;
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Why a connection is closed before it has a chain.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("closed before its first bytes")]
    Closed,
    #[error("PROXY protocol: {0}")]
    ProxyProtocol(&'static str),
    #[error("not a TLS client hello")]
    BadHello,
}

/// A connection's bytes so far.
struct Peeked<'a> {
    stream: &'a mut TcpStream,
    buffer: &'a mut BytesMut,
}

impl Peeked<'_> {
    /// Reads more; false at the end of the stream.
    async fn more(&mut self) -> io::Result<bool> {
        self.buffer.reserve(2048);
        Ok(self.stream.read_buf(self.buffer).await? > 0)
    }
}

/// Runs the listener's filters in order.
pub async fn run(
    listener: &Listener,
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    connection: &mut Connection,
) -> Result<(), InspectError> {
    let mut peeked = Peeked { stream, buffer };
    for filter in &listener.filters {
        let port = connection.local.port();
        if filter
            .disabled
            .as_ref()
            .is_some_and(|when| when.holds(port))
        {
            continue;
        }
        match &filter.kind {
            ListenerFilterKind::OriginalDst => original_dst(peeked.stream, connection),
            ListenerFilterKind::TlsInspector {
                max_client_hello,
                close_on_parse_error,
            } => {
                let found = tls_inspector(&mut peeked, connection, *max_client_hello).await?;
                if !found && *close_on_parse_error {
                    return Err(InspectError::BadHello);
                }
            }
            ListenerFilterKind::HttpInspector => {
                http_inspector(&mut peeked, connection).await?;
            }
            ListenerFilterKind::ProxyProtocol {
                allow_without,
                allow_v1,
                allow_v2,
            } => {
                let allowed = proxy_protocol::Allowed {
                    none: *allow_without,
                    v1: *allow_v1,
                    v2: *allow_v2,
                };
                proxy_protocol_filter(&mut peeked, connection, allowed).await?;
            }
        }
    }
    Ok(())
}

/// Restores the destination that a redirect rewrote.
pub fn original_dst(stream: &TcpStream, connection: &mut Connection) {
    let original = crate::sys::original_destination(stream, connection.local);
    if let Some(original) = original.filter(|one| *one != connection.local) {
        connection.local = original;
        connection.local_restored = true;
    }
}

/// True when the connection begins as TLS; notes server name and ALPN.
async fn tls_inspector(
    peeked: &mut Peeked<'_>,
    connection: &mut Connection,
    limit: usize,
) -> Result<bool, InspectError> {
    let mut acceptor = rustls::server::Acceptor::default();
    let mut fed = 0;
    loop {
        if let Some(first) = peeked.buffer.first()
            && *first != 0x16
        {
            return Ok(false);
        }
        while fed < peeked.buffer.len() {
            let mut rest = &peeked.buffer[fed..];
            match acceptor.read_tls(&mut rest) {
                Ok(0) => break,
                Ok(count) => fed += count,
                Err(_) => return Ok(false),
            }
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                connection.transport_protocol = "tls";
                connection.requested_server_name = hello
                    .server_name()
                    .map(|name| Arc::from(name.to_ascii_lowercase()));
                connection.application_protocols = hello
                    .alpn()
                    .map(|names| names.map(<[u8]>::to_vec).collect())
                    .unwrap_or_default();
                return Ok(true);
            }
            Ok(None) => {}
            Err(_) => return Ok(false),
        }
        if peeked.buffer.len() > limit {
            return Err(InspectError::BadHello);
        }
        if !peeked.more().await? {
            let nothing = peeked.buffer.is_empty();
            return if nothing {
                Err(InspectError::Closed)
            } else {
                Ok(false)
            };
        }
    }
}

/// What the first bytes say about HTTP.
#[derive(Debug, PartialEq, Eq)]
enum Guess {
    Unknown,
    No,
    Protocol(&'static [u8]),
}

async fn http_inspector(
    peeked: &mut Peeked<'_>,
    connection: &mut Connection,
) -> Result<(), InspectError> {
    if connection.transport_protocol == "tls" {
        return Ok(());
    }
    loop {
        match guess_http(peeked.buffer) {
            Guess::No => return Ok(()),
            Guess::Protocol(name) => {
                connection.application_protocols = vec![name.to_vec()];
                return Ok(());
            }
            Guess::Unknown if peeked.buffer.len() > MAX_REQUEST_LINE => return Ok(()),
            Guess::Unknown => {}
        }
        if !peeked.more().await? {
            let nothing = peeked.buffer.is_empty();
            return if nothing {
                Err(InspectError::Closed)
            } else {
                Ok(())
            };
        }
    }
}

fn guess_http(bytes: &[u8]) -> Guess {
    if bytes.len() < HTTP2_PREFACE.len() {
        if !bytes.is_empty() && HTTP2_PREFACE.starts_with(bytes) {
            return Guess::Unknown;
        }
    } else if bytes.starts_with(HTTP2_PREFACE) {
        return Guess::Protocol(b"h2c");
    }
    let method = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_alphabetic() || **byte == b'-')
        .count();
    match bytes.get(method) {
        None if method <= 32 => return Guess::Unknown,
        Some(b' ') if method > 0 => {}
        _ => return Guess::No,
    }
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        let bad = bytes.iter().any(|byte| *byte < b' ' && *byte != b'\r');
        return if bad { Guess::No } else { Guess::Unknown };
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    if line.ends_with(b" HTTP/1.1") {
        Guess::Protocol(b"http/1.1")
    } else if line.ends_with(b" HTTP/1.0") {
        Guess::Protocol(b"http/1.0")
    } else {
        Guess::No
    }
}

async fn proxy_protocol_filter(
    peeked: &mut Peeked<'_>,
    connection: &mut Connection,
    allowed: proxy_protocol::Allowed,
) -> Result<(), InspectError> {
    loop {
        match proxy_protocol::parse(peeked.buffer, allowed) {
            Err(reason) => return Err(InspectError::ProxyProtocol(reason)),
            Ok(Header::Partial) => {}
            Ok(Header::Absent) => return Ok(()),
            Ok(Header::Found { length, addresses }) => {
                let _ = peeked.buffer.split_to(length);
                if let Some((source, destination)) = addresses {
                    set_addresses(connection, source, destination);
                }
                return Ok(());
            }
        }
        if !peeked.more().await? {
            return Err(InspectError::Closed);
        }
    }
}

fn set_addresses(connection: &mut Connection, source: SocketAddr, destination: SocketAddr) {
    connection.remote = source;
    if connection.local != destination {
        connection.local = destination;
        connection.local_restored = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_http_as_early_as_it_can() {
        for (bytes, want, why) in [
            (&b""[..], Guess::Unknown, "nothing yet"),
            (
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxx",
                Guess::Protocol(b"h2c"),
                "preface",
            ),
            (b"PRI * HT", Guess::Unknown, "part of the preface"),
            (
                b"GET / HTTP/1.1\r\nHost",
                Guess::Protocol(b"http/1.1"),
                "request line",
            ),
            (
                b"GET / HTTP/1.0\r\n",
                Guess::Protocol(b"http/1.0"),
                "old version",
            ),
            (b"GET / HT", Guess::Unknown, "half a request line"),
            (b"\x16\x03\x01", Guess::No, "TLS"),
            (b"SSH-2.0-x\r\n", Guess::No, "another protocol"),
            (b"PING\r\n", Guess::No, "no blank after the word"),
            (b"GET / HTTP/3\r\n", Guess::No, "unknown version"),
        ] {
            assert_eq!(guess_http(bytes), want, "{why}");
        }
    }
}
