//! Lines as Envoy writes them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::*;
use crate::stream_info::{Connection, ResponseFlags, TlsPeer};

fn stream() -> StreamInfo {
    let local = ([127, 0, 0, 1], 80).into();
    let mut connection = Connection::plain(7, local, ([10, 0, 0, 2], 40_000).into());
    connection.tls = Some(Arc::new(TlsPeer {
        verified: true,
        uri_sans: vec!["spiffe://a".into(), "spiffe://b".into()],
        ..TlsPeer::default()
    }));
    let protocol = Some(crate::http::request::Protocol::Http11);
    let mut stream = StreamInfo::new(Rc::new(connection), protocol);
    stream.start = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    stream.response_code = Some(503);
    stream.response_flags = ResponseFlags::NO_HEALTHY_UPSTREAM;
    stream.response_code_details = Some("no_healthy_upstream".into());
    stream.durations.total = Some(Duration::from_micros(12_900));
    stream.bytes.sent = 19;
    stream.upstream.cluster = Some("outbound|80||a".into());
    stream
}

fn line(format: &str) -> Result<String, String> {
    let stream = stream();
    let mut request = RequestHead::new("GET", "a:80", "/p?q=1");
    request.headers.append("User-Agent", b"curl/8");
    let response = ResponseHead::new(503);
    let input = Input {
        stream: &stream,
        request: Some(&request),
        response: Some(&response),
        trailers: None,
    };
    let format = Format::parse(format)?;
    Ok(String::from_utf8_lossy(&format.render(&input)).into_owned())
}

#[test]
fn operators() {
    for (format, want) in [
        ("plain", "plain"),
        ("100%%", "100%"),
        ("%START_TIME%", "2023-11-14T22:13:20.123Z"),
        ("%START_TIME(%Y/%m/%d)%", "2023/11/14"),
        (
            "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%",
            "GET /p?q=1 HTTP/1.1",
        ),
        ("%REQ(user-agent):4%", "curl"),
        ("%REQ(missing)%", "-"),
        ("%REQ_WITHOUT_QUERY(:PATH)%", "/p"),
        (
            "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%",
            "503 UH NoHealthyUpstream",
        ),
        ("%RESPONSE_CODE_DETAILS%", "no_healthy_upstream"),
        ("%BYTES_RECEIVED% %BYTES_SENT% %DURATION%", "0 19 12"),
        ("%UPSTREAM_HOST% %UPSTREAM_CLUSTER_RAW%", "- outbound|80||a"),
        (
            "%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_PORT%",
            "10.0.0.2:40000 80",
        ),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "10.0.0.2"),
        ("%DOWNSTREAM_PEER_URI_SAN%", "spiffe://a,spiffe://b"),
        ("%DOWNSTREAM_PEER_SUBJECT%", "-"),
        ("%DYNAMIC_METADATA(a:b)%", "-"),
        ("%FILTER_STATE(x:PLAIN)%", "-"),
        ("%CONNECTION_ID%", "7"),
        ("%GRPC_STATUS%", "-"),
        ("%GRPC_STATUS(NUMBER)%", "-"),
        ("%ACCESS_LOG_TYPE%", "DownstreamEnd"),
        ("%COMMON_DURATION(DS_RX_BEG:US_TX_BEG)%", "-"),
    ] {
        assert_eq!(line(format).as_deref(), Ok(want), "{format}");
    }
}

#[test]
fn refuses_what_envoy_refuses() {
    for format in [
        "%",
        "%NOPE%",
        "%REQ%",
        "%REQ()%",
        "%REQ(a?b?c)%",
        "%PROTOCOL(x)%",
        "%REQ(a):x%",
        "%REQ(a",
        "100%",
        "%COMMON_DURATION(A:B)%",
        "%METADATA(NOPE:a)%",
    ] {
        assert!(line(format).is_err(), "{format} must be refused");
    }
}

#[test]
fn json_lines() {
    let fields = serde_json::json!({
        "z": "%RESPONSE_CODE%", "a": "%REQ(X-MISSING)%", "m": "x-%REQ(X-MISSING)%-%RESPONSE_CODE%",
        "b": {"y": "%DURATION%"}, "l": ["%PROTOCOL%", 1], "n": 5, "t": true,
        "len": "%REQ(USER-AGENT):3%", "q": "\"%REQ(:PATH)%\"",
    });
    let fields: prost_types::Struct =
        envoy_api::json::from_json::<envoy_api::core::Metadata>(serde_json::json!({
            "filterMetadata": {"f": fields}
        }))
        .expect("struct")
        .filter_metadata
        .remove("f")
        .expect("fields");
    let stream = stream();
    let mut request = RequestHead::new("GET", "a:80", "/p?q=1");
    request.headers.append("user-agent", b"curl/8");
    let input = Input {
        stream: &stream,
        request: Some(&request),
        response: None,
        trailers: None,
    };
    for (omit, want) in [
        (
            false,
            "{\"a\":null,\"b\":{\"y\":12},\"l\":[\"HTTP/1.1\",1],\"len\":\"cur\",\
             \"m\":\"x---503\",\"n\":5,\"q\":\"\\\"/p?q=1\\\"\",\"t\":true,\"z\":503}\n",
        ),
        (
            true,
            "{\"b\":{\"y\":12},\"l\":[\"HTTP/1.1\",1],\"len\":\"cur\",\"m\":\"x--503\",\"n\":5,\
             \"q\":\"\\\"/p?q=1\\\"\",\"t\":true,\"z\":503}\n",
        ),
    ] {
        let format = JsonFormat::parse(&fields, omit).expect("parses");
        let mut out = Vec::new();
        format.write(&input, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), want, "omit {omit}");
    }
}

#[test]
fn filters() {
    use envoy_api::accesslog::{AccessLogFilter, access_log_filter::FilterSpecifier as F};
    use envoy_api::accesslog::{ComparisonFilter, OrFilter, ResponseFlagFilter, StatusCodeFilter};
    let stream = stream();
    let input = Input {
        stream: &stream,
        request: None,
        response: None,
        trailers: None,
    };
    let of = |specifier| AccessLogFilter {
        filter_specifier: Some(specifier),
    };
    let status = |op, value| {
        of(F::StatusCodeFilter(StatusCodeFilter {
            comparison: Some(ComparisonFilter {
                op,
                value: Some(core::RuntimeUInt32 {
                    default_value: value,
                    runtime_key: "k".into(),
                }),
            }),
        }))
    };
    let flags = |names: &[&str]| {
        let flags = names.iter().map(|name| (*name).to_owned()).collect();
        of(F::ResponseFlagFilter(ResponseFlagFilter { flags }))
    };
    for (filter, want, why) in [
        (status(0, 503), true, "equal"),
        (status(1, 504), false, "at least"),
        (status(2, 503), true, "at most"),
        (flags(&["UH"]), true, "the flag"),
        (flags(&["NR"]), false, "another flag"),
        (flags(&[]), true, "any flag"),
        (
            of(F::OrFilter(OrFilter {
                filters: vec![status(0, 200), flags(&["UH"])],
            })),
            true,
            "or",
        ),
    ] {
        let parsed = LogFilter::parse(&mut Context::new(), &filter).expect(why);
        assert_eq!(parsed.holds(&input, 0), want, "{why}");
    }
    let mut context = Context::new();
    LogFilter::parse(&mut context, &flags(&["XX"]));
    assert!(context.has_problems(), "an unknown flag");
}
