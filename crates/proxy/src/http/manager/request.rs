//! A request's head on the way in: who the client is, what it may not say, what the next hop must
//! know. The order is Envoy's.
use std::net::IpAddr;

use bytes::Bytes;

use super::client_certificate;
use crate::http::headers::Headers;
use crate::http::request::{RequestHead, Scheme};
use crate::parse::http_connection_manager::{HttpConnectionManager, StripPort};
use crate::stream_info::StreamInfo;

/// Headers that only a trusted client may send.
const INTERNAL: &[&str] = &[
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-max-retries",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-force-trace",
    "x-envoy-ip-tags",
    "x-envoy-original-url",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-attempt-count",
];

/// The same, where this proxy is the edge.
const EDGE: &[&str] = &[
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-original-path",
];

/// Applies the connection manager's settings; `random` makes the request id.
pub fn apply(
    head: &mut RequestHead,
    info: &mut StreamInfo,
    config: &HttpConnectionManager,
    node: &envoy_api::core::Node,
    random: &mut dyn FnMut() -> u64,
) {
    let secure = info.downstream.tls.is_some();
    strip_authority(head, info, config);
    let any_internal = head
        .headers
        .iter()
        .any(|(name, _)| starts_with_x_envoy(name));
    if any_internal {
        head.headers.remove("x-envoy-internal");
    }
    let alone = client_address(head, info, config);
    set_forwarded_proto(head, config, secure);
    let internal = alone && config.internal_addresses.contains(info.client.ip());
    info.internal = internal;
    let edge = !internal && config.use_remote_address;
    if internal {
        head.headers.set("x-envoy-internal", b"true");
    } else if any_internal {
        if edge {
            EDGE.iter().for_each(|name| {
                head.headers.remove(name);
            });
        }
        INTERNAL.iter().for_each(|name| {
            head.headers.remove(name);
        });
    }
    if edge {
        let client = info.client.ip().to_string();
        head.headers
            .set("x-envoy-external-address", client.as_bytes());
    }
    if config.add_user_agent && !node.cluster.is_empty() {
        let name = node.cluster.as_bytes();
        if !node.id.is_empty() {
            head.headers
                .set("x-envoy-downstream-service-node", node.id.as_bytes());
        }
        head.headers.set("x-envoy-downstream-service-cluster", name);
        if !head.headers.contains("user-agent") {
            head.headers.append("user-agent", name);
        }
    }
    if config.append_x_forwarded_port && !head.headers.contains("x-forwarded-port") {
        let port = info.downstream.local.port().to_string();
        head.headers.append("x-forwarded-port", port.as_bytes());
    }
    let (mode, details) = (config.forward_client_cert, config.client_cert_details);
    client_certificate::apply(&mut head.headers, &info.downstream, mode, details);
    request_id(head, info, config, edge, random);
    if !config.via.is_empty() {
        append_with_comma(&mut head.headers, "via", config.via.as_bytes());
    }
}

fn starts_with_x_envoy(name: &[u8]) -> bool {
    name.len() > 8 && name[..8].eq_ignore_ascii_case(b"x-envoy-")
}

fn strip_authority(head: &mut RequestHead, info: &StreamInfo, config: &HttpConnectionManager) {
    let authority = &head.authority;
    let port_at = port_separator(authority);
    if let Some(at) = port_at {
        let port = &authority[at + 1..];
        let listener = info.downstream.local.port();
        let strip = match config.strip_port {
            StripPort::Never => false,
            StripPort::Any => true,
            StripPort::Matching => port == listener.to_string().as_bytes(),
        };
        if strip {
            head.authority = authority.slice(..at);
        }
    }
    if config.strip_trailing_host_dot {
        let at = port_separator(&head.authority).unwrap_or(head.authority.len());
        if at > 0 && head.authority[at - 1] == b'.' {
            let stripped = [&head.authority[..at - 1], &head.authority[at..]].concat();
            head.authority = Bytes::from(stripped);
        }
    }
}

/// The position of the colon before a port, past an IPv6 address's own colons.
fn port_separator(authority: &[u8]) -> Option<usize> {
    let at = memchr::memrchr(b':', authority)?;
    let digits = &authority[at + 1..];
    let inside_brackets = authority[at..].contains(&b']');
    let bare_ipv6 = !authority.contains(&b']') && memchr::memchr(b':', authority) != Some(at);
    (!inside_brackets && !bare_ipv6 && digits.iter().all(u8::is_ascii_digit)).then_some(at)
}

