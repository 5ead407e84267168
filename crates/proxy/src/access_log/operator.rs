//! The operators of format strings and their values.
// tidy: table

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::Input;
use super::format::Token;
use super::time::TimeFormat;
use crate::parse::metadata;
use crate::stream_info::{FilterState, Peer, TlsPeer};

/// A value; how it prints depends on whether it goes into text or into JSON.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    Missing,
    Text(Cow<'a, [u8]>),
    Number(u64),
    Json(serde_json::Value),
}

impl Value<'_> {
    /// Appends the text, at most `length` bytes of it; false where there is no value.
    pub fn write(&self, length: Option<usize>, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        match self {
            Value::Missing => return false,
            Value::Text(text) => out.extend_from_slice(text),
            Value::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Value::Json(json) => match json.as_str() {
                Some(text) => out.extend_from_slice(text.as_bytes()),
                None => out.extend_from_slice(json.to_string().as_bytes()),
            },
        }
        if let Some(length) = length {
            out.truncate(start.saturating_add(length));
        }
        true
    }
}

fn text<'a>(value: impl Into<Cow<'a, str>>) -> Value<'a> {
    Value::Text(match value.into() {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    })
}

fn optional<'a>(value: Option<impl Into<Cow<'a, str>>>) -> Value<'a> {
    value.map_or(Value::Missing, text)
}

fn non_empty(value: &str) -> Value<'_> {
    if value.is_empty() {
        Value::Missing
    } else {
        text(value)
    }
}

fn number(value: Option<impl Into<u64>>) -> Value<'static> {
    value.map_or(Value::Missing, |value| Value::Number(value.into()))
}

fn millis(value: Option<Duration>) -> Value<'static> {
    value.map_or(Value::Missing, |value| {
        Value::Number(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    })
}

/// Which part of an address is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressPart {
    Whole,
    WithoutPort,
    Port,
}

fn address(value: Option<SocketAddr>, part: AddressPart) -> Value<'static> {
    let Some(value) = value else {
        return Value::Missing;
    };
    match part {
        AddressPart::Whole => text(value.to_string()),
        AddressPart::WithoutPort => text(value.ip().to_string()),
        AddressPart::Port => Value::Number(value.port().into()),
    }
}

/// A header with its fallback: `REQ(A?B)`.
#[derive(Debug, Clone)]
pub struct HeaderName {
    main: Box<str>,
    other: Option<Box<str>>,
}

/// A point of a stream's life: `COMMON_DURATION` and the durations of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    Start,
    DownstreamReceivedLast,
    UpstreamSentFirst,
    UpstreamSentLast,
    UpstreamReceivedFirst,
    UpstreamReceivedLast,
    DownstreamSentFirst,
    DownstreamSentLast,
}

#[derive(Debug, Clone)]
pub enum Operator {
    StartTime(TimeFormat),
    Request(HeaderName),
    RequestWithoutQuery(HeaderName),
    Response(HeaderName),
    Trailer(HeaderName),
    Metadata {
        source: MetadataSource,
        namespace: Box<str>,
        path: Vec<Box<str>>,
    },
    FilterState {
        name: Box<str>,
        field: Option<Box<str>>,
    },
    Between {
        from: Point,
        to: Point,
        unit: Unit,
    },
    Certificate {
        upstream: bool,
        kind: CertificatePart,
    },
    Validity {
        upstream: bool,
        end: bool,
        format: TimeFormat,
    },
    Environment(Option<Box<str>>),
    Plain(Plain),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataSource {
    Dynamic,
    Cluster,
    Route,
    Host,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificatePart {
    PeerUriSan,
    PeerDnsSan,
    LocalUriSan,
    LocalDnsSan,
    PeerSubject,
    LocalSubject,
    PeerIssuer,
    PeerSerial,
    PeerFingerprint256,
    PeerCertificate,
    TlsVersion,
    TlsCipher,
    Alpn,
}

/// Operators without an argument.
macro_rules! plain_operators {
    ($($name:literal $variant:ident: |$input:ident| $value:expr;)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Plain { $($variant,)* }

        impl Plain {
            fn named(name: &str) -> Option<Plain> {
                match name { $($name => Some(Plain::$variant),)* _ => None }
            }

            fn evaluate<'a>(self, input: &Input<'a>) -> Value<'a> {
                match self { $(Plain::$variant => { let $input = input; $value })* }
            }
        }
    };
}

