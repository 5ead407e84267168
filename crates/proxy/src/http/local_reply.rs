//! What the proxy itself answers, and why: the one place that maps a request's failure to status,
//! body, response flag and detail.
use std::borrow::Cow;

use bytes::Bytes;

use super::filters::LocalReply;
use super::headers::Headers;
use super::request::{RequestHead, ResponseHead};
use crate::retry::ResetReason;
use crate::stream_info::ResponseFlags;

/// Why a request was not answered by its upstream.
#[derive(Clone, Debug)]
pub enum RequestError {
    /// The client's bytes were not acceptable HTTP.
    Codec {
        status: u16,
        details: &'static str,
    },
    LowVersion,
    MissingHost,
    MissingPath,
    /// A request target that is no path: `*`.
    AbsolutePath,
    BadPath,
    PathRedirect(Vec<u8>),
    UpgradeNotAllowed,
    NoVirtualHost,
    NoRoute,
    NoCluster {
        status: u16,
    },
    NoHealthyUpstream,
    /// The attempt ended before response headers.
    Reset {
        reason: ResetReason,
        transport: Option<Cow<'static, str>>,
        retried: bool,
    },
    /// The route's timeout.
    Timeout,
    PerTryTimeout,
    PerTryIdleTimeout,
    StreamIdle {
        request_complete: bool,
    },
    MaxDuration {
        request_complete: bool,
    },
    RequestTimeout,
    HeaderTimeout,
    BodyTooLarge,
    TlsRequired(Vec<u8>),
}

fn make(status: u16, flags: ResponseFlags, details: impl Into<Cow<'static, str>>) -> LocalReply {
    LocalReply {
        flags,
        ..LocalReply::new(status, details)
    }
}

fn with_body(mut reply: LocalReply, body: impl Into<Bytes>) -> LocalReply {
    reply.body = body.into();
    reply
}

fn with_header(mut reply: LocalReply, name: &'static str, value: &[u8]) -> LocalReply {
    reply.headers.push((Cow::Borrowed(name), value.to_vec()));
    reply
}

impl RequestError {
    /// Status, flag, details and body, as Envoy gives them.
    // tidy: long function: a table, one arm for each error.
    pub fn reply(&self) -> LocalReply {
        use ResponseFlags as Flag;
        let plain = |status, details| make(status, Flag::NONE, details);
        let text = |reply, body: &'static str| with_body(reply, body.as_bytes());
        match self {
            RequestError::Codec { status, details } => text(
                make(*status, Flag::DOWNSTREAM_PROTOCOL_ERROR, *details),
                phrase(*status),
            ),
            RequestError::LowVersion => text(
                make(426, Flag::DOWNSTREAM_PROTOCOL_ERROR, "low_version"),
                "Upgrade Required",
            ),
            RequestError::AbsolutePath => plain(404, "absolute_path_rejected"),
            RequestError::MissingHost => plain(400, "missing_host_header"),
            RequestError::MissingPath => plain(404, "missing_path_rejected"),
            RequestError::BadPath => plain(400, "path_normalization_failed"),
            RequestError::PathRedirect(path) => {
                with_header(plain(307, "path_normalization_failed"), "location", path)
            }
            RequestError::UpgradeNotAllowed => plain(403, "upgrade_failed"),
            RequestError::NoVirtualHost | RequestError::NoRoute => {
                make(404, Flag::NO_ROUTE_FOUND, "route_not_found")
            }
            RequestError::NoCluster { status } => {
                make(*status, Flag::NO_CLUSTER_FOUND, "cluster_not_found")
            }
            RequestError::NoHealthyUpstream => text(
                make(503, Flag::NO_HEALTHY_UPSTREAM, "no_healthy_upstream"),
                "no healthy upstream",
            ),
            RequestError::Reset {
                reason,
                transport,
                retried,
            } => reset_reply(*reason, transport.as_deref(), *retried),
            RequestError::Timeout => text(
                make(504, Flag::UPSTREAM_REQUEST_TIMEOUT, "response_timeout"),
                "upstream request timeout",
            ),
            RequestError::PerTryTimeout => text(
                make(
                    504,
                    Flag::UPSTREAM_REQUEST_TIMEOUT,
                    "upstream_per_try_timeout",
                ),
                "upstream request timeout",
            ),
            RequestError::PerTryIdleTimeout => text(
                make(
                    504,
                    Flag::STREAM_IDLE_TIMEOUT,
                    "upstream_per_try_idle_timeout",
                ),
                "upstream request timeout",
            ),
            RequestError::StreamIdle { request_complete } => {
                let status = if *request_complete { 504 } else { 408 };
                let reply = make(status, Flag::STREAM_IDLE_TIMEOUT, "stream_idle_timeout");
                text(reply, "stream timeout")
            }
            RequestError::MaxDuration { request_complete } => {
                let status = if *request_complete { 504 } else { 408 };
                let mut reply = plain(status, "max_duration_timeout");
                reply.grpc_status = Some(GRPC_DEADLINE_EXCEEDED);
                text(reply, "downstream duration timeout")
            }
            RequestError::RequestTimeout => {
                text(plain(408, "request_overall_timeout"), "request timeout")
            }
            RequestError::HeaderTimeout => text(
                plain(408, "request_header_timeout"),
                "request header timeout",
            ),
            RequestError::BodyTooLarge => {
                text(plain(413, "request_payload_too_large"), "Payload Too Large")
            }
            RequestError::TlsRequired(location) => {
                with_header(plain(301, "direct_response"), "location", location)
            }
        }
    }
}

