//! Headers that an application must copy from its request to its own calls, so that traces join
//! and routes by user work along the whole chain.

use http::{HeaderMap, HeaderName, HeaderValue};

const FORWARDED: &[&str] = &[
    "x-request-id",
    "x-ot-span-context",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "b3",
    "traceparent",
    "tracestate",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "end-user",
    "user-agent",
    "cookie",
    "authorization",
    "jwt",
];

/// The headers of `incoming` that travel on.
pub fn forwarded(incoming: &HeaderMap) -> HeaderMap {
    let mut outgoing = HeaderMap::new();
    for name in FORWARDED {
        for value in incoming.get_all(*name) {
            outgoing.append(HeaderName::from_static(name), value.clone());
        }
    }
    outgoing
}

/// As [`forwarded`]; a logged-in user replaces whatever `end-user` came with the request.
pub fn forwarded_for(incoming: &HeaderMap, user: Option<&str>) -> HeaderMap {
    let mut outgoing = forwarded(incoming);
    if let Some(value) = user.and_then(|user| HeaderValue::from_str(user).ok()) {
        outgoing.insert(HeaderName::from_static("end-user"), value);
    }
    outgoing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_and_user_headers_travel_others_do_not() {
        let mut incoming = HeaderMap::new();
        for (name, value) in [
            ("x-request-id", "1"),
            ("traceparent", "00-1"),
            ("cookie", "a=b"),
            ("end-user", "anna"),
            ("x-secret", "no"),
            ("content-length", "3"),
        ] {
            incoming.append(name, HeaderValue::from_static(value));
        }
        incoming.append("cookie", HeaderValue::from_static("c=d"));
        let outgoing = forwarded_for(&incoming, Some("jason"));
        assert_eq!(outgoing.get_all("cookie").iter().count(), 2);
        assert_eq!(outgoing["end-user"], "jason");
        assert_eq!(outgoing["traceparent"], "00-1");
        assert!(!outgoing.contains_key("x-secret") && !outgoing.contains_key("content-length"));
        assert_eq!(forwarded(&incoming)["end-user"], "anna");
    }
}