use AddressPart::{Port, Whole, WithoutPort};

plain_operators! {
    "PROTOCOL" Protocol: |i| optional(i.stream.protocol.map(|one| one.as_str()));
    "UPSTREAM_PROTOCOL" UpstreamProtocol:
        |i| optional(i.stream.upstream.protocol.map(|one| one.as_str()));
    "RESPONSE_CODE" ResponseCode:
        |i| Value::Number(i.stream.response_code.unwrap_or(0).into());
    "RESPONSE_CODE_DETAILS" ResponseCodeDetails:
        |i| optional(i.stream.response_code_details.as_deref());
    "CONNECTION_TERMINATION_DETAILS" TerminationDetails:
        |i| optional(i.stream.connection_termination_details.as_deref());
    "RESPONSE_FLAGS" Flags: |i| text(i.stream.response_flags.short());
    "RESPONSE_FLAGS_LONG" FlagsLong: |i| text(i.stream.response_flags.long());
    "BYTES_RECEIVED" BytesReceived: |i| Value::Number(i.stream.bytes.received);
    "BYTES_SENT" BytesSent: |i| Value::Number(i.stream.bytes.sent);
    "UPSTREAM_WIRE_BYTES_RECEIVED" UpstreamBytesReceived:
        |i| Value::Number(i.stream.bytes.upstream_received);
    "UPSTREAM_WIRE_BYTES_SENT" UpstreamBytesSent:
        |i| Value::Number(i.stream.bytes.upstream_sent);
    "DOWNSTREAM_WIRE_BYTES_RECEIVED" DownstreamWireReceived:
        |i| Value::Number(i.stream.bytes.received + i.stream.bytes.request_headers);
    "DOWNSTREAM_WIRE_BYTES_SENT" DownstreamWireSent:
        |i| Value::Number(i.stream.bytes.sent + i.stream.bytes.response_headers);
    "DURATION" Duration: |i| millis(i.stream.durations.total);
    "REQUEST_DURATION" RequestDuration: |i| millis(i.stream.durations.last_downstream_rx);
    "REQUEST_TX_DURATION" RequestTxDuration: |i| millis(i.stream.durations.last_upstream_tx);
    "RESPONSE_DURATION" ResponseDuration: |i| millis(i.stream.durations.first_upstream_rx);
    "RESPONSE_TX_DURATION" ResponseTxDuration: |i| {
        let times = &i.stream.durations;
        match (times.last_downstream_tx, times.first_upstream_rx) {
            (Some(end), Some(start)) => millis(Some(end.saturating_sub(start))),
            _ => Value::Missing,
        }
    };
    "ROUNDTRIP_DURATION" RoundTrip: |_i| Value::Missing;
    "UPSTREAM_HOST" UpstreamHost: |i| match (&i.stream.upstream.host, i.stream.upstream.remote) {
        (_, Some(remote)) => text(remote.to_string()),
        (Some(host), None) => text(host.address.to_string()),
        (None, None) => Value::Missing,
    };
    "UPSTREAM_HOST_NAME" UpstreamHostName: |i| match &i.stream.upstream.host {
        Some(host) if !host.hostname.is_empty() => text(host.hostname.to_string()),
        Some(host) => text(host.address.to_string()),
        None => Value::Missing,
    };
    "UPSTREAM_HOST_NAME_WITHOUT_PORT" UpstreamHostNameBare: |i| match &i.stream.upstream.host {
        Some(host) if !host.hostname.is_empty() => text(host.hostname.to_string()),
        Some(host) => address(host.address.socket(), WithoutPort),
        None => Value::Missing,
    };
    "UPSTREAM_CLUSTER" UpstreamCluster: |i| {
        let upstream = &i.stream.upstream;
        optional(upstream.cluster_stat_name.as_deref().or(upstream.cluster.as_deref()))
    };
    "UPSTREAM_CLUSTER_RAW" UpstreamClusterRaw:
        |i| optional(i.stream.upstream.cluster.as_deref());
    "UPSTREAM_LOCAL_ADDRESS" UpstreamLocal: |i| address(i.stream.upstream.local, Whole);
    "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" UpstreamLocalBare:
        |i| address(i.stream.upstream.local, WithoutPort);
    "UPSTREAM_LOCAL_PORT" UpstreamLocalPort: |i| address(i.stream.upstream.local, Port);
    "UPSTREAM_REMOTE_ADDRESS" UpstreamRemote: |i| address(i.stream.upstream.remote, Whole);
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" UpstreamRemoteBare:
        |i| address(i.stream.upstream.remote, WithoutPort);
    "UPSTREAM_REMOTE_PORT" UpstreamRemotePort: |i| address(i.stream.upstream.remote, Port);
    "UPSTREAM_TRANSPORT_FAILURE_REASON" UpstreamFailure:
        |i| optional(i.stream.upstream.transport_failure_reason.as_deref());
    "UPSTREAM_REQUEST_ATTEMPT_COUNT" Attempts:
        |i| Value::Number(i.stream.attempt_count.into());
    "UPSTREAM_CONNECTION_ID" UpstreamConnection: |i| number(i.stream.upstream.connection_id);
    "DOWNSTREAM_LOCAL_ADDRESS" Local: |i| address(Some(i.stream.downstream.local), Whole);
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" LocalBare:
        |i| address(Some(i.stream.downstream.local), WithoutPort);
    "DOWNSTREAM_LOCAL_PORT" LocalPort: |i| address(Some(i.stream.downstream.local), Port);
    "DOWNSTREAM_REMOTE_ADDRESS" Remote: |i| address(Some(i.stream.client), Whole);
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" RemoteBare:
        |i| address(Some(i.stream.client), WithoutPort);
    "DOWNSTREAM_REMOTE_PORT" RemotePort: |i| address(Some(i.stream.client), Port);
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" Direct:
        |i| address(Some(i.stream.downstream.direct_remote), Whole);
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" DirectBare:
        |i| address(Some(i.stream.downstream.direct_remote), WithoutPort);
    "DOWNSTREAM_DIRECT_REMOTE_PORT" DirectPort:
        |i| address(Some(i.stream.downstream.direct_remote), Port);
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON" DownstreamFailure: |_i| Value::Missing;
    "CONNECTION_ID" Connection: |i| Value::Number(i.stream.downstream.id);
    "REQUESTED_SERVER_NAME" ServerName:
        |i| optional(i.stream.downstream.requested_server_name.as_deref());
    "ROUTE_NAME" RouteName:
        |i| i.stream.route_name.as_deref().map_or(Value::Missing, non_empty);
    "VIRTUAL_CLUSTER_NAME" VirtualCluster: |_i| Value::Missing;
    "FILTER_CHAIN_NAME" FilterChainName: |i| non_empty(&i.stream.downstream.filter_chain_name);
    "HOSTNAME" Hostname: |_i| text(hostname());
    "REQUEST_HEADERS_BYTES" RequestHeaderBytes:
        |i| Value::Number(i.stream.bytes.request_headers);
    "RESPONSE_HEADERS_BYTES" ResponseHeaderBytes:
        |i| Value::Number(i.stream.bytes.response_headers);
    "RESPONSE_TRAILERS_BYTES" ResponseTrailerBytes:
        |i| Value::Number(i.stream.bytes.response_trailers);
    "ACCESS_LOG_TYPE" LogType: |i| text(match i.stream.protocol {
        Some(_) => "DownstreamEnd",
        None => "TcpConnectionEnd",
    });
    "STREAM_ID" StreamId: |i| optional(i.stream.request_id.as_deref());
    "TRACE_ID" TraceId: |i| trace_id(i);
    "GRPC_STATUS_NUMBER" GrpcNumber: |i| number(i.stream.grpc_status);
    "GRPC_STATUS" GrpcStatus: |i| optional(i.stream.grpc_status.map(grpc_status_name));
}

