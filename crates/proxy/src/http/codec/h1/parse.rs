//! Strict parsing of a request or response head. What is not proven canonical is refused (RFC 9112
//! leniencies are how requests are smuggled); hop-by-hop headers end here.
use bytes::Bytes;

use super::{BodyLength, Limits, MAX_HEADERS};
use crate::http::codec::CodecError;
use crate::http::headers::Headers;
use crate::http::request::{Protocol, RequestHead, ResponseHead, Scheme};

/// A request head and how to go on after it.
#[derive(Debug)]
pub struct Request {
    pub head: RequestHead,
    pub body: BodyLength,
    pub keep_alive: bool,
    pub expect_continue: bool,
}

/// A response head and how to go on after it.
#[derive(Debug)]
pub struct Response {
    pub head: ResponseHead,
    pub body: BodyLength,
    pub keep_alive: bool,
    /// `Upgrade` token of a 101.
    pub upgrade: Option<Bytes>,
}

/// Finds the end of a head and refuses line ends that are not CRLF. `from` is where the last
/// look stopped. `Ok(None)`: more bytes are needed.
pub fn head_end(bytes: &[u8], from: &mut usize) -> Result<Option<usize>, CodecError> {
    let mut at = *from;
    while let Some(offset) = memchr::memchr(b'\n', &bytes[at..]) {
        let newline = at + offset;
        if newline == 0 || bytes[newline - 1] != b'\r' {
            return Err(CodecError::bad_request("http1.codec_error"));
        }
        if newline >= 3 && bytes[newline - 2] == b'\n' {
            return Ok(Some(newline + 1));
        }
        at = newline + 1;
        *from = at;
    }
    Ok(None)
}

/// CRLFs before a request line are skipped (RFC 9112 2.2), only whole ones.
pub fn leading_blank(bytes: &[u8]) -> usize {
    let mut at = 0;
    while bytes[at..].starts_with(b"\r\n") {
        at += 2;
    }
    at
}

/// httparse checks tokens; this refuses what it lets pass: NUL, bare CR, continuation lines.
fn check_lines(bytes: &[u8]) -> Result<(), CodecError> {
    let mut previous = 0u8;
    let (mut suspicious, mut zero) = (false, false);
    for &byte in bytes {
        zero |= byte == 0;
        suspicious |= previous == b'\r' && byte != b'\n';
        suspicious |= previous == b'\n' && (byte == b' ' || byte == b'\t');
        previous = byte;
    }
    if zero {
        return Err(CodecError::bad_request("http1.invalid_characters"));
    }
    if suspicious {
        Err(CodecError::bad_request("http1.codec_error"))
    } else {
        Ok(())
    }
}

fn offset(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
}

/// What the headers said about framing and the connection.
#[derive(Default)]
struct Framed {
    length: Option<u64>,
    chunked: bool,
    host: Option<Bytes>,
    close: bool,
    keep_alive: bool,
    upgrade_wanted: bool,
    upgrade: Option<Bytes>,
    expect_continue: bool,
    nominees: Vec<Vec<u8>>,
}