fn reset_reply(reason: ResetReason, transport: Option<&str>, retried: bool) -> LocalReply {
    use ResponseFlags as Flag;
    let (words, flag) = match reason {
        ResetReason::ConnectFailure => (
            "remote connection failure",
            Flag::UPSTREAM_CONNECTION_FAILURE,
        ),
        ResetReason::ConnectTimeout => ("connection timeout", Flag::UPSTREAM_CONNECTION_FAILURE),
        ResetReason::RefusedStream => ("remote refused stream reset", Flag::UPSTREAM_REMOTE_RESET),
        ResetReason::RemoteReset => ("remote reset", Flag::UPSTREAM_REMOTE_RESET),
        ResetReason::ConnectionTermination => (
            "connection termination",
            Flag::UPSTREAM_CONNECTION_TERMINATION,
        ),
        ResetReason::ProtocolError => ("protocol error", Flag::UPSTREAM_PROTOCOL_ERROR),
        ResetReason::LocalReset => ("local reset", Flag::LOCAL_RESET),
        ResetReason::Overflow => ("overflow", Flag::UPSTREAM_OVERFLOW),
        ResetReason::PerTryTimeout => return RequestError::PerTryTimeout.reply(),
    };
    let transport = transport.filter(|text| !text.is_empty());
    let again = if retried {
        "retried and the latest "
    } else {
        ""
    };
    let mut body = format!(
        "upstream connect error or disconnect/reset before headers. {again}reset reason: {words}"
    );
    let mut details = words.to_owned();
    if let Some(text) = transport {
        // Envoy's body names it for the first attempt only.
        if !retried {
            body.push_str(", transport failure reason: ");
            body.push_str(text);
        }
        details.push('|');
        details.push_str(text);
    }
    let details = details.replace([' ', '\t', '\n'], "_");
    let details = format!("upstream_reset_before_response_started{{{details}}}");
    let status = if reason == ResetReason::ProtocolError {
        502
    } else {
        503
    };
    let reply = with_body(make(status, flag, details), body.into_bytes());
    if reason != ResetReason::Overflow {
        return reply;
    }
    with_header(reply, "x-envoy-overloaded", b"true")
}

/// `DEADLINE_EXCEEDED`.
const GRPC_DEADLINE_EXCEEDED: u32 = 4;

fn phrase(status: u16) -> &'static str {
    http::StatusCode::from_u16(status)
        .ok()
        .and_then(|one| one.canonical_reason())
        .unwrap_or("")
}

/// The head of a reply; for gRPC clients a trailers-only response. True: the body is to be sent.
pub fn head_of(reply: &LocalReply, request: Option<&RequestHead>) -> (ResponseHead, bool) {
    let mut headers = Headers::with_capacity(8, 256);
    for (name, value) in &reply.headers {
        headers.append(name, value);
    }
    if request.is_some_and(RequestHead::is_grpc) {
        headers.set("content-type", b"application/grpc");
        let status = reply.grpc_status.map(|code| code.to_string());
        let status = status.unwrap_or_else(|| grpc_status(reply.status).to_owned());
        headers.set("grpc-status", status.as_bytes());
        if !reply.body.is_empty() {
            headers.set("grpc-message", &percent_encode(&reply.body));
        }
        return (
            ResponseHead {
                headers,
                ..ResponseHead::new(200)
            },
            false,
        );
    }
    if !reply.body.is_empty() {
        headers.set("content-length", reply.body.len().to_string().as_bytes());
        if !headers.contains("content-type") {
            headers.append("content-type", b"text/plain");
        }
    }
    let is_head = request.is_some_and(|head| &head.method[..] == b"HEAD");
    let with_body = !reply.body.is_empty() && !is_head;
    (
        ResponseHead {
            headers,
            ..ResponseHead::new(reply.status)
        },
        with_body,
    )
}

fn grpc_status(http: u16) -> &'static str {
    match http {
        400 => "13",
        401 => "16",
        403 => "7",
        404 => "12",
        429 | 502 | 503 | 504 => "14",
        _ => "2",
    }
}

/// As gRPC encodes `grpc-message`: printable ASCII but `%` stays.
fn percent_encode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for &byte in text {
        if (0x20..0x7f).contains(&byte) && byte != b'%' {
            out.push(byte);
        } else {
            out.extend(format!("%{byte:02X}").bytes());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_read_as_envoys() {
        let error = RequestError::Reset {
            reason: ResetReason::ConnectFailure,
            transport: Some("delayed connect error: Connection refused".into()),
            retried: false,
        };
        let reply = error.reply();
        assert_eq!(
            String::from_utf8_lossy(&reply.body),
            "upstream connect error or disconnect/reset before headers. reset reason: remote \
             connection failure, transport failure reason: delayed connect error: \
             Connection refused"
        );
        assert_eq!(
            reply.details,
            "upstream_reset_before_response_started{remote_connection_failure|\
             delayed_connect_error:_Connection_refused}"
        );
        assert_eq!(reply.flags, ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
    }

    #[test]
    fn grpc_clients_get_trailers_only() {
        let mut request = RequestHead::new("POST", "a", "/x");
        request.headers.append("content-type", b"application/grpc");
        let (head, with_body) = head_of(&RequestError::NoHealthyUpstream.reply(), Some(&request));
        assert_eq!((head.status, with_body), (200, false));
        assert_eq!(head.headers.get_str("grpc-status"), Some("14"));
        assert_eq!(
            head.headers.get_str("grpc-message"),
            Some("no healthy upstream")
        );
    }
}