fn hostname() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "-".to_owned())
}

/// The trace id of the context that is passed on (W3C, else B3).
fn trace_id<'a>(input: &Input<'a>) -> Value<'a> {
    let Some(request) = input.request else {
        return Value::Missing;
    };
    if let Some(parent) = request.headers.get_str("traceparent") {
        return optional(parent.split('-').nth(1));
    }
    optional(request.headers.get_str("x-b3-traceid"))
}

/// gRPC's names in camel case, as Envoy logs them; a number for what has no name.
pub fn grpc_status_name(status: u32) -> Cow<'static, str> {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    match NAMES.get(status as usize) {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(status.to_string()),
    }
}

impl Operator {
    pub(super) fn parse(token: &Token<'_>) -> Result<Operator, String> {
        fn argument<'a>(token: &Token<'a>) -> Result<&'a str, String> {
            token
                .argument
                .ok_or_else(|| format!("{} requires parameters", token.name))
        }
        if token.name == "GRPC_STATUS" {
            return Ok(Operator::Plain(match token.argument.unwrap_or("") {
                "NUMBER" => Plain::GrpcNumber,
                _ => Plain::GrpcStatus,
            }));
        }
        if let Some(plain) = Plain::named(token.name) {
            if token.argument.is_some_and(|argument| !argument.is_empty()) {
                return Err(format!("{} does not take any parameters", token.name));
            }
            return Ok(Operator::Plain(plain));
        }
        Ok(match token.name {
            "START_TIME" => Operator::StartTime(TimeFormat::parse(token.argument.unwrap_or(""))),
            "REQ" => Operator::Request(HeaderName::parse(argument(token)?)?),
            "REQ_WITHOUT_QUERY" => {
                Operator::RequestWithoutQuery(HeaderName::parse(argument(token)?)?)
            }
            "RESP" => Operator::Response(HeaderName::parse(argument(token)?)?),
            "TRAILER" => Operator::Trailer(HeaderName::parse(argument(token)?)?),
            "DYNAMIC_METADATA" => metadata_of(MetadataSource::Dynamic, argument(token)?)?,
            "CLUSTER_METADATA" => metadata_of(MetadataSource::Cluster, argument(token)?)?,
            "ROUTE_METADATA" => metadata_of(MetadataSource::Route, argument(token)?)?,
            "UPSTREAM_METADATA" => metadata_of(MetadataSource::Host, argument(token)?)?,
            "METADATA" => typed_metadata(argument(token)?)?,
            "FILTER_STATE" => filter_state(argument(token)?)?,
            "COMMON_DURATION" => common_duration(argument(token)?)?,
            "ENVIRONMENT" => {
                Operator::Environment(std::env::var(argument(token)?).ok().map(Into::into))
            }
            name => certificate(name, token.argument)
                .ok_or_else(|| format!("Not supported field in StreamInfo: {name}"))?,
        })
    }

    pub(super) fn evaluate<'a>(&'a self, input: &Input<'a>) -> Value<'a> {
        match self {
            Operator::Plain(plain) => plain.evaluate(input),
            Operator::StartTime(format) => text(format.render(input.stream.start)),
            Operator::Request(name) => input
                .request
                .and_then(|head| name.find(|name| request_header(head, name)))
                .into(),
            Operator::RequestWithoutQuery(name) => {
                let value = input
                    .request
                    .and_then(|head| name.find(|name| request_header(head, name)));
                value.map(without_query).into()
            }
            Operator::Response(name) => {
                let head = input.response;
                head.and_then(|head| name.find(|name| response_header(head, name)))
                    .into()
            }
            Operator::Trailer(name) => {
                let trailers = input.trailers;
                trailers
                    .and_then(|one| name.find(|name| one.get(name).map(Cow::Borrowed)))
                    .into()
            }
            Operator::Metadata {
                source,
                namespace,
                path,
            } => metadata_value(input, *source, namespace, path),
            Operator::FilterState { name, field } => {
                filter_state_value(input, name, field.as_deref())
            }
            Operator::Between { from, to, unit } => between(input, *from, *to, *unit),
            Operator::Certificate { upstream, kind } => {
                certificate_value(tls(input, *upstream), *kind, input)
            }
            Operator::Validity {
                upstream,
                end,
                format,
            } => {
                let peer = tls(input, *upstream);
                let time = peer.and_then(|one| if *end { one.not_after } else { one.not_before });
                optional(time.map(|time: SystemTime| format.render(time)))
            }
            Operator::Environment(value) => optional(value.as_deref()),
        }
    }
}