/// Parses a request head; `bytes` end with the empty line.
pub fn request(bytes: Bytes, limits: &Limits) -> Result<Request, CodecError> {
    check_lines(&bytes)?;
    let mut lines = [const { std::mem::MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_request_with_uninit_headers(&mut parsed, &bytes, &mut lines)
        .map_err(parse_error)?;
    if !status.is_complete() {
        return Err(CodecError::bad_request("http1.codec_error"));
    }
    if parsed.headers.len() > limits.headers {
        return Err(CodecError::Protocol {
            status: 431,
            details: "http1.too_many_headers",
        });
    }
    let version = parsed.version;
    let (method, target) = match (parsed.method, parsed.path) {
        (Some(method), Some(target)) => (method, target),
        _ => return Err(CodecError::bad_request("http1.codec_error")),
    };
    let method = bytes.slice_ref(method.as_bytes());
    let target = bytes.slice_ref(target.as_bytes());
    let mut headers = Headers::over(bytes.clone(), parsed.headers.len() + 8);
    let mut framed = Framed::default();
    collect(&bytes, parsed.headers, &mut headers, &mut framed, true)?;
    let protocol = if version == Some(1) {
        Protocol::Http11
    } else {
        Protocol::Http10
    };
    let (authority, path, scheme) = split_target(&method, target, framed.host.take())?;
    let body = request_framing(&framed, protocol)?;
    let keep_alive = match protocol {
        Protocol::Http10 => framed.keep_alive && !framed.close,
        _ => !framed.close,
    };
    let upgrade = upgrade_of(&mut framed, &mut headers);
    remove_nominees(&framed, &mut headers);
    let head = RequestHead {
        method,
        scheme: scheme.unwrap_or(Scheme::Http),
        authority: authority.unwrap_or_default(),
        path,
        original_path: None,
        protocol,
        upgrade,
        headers,
    };
    Ok(Request {
        head,
        body,
        keep_alive,
        expect_continue: framed.expect_continue,
    })
}

/// Parses a response head to a request of this method.
pub fn response(bytes: Bytes, method: &[u8], limits: &Limits) -> Result<Response, CodecError> {
    check_lines(&bytes)?;
    let mut lines = [const { std::mem::MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, &bytes, &mut lines)
        .map_err(parse_error)?;
    let (true, Some(code)) = (status.is_complete(), parsed.code) else {
        return Err(CodecError::bad_request("http1.codec_error"));
    };
    if parsed.headers.len() > limits.headers {
        return Err(CodecError::bad_request("http1.too_many_headers"));
    }
    let mut headers = Headers::over(bytes.clone(), parsed.headers.len() + 8);
    let mut framed = Framed::default();
    collect(&bytes, parsed.headers, &mut headers, &mut framed, false)?;
    let protocol = if parsed.version == Some(1) {
        Protocol::Http11
    } else {
        Protocol::Http10
    };
    if framed.chunked && framed.length.is_some() {
        return Err(CodecError::bad_request(
            "http1.content_length_and_chunked_not_allowed",
        ));
    }
    let without_body = code == 204 || (100..200).contains(&code);
    if without_body && (framed.chunked || framed.length.is_some_and(|length| length > 0)) {
        return Err(CodecError::bad_request("http1.body_disallowed"));
    }
    let upgrade = if code == 101 {
        framed.upgrade.take()
    } else {
        None
    };
    let body = if method == b"HEAD" || (100..200).contains(&code) || code == 204 || code == 304 {
        BodyLength::None
    } else if framed.chunked {
        BodyLength::Chunked
    } else {
        match framed.length {
            Some(0) => BodyLength::None,
            Some(length) => BodyLength::Exactly(length),
            None => BodyLength::UntilClose,
        }
    };
    let keep_alive = body != BodyLength::UntilClose
        && !framed.close
        && (protocol == Protocol::Http11 || framed.keep_alive);
    let head = ResponseHead {
        status: code,
        protocol,
        headers,
    };
    Ok(Response {
        head,
        body,
        keep_alive,
        upgrade,
    })
}

/// Parses a trailer section; `bytes` end with the empty line.
pub fn trailers(bytes: Bytes) -> Result<Headers, CodecError> {
    check_lines(&bytes)?;
    let mut lines = [httparse::EMPTY_HEADER; MAX_HEADERS];
    match httparse::parse_headers(&bytes, &mut lines).map_err(parse_error)? {
        httparse::Status::Complete((_, lines)) => {
            let mut headers = Headers::over(bytes.clone(), lines.len());
            for line in lines {
                let at = offset(&bytes, line.name.as_bytes());
                headers.push_received(
                    (at, line.name.len()),
                    (offset(&bytes, line.value), line.value.len()),
                );
            }
            for name in [
                "content-length",
                "transfer-encoding",
                "host",
                "connection",
                "trailer",
            ] {
                headers.remove(name);
            }
            Ok(headers)
        }
        httparse::Status::Partial => Err(CodecError::bad_request("http1.codec_error")),
    }
}

fn parse_error(error: httparse::Error) -> CodecError {
    match error {
        httparse::Error::TooManyHeaders => CodecError::Protocol {
            status: 431,
            details: "http1.too_many_headers",
        },
        httparse::Error::Version => CodecError::Protocol {
            status: 426,
            details: "low_version",
        },
        _ => CodecError::bad_request("http1.codec_error"),
    }
}

fn collect(
    bytes: &Bytes,
    lines: &[httparse::Header<'_>],
    headers: &mut Headers,
    framed: &mut Framed,
    request: bool,
) -> Result<(), CodecError> {
    for line in lines {
        let name = line.name.as_bytes();
        if !(well_known_length(name.len()) && framing_header(bytes, line, framed, request)?) {
            let value = (offset(bytes, line.value), line.value.len());
            headers.push_received((offset(bytes, name), name.len()), value);
        }
    }
    Ok(())
}

/// Lengths of the names that `framing_header` knows; the rest is passed by without comparing.
fn well_known_length(length: usize) -> bool {
    matches!(length, 2 | 4 | 6 | 7 | 10 | 14 | 16 | 17)
}

/// Takes a header that concerns framing or the connection; true when it must not be passed on.
fn framing_header(
    bytes: &Bytes,
    line: &httparse::Header<'_>,
    framed: &mut Framed,
    request: bool,
) -> Result<bool, CodecError> {
    let is = |name: &str| line.name.eq_ignore_ascii_case(name);
    if is("content-length") {
        let length = content_length(line.value)?;
        if framed.length.replace(length).is_some() {
            return Err(CodecError::bad_request("http1.codec_error"));
        }
        return Ok(false);
    }
    if is("transfer-encoding") {
        if framed.chunked || !line.value.eq_ignore_ascii_case(b"chunked") {
            let (status, details) = (501, "http1.invalid_transfer_encoding");
            return Err(CodecError::Protocol { status, details });
        }
        framed.chunked = true;
        return Ok(true);
    }
    if is("connection") {
        connection_tokens(line.value, framed);
        return Ok(true);
    }
    if is("upgrade") {
        if framed.upgrade.is_none() {
            framed.upgrade = Some(Bytes::from(line.value.to_ascii_lowercase()));
        }
        return Ok(true);
    }
    if is("keep-alive") || is("proxy-connection") || (is("http2-settings") && request) {
        return Ok(true);
    }
    if is("te") {
        return Ok(!line.value.eq_ignore_ascii_case(b"trailers"));
    }
    if request && is("host") {
        if framed.host.replace(bytes.slice_ref(line.value)).is_some() {
            return Err(CodecError::bad_request("http1.codec_error"));
        }
        return Ok(true);
    }
    if request && is("expect") {
        if line.value.eq_ignore_ascii_case(b"100-continue") {
            framed.expect_continue = true;
            return Ok(true);
        }
        return Err(CodecError::Protocol {
            status: 417,
            details: "http1.unknown_expectation",
        });
    }
    Ok(false)
}

fn content_length(value: &[u8]) -> Result<u64, CodecError> {
    let refused = CodecError::bad_request("http1.codec_error");
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(refused);
    }
    Ok(value
        .iter()
        .fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

fn connection_tokens(value: &[u8], framed: &mut Framed) {
    for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        if token.eq_ignore_ascii_case(b"close") {
            framed.close = true;
        } else if token.eq_ignore_ascii_case(b"keep-alive") {
            framed.keep_alive = true;
        } else if token.eq_ignore_ascii_case(b"upgrade") {
            framed.upgrade_wanted = true;
        } else if !token.is_empty() && framed.nominees.len() < 16 {
            framed.nominees.push(token.to_ascii_lowercase());
        }
    }
}

/// Nominated headers are hop-by-hop, but a client may not make us forget who it is or what we know.
fn remove_nominees(framed: &Framed, headers: &mut Headers) {
    for name in &framed.nominees {
        let protected = name.starts_with(b"x-forwarded-")
            || name.starts_with(b"x-envoy-")
            || name.starts_with(b"content-")
            || matches!(
                &name[..],
                b"authorization" | b"cookie" | b"x-request-id" | b"te"
            );
        if let (false, Ok(name)) = (protected, std::str::from_utf8(name)) {
            headers.remove(name);
        }
    }
}

fn upgrade_of(framed: &mut Framed, headers: &mut Headers) -> Option<Bytes> {
    let upgrade = framed.upgrade.take()?;
    if !framed.upgrade_wanted || &upgrade[..] == b"h2c" {
        headers.remove("http2-settings");
        return None;
    }
    Some(upgrade)
}

fn request_framing(framed: &Framed, protocol: Protocol) -> Result<BodyLength, CodecError> {
    if framed.chunked {
        if framed.length.is_some() {
            let details = "http1.content_length_and_chunked_not_allowed";
            return Err(CodecError::bad_request(details));
        }
        if protocol == Protocol::Http10 {
            return Err(CodecError::bad_request("http1.codec_error"));
        }
        return Ok(BodyLength::Chunked);
    }
    Ok(match framed.length {
        None | Some(0) => BodyLength::None,
        Some(length) => BodyLength::Exactly(length),
    })
}

type Target = (Option<Bytes>, Bytes, Option<Scheme>);

/// Origin, absolute and asterisk form; an absolute URI's authority wins over `Host` (RFC 9112
/// 3.2.2).
fn split_target(method: &[u8], target: Bytes, host: Option<Bytes>) -> Result<Target, CodecError> {
    if method == b"CONNECT" {
        return Ok((Some(target), Bytes::new(), None));
    }
    if target.starts_with(b"/") || (&target[..] == b"*" && method == b"OPTIONS") {
        return Ok((host, target, None));
    }
    let lower = target[..target.len().min(8)].to_ascii_lowercase();
    let (scheme, skip) = if lower.starts_with(b"http://") {
        (Scheme::Http, 7)
    } else if lower.starts_with(b"https://") {
        (Scheme::Https, 8)
    } else {
        return Err(CodecError::bad_request("http1.codec_error"));
    };
    let rest = target.slice(skip..);
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(rest.len());
    let authority = rest.slice(..end);
    if authority.is_empty() || authority.contains(&b'@') {
        return Err(CodecError::bad_request("http1.codec_error"));
    }
    let path = match rest.get(end) {
        Some(b'/') => rest.slice(end..),
        Some(_) => Bytes::from([b"/", &rest[end..]].concat()),
        None => Bytes::from_static(b"/"),
    };
    Ok((Some(authority), path, Some(scheme)))
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