/// Finds the trusted client address; true when no proxy stood before us.
fn client_address(
    head: &mut RequestHead,
    info: &mut StreamInfo,
    config: &HttpConnectionManager,
) -> bool {
    const XFF: &str = "x-forwarded-for";
    let hops = config.xff_num_trusted_hops as usize;
    if !config.use_remote_address {
        let Some(forwarded) = head.headers.joined(XFF) else {
            return false;
        };
        let addresses = parse_forwarded(&forwarded);
        if let Some(address) = addresses.iter().rev().nth(hops).copied().flatten() {
            info.client.set_ip(address);
            info.client.set_port(0);
        } else {
            return false;
        }
        return addresses.len() == 1;
    }
    let forwarded = head.headers.joined(XFF);
    let alone = forwarded.is_none();
    if let (Some(forwarded), true) = (&forwarded, hops > 0) {
        let addresses = parse_forwarded(forwarded);
        if let Some(address) = addresses.iter().rev().nth(hops - 1).copied().flatten() {
            info.client.set_ip(address);
            info.client.set_port(0);
        }
    }
    drop(forwarded);
    if !config.skip_xff_append {
        let mut remote = info.downstream.remote.ip();
        if !config.mapped_ipv6 {
            remote = remote.to_canonical();
        }
        append_with_comma(&mut head.headers, XFF, remote.to_string().as_bytes());
    }
    alone
}

/// The addresses in order; `None` for what is no address.
fn parse_forwarded(value: &[u8]) -> Vec<Option<IpAddr>> {
    value
        .split(|byte| *byte == b',')
        .map(|part| std::str::from_utf8(part.trim_ascii()).ok()?.parse().ok())
        .collect()
}

fn set_forwarded_proto(head: &mut RequestHead, config: &HttpConnectionManager, secure: bool) {
    const XFP: &str = "x-forwarded-proto";
    let ours: &[u8] = if secure { b"https" } else { b"http" };
    let trust_none = config.use_remote_address && config.xff_num_trusted_hops == 0;
    if trust_none || !head.headers.contains(XFP) {
        head.headers.set(XFP, ours);
    }
    head.scheme = match head.headers.get(XFP) {
        Some(value) if value.eq_ignore_ascii_case(b"https") => Scheme::Https,
        _ => Scheme::Http,
    };
    match config.scheme_overwrite.as_deref() {
        Some("https") => head.scheme = Scheme::Https,
        Some(_) => head.scheme = Scheme::Http,
        None => {}
    }
}

fn request_id(
    head: &mut RequestHead,
    info: &mut StreamInfo,
    config: &HttpConnectionManager,
    edge: bool,
    random: &mut dyn FnMut() -> u64,
) {
    const NAME: &str = "x-request-id";
    if config.generate_request_id {
        let forced = edge && !config.preserve_external_request_id;
        if forced || !head.headers.contains(NAME) {
            let id = uuid(random(), random());
            head.headers.set(NAME, &id);
        }
    }
    info.request_id = head.headers.get_str(NAME).map(str::to_owned);
}

/// A version 4 UUID in text.
fn uuid(high: u64, low: u64) -> [u8; 36] {
    let mut bytes = [0u8; 16];
    bytes[..8].copy_from_slice(&high.to_be_bytes());
    bytes[8..].copy_from_slice(&low.to_be_bytes());
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = b"0123456789abcdef"[usize::from(byte >> 4)];
        text[at + 1] = b"0123456789abcdef"[usize::from(byte & 15)];
        at += 2;
    }
    text
}

/// Appends to the value with a comma, as Envoy does for lists.
pub fn append_with_comma(headers: &mut Headers, name: &str, value: &[u8]) {
    match headers.joined(name) {
        None => headers.append(name, value),
        Some(present) => {
            let joined = [&present, &b","[..], value].concat();
            headers.set(name, &joined);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_have_their_version_and_shape() {
        let id = uuid(u64::MAX, 0);
        assert_eq!(
            std::str::from_utf8(&id).unwrap(),
            "ffffffff-ffff-4fff-8000-000000000000"
        );
    }

    #[test]
    fn finds_ports() {
        for (authority, want) in [
            ("a:80", Some(1)),
            ("a", None),
            ("[::1]:80", Some(5)),
            ("[::1]", None),
            ("::1", None),
            ("a:x", None),
        ] {
            assert_eq!(port_separator(authority.as_bytes()), want, "{authority}");
        }
    }
}