impl<'a> From<Option<Cow<'a, [u8]>>> for Value<'a> {
    fn from(value: Option<Cow<'a, [u8]>>) -> Value<'a> {
        value.map_or(Value::Missing, Value::Text)
    }
}

impl HeaderName {
    fn parse(argument: &str) -> Result<HeaderName, String> {
        let (main, other) = match argument.split_once('?') {
            Some((_, other)) if other.contains('?') => {
                return Err(
                    "More than 1 alternative header specified in token: ".to_owned() + argument,
                );
            }
            Some((main, other)) => (main, Some(other)),
            None => (argument, None),
        };
        if argument
            .bytes()
            .any(|byte| matches!(byte, b'\0' | b'\r' | b'\n'))
        {
            return Err("header names must not hold control characters".into());
        }
        if main.is_empty() {
            return Err("header operators need a name".into());
        }
        Ok(HeaderName {
            main: main.to_ascii_lowercase().into(),
            other: other.map(|other| other.to_ascii_lowercase().into()),
        })
    }

    fn find<'a>(&self, find: impl Fn(&str) -> Option<Cow<'a, [u8]>>) -> Option<Cow<'a, [u8]>> {
        find(&self.main).or_else(|| self.other.as_ref().and_then(|other| find(other)))
    }
}

/// The first value of a header, or a pseudo header.
fn request_header<'a>(
    head: &'a crate::http::request::RequestHead,
    name: &str,
) -> Option<Cow<'a, [u8]>> {
    if name.starts_with(':') || name == "host" || name == "upgrade" {
        // What was no request has no method and no path.
        return head.header(name).filter(|value| !value.is_empty());
    }
    if name == "x-envoy-original-path"
        && let Some(path) = head.headers.get(name)
    {
        return Some(Cow::Borrowed(path));
    }
    head.headers.get(name).map(Cow::Borrowed)
}

fn response_header<'a>(
    head: &'a crate::http::request::ResponseHead,
    name: &str,
) -> Option<Cow<'a, [u8]>> {
    if name.starts_with(':') {
        return head.header(name);
    }
    head.headers.get(name).map(Cow::Borrowed)
}

fn without_query(value: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match memchr::memchr2(b'?', b'#', &value) {
        Some(at) => Cow::Owned(value[..at].to_vec()),
        None => value,
    }
}

fn metadata_of(source: MetadataSource, argument: &str) -> Result<Operator, String> {
    let mut parts = argument.split(':');
    let namespace = parts.next().filter(|one| !one.is_empty());
    let namespace = namespace.ok_or("metadata operators need a namespace")?;
    Ok(Operator::Metadata {
        source,
        namespace: namespace.into(),
        path: parts.map(Into::into).collect(),
    })
}

/// `METADATA(TYPE:NAMESPACE:KEY…)`.
fn typed_metadata(argument: &str) -> Result<Operator, String> {
    let (kind, rest) = argument
        .split_once(':')
        .ok_or("METADATA needs a type and a namespace")?;
    let source = match kind {
        "DYNAMIC" => MetadataSource::Dynamic,
        "CLUSTER" => MetadataSource::Cluster,
        "ROUTE" => MetadataSource::Route,
        "UPSTREAM_HOST" => MetadataSource::Host,
        other => return Err(format!("{other} is not supported type of METADATA")),
    };
    metadata_of(source, rest)
}

fn metadata_value<'a>(
    input: &Input<'a>,
    source: MetadataSource,
    namespace: &str,
    path: &[Box<str>],
) -> Value<'a> {
    let stream = input.stream;
    let of = |one: &'a envoy_api::core::Metadata| one.filter_metadata.get(namespace);
    let fields = match source {
        MetadataSource::Dynamic => stream.dynamic_metadata.get(namespace),
        MetadataSource::Cluster => stream.upstream.cluster_metadata.as_deref().and_then(of),
        MetadataSource::Route => stream.route_metadata.as_deref().and_then(of),
        MetadataSource::Host => stream
            .upstream
            .host
            .as_deref()
            .and_then(|host| host.metadata.as_deref())
            .and_then(of),
    };
    let Some(mut fields) = fields else {
        return Value::Missing;
    };
    let Some((last, parents)) = path.split_last() else {
        return Value::Json(metadata::struct_to_json(fields));
    };
    for key in parents {
        match fields.fields.get(&**key).and_then(metadata::as_struct) {
            Some(inner) => fields = inner,
            None => return Value::Missing,
        }
    }
    match fields.fields.get(&**last) {
        Some(value) => Value::Json(metadata::to_json(value)),
        None => Value::Missing,
    }
}

fn filter_state(argument: &str) -> Result<Operator, String> {
    let mut parts = argument.split(':');
    let name = parts.next().filter(|one| !one.is_empty());
    let name = name.ok_or("FILTER_STATE needs a name")?;
    let field = match parts.next() {
        None | Some("TYPED" | "PLAIN") => None,
        Some("FIELD") => Some(parts.next().ok_or("FILTER_STATE FIELD needs a name")?),
        Some(other) => {
            return Err(format!(
                "Invalid filter state serialize type, only support PLAIN/TYPED/FIELD: {other}"
            ));
        }
    };
    Ok(Operator::FilterState {
        name: name.into(),
        field: field.map(Into::into),
    })
}

fn filter_state_value<'a>(input: &Input<'a>, name: &str, field: Option<&str>) -> Value<'a> {
    let stream = input.stream;
    let peer = match name {
        "downstream_peer" => stream.downstream_peer.as_deref(),
        "upstream_peer" => stream.upstream_peer.as_deref(),
        _ => None,
    };
    if let Some(peer) = peer {
        return peer_value(peer, field);
    }
    match stream.filter_state.get(name) {
        None => Value::Missing,
        Some(FilterState::Text(value)) => text(value.as_str()),
        Some(FilterState::Struct(value)) => match field {
            Some(field) => value
                .fields
                .get(field)
                .map_or(Value::Missing, |one| Value::Json(metadata::to_json(one))),
            None => Value::Json(metadata::struct_to_json(value)),
        },
        Some(FilterState::Hosts(hosts)) => {
            let list: Vec<String> = hosts.iter().map(ToString::to_string).collect();
            text(list.join(","))
        }
    }
}

/// A peer's field, or all of them.
fn peer_value<'a>(peer: &'a Peer, field: Option<&str>) -> Value<'a> {
    let fields = [
        ("namespace", &peer.namespace),
        ("cluster", &peer.cluster),
        ("service", &peer.service),
        ("revision", &peer.revision),
        ("app", &peer.app),
        ("version", &peer.version),
        ("workload", &peer.workload),
        ("name", &peer.name),
        ("identity", &peer.identity),
        ("region", &peer.region),
        ("availability_zone", &peer.availability_zone),
    ];
    match field {
        Some(field) => {
            let found = fields.iter().find(|(name, _)| *name == field);
            found.map_or(Value::Missing, |(_, value)| non_empty(value))
        }
        None => {
            let set = fields.iter().filter(|(_, value)| !value.is_empty());
            let map = set.map(|(name, value)| ((*name).to_owned(), value.as_str().into()));
            Value::Json(serde_json::Value::Object(map.collect()))
        }
    }
}

fn common_duration(argument: &str) -> Result<Operator, String> {
    let mut parts = argument.split(':');
    let mut point = || -> Result<Point, String> {
        Ok(match parts.next().unwrap_or_default() {
            "DS_RX_BEG" => Point::Start,
            "DS_RX_END" => Point::DownstreamReceivedLast,
            "US_TX_BEG" => Point::UpstreamSentFirst,
            "US_TX_END" => Point::UpstreamSentLast,
            "US_RX_BEG" => Point::UpstreamReceivedFirst,
            "US_RX_END" => Point::UpstreamReceivedLast,
            "DS_TX_BEG" => Point::DownstreamSentFirst,
            "DS_TX_END" => Point::DownstreamSentLast,
            other => return Err(format!("Invalid common duration time point: {other}")),
        })
    };
    let (from, to) = (point()?, point()?);
    let unit = match parts.next() {
        None | Some("ms") => Unit::Milliseconds,
        Some("us") => Unit::Microseconds,
        Some("ns") => Unit::Nanoseconds,
        Some(other) => return Err(format!("Invalid common duration precision: {other}")),
    };
    Ok(Operator::Between { from, to, unit })
}

fn between<'a>(input: &Input<'a>, from: Point, to: Point, unit: Unit) -> Value<'a> {
    let times = &input.stream.durations;
    let at = |point: Point| match point {
        Point::Start => Some(Duration::ZERO),
        Point::DownstreamReceivedLast => times.last_downstream_rx,
        Point::UpstreamSentFirst => times.first_upstream_tx,
        Point::UpstreamSentLast => times.last_upstream_tx,
        Point::UpstreamReceivedFirst => times.first_upstream_rx,
        Point::UpstreamReceivedLast => times.last_upstream_rx,
        Point::DownstreamSentFirst => times.first_downstream_tx,
        Point::DownstreamSentLast => times.last_downstream_tx,
    };
    let (Some(from), Some(to)) = (at(from), at(to)) else {
        return Value::Missing;
    };
    let Some(span) = to.checked_sub(from) else {
        return Value::Missing;
    };
    let count = match unit {
        Unit::Milliseconds => span.as_millis(),
        Unit::Microseconds => span.as_micros(),
        Unit::Nanoseconds => span.as_nanos(),
    };
    Value::Number(u64::try_from(count).unwrap_or(u64::MAX))
}

fn certificate(name: &str, argument: Option<&str>) -> Option<Operator> {
    use CertificatePart as P;
    let (upstream, rest) = match name.split_once('_')? {
        ("DOWNSTREAM", rest) => (false, rest),
        ("UPSTREAM", rest) => (true, rest),
        _ => return None,
    };
    let time = || {
        TimeFormat::parse(
            argument
                .filter(|one| !one.is_empty())
                .unwrap_or("%b %e %H:%M:%S %Y GMT"),
        )
    };
    let kind = match rest {
        "PEER_CERT_V_START" => {
            return Some(Operator::Validity {
                upstream,
                end: false,
                format: time(),
            });
        }
        "PEER_CERT_V_END" => {
            return Some(Operator::Validity {
                upstream,
                end: true,
                format: time(),
            });
        }
        "PEER_URI_SAN" => P::PeerUriSan,
        "PEER_DNS_SAN" => P::PeerDnsSan,
        "LOCAL_URI_SAN" => P::LocalUriSan,
        "LOCAL_DNS_SAN" => P::LocalDnsSan,
        "PEER_SUBJECT" => P::PeerSubject,
        "LOCAL_SUBJECT" => P::LocalSubject,
        "PEER_ISSUER" => P::PeerIssuer,
        "PEER_SERIAL" => P::PeerSerial,
        "PEER_FINGERPRINT_256" => P::PeerFingerprint256,
        "PEER_CERT" => P::PeerCertificate,
        "TLS_VERSION" => P::TlsVersion,
        "TLS_CIPHER" => P::TlsCipher,
        "ALPN" if !upstream => P::Alpn,
        _ => return None,
    };
    Some(Operator::Certificate { upstream, kind })
}

fn tls<'a>(input: &Input<'a>, upstream: bool) -> Option<&'a TlsPeer> {
    if upstream {
        input.stream.upstream.tls.as_deref()
    } else {
        input.stream.downstream.tls.as_deref()
    }
}

fn certificate_value<'a>(
    peer: Option<&'a TlsPeer>,
    kind: CertificatePart,
    _input: &Input<'a>,
) -> Value<'a> {
    use CertificatePart as P;
    let Some(peer) = peer else {
        return Value::Missing;
    };
    let list = |names: &[String]| {
        if names.is_empty() {
            Value::Missing
        } else {
            text(names.join(","))
        }
    };
    match kind {
        P::PeerUriSan => list(&peer.uri_sans),
        P::PeerDnsSan => list(&peer.dns_sans),
        P::LocalUriSan => list(&peer.local_uri_sans),
        P::LocalDnsSan => list(&peer.local_dns_sans),
        P::PeerSubject => non_empty(&peer.subject),
        P::LocalSubject => non_empty(&peer.local_subject),
        P::PeerIssuer => non_empty(&peer.issuer),
        P::PeerSerial => non_empty(&peer.serial),
        P::PeerFingerprint256 => non_empty(&peer.fingerprint_sha256),
        P::PeerCertificate => Value::Missing,
        P::TlsVersion => non_empty(peer.version),
        P::TlsCipher => non_empty(peer.cipher),
        P::Alpn => peer.alpn.as_deref().map(Cow::Borrowed).into(),
    }
}
