//! Selection, rewriting and redirects over whole tables.

use std::rc::Rc;

use serde_json::json;

use super::*;
use crate::http::request::ResponseHead;
use crate::parse::Environment;
use crate::stream_info::Connection;

fn table(value: serde_json::Value) -> RouteTable {
    let message = envoy_api::json::from_json(value).expect("a message");
    route_table(&message, &Environment::default()).expect("parses")
}

fn refused(value: serde_json::Value) -> String {
    let message = envoy_api::json::from_json(value).expect("a message");
    route_table(&message, &Environment::default())
        .expect_err("must be refused")
        .to_string()
}

fn stream() -> StreamInfo {
    let any = ([127, 0, 0, 1], 1).into();
    StreamInfo::new(Rc::new(Connection::plain(1, any, any)), None)
}

fn one_host(routes: serde_json::Value) -> serde_json::Value {
    json!({"name": "t", "virtualHosts": [{"name": "v", "domains": ["*"], "routes": routes}]})
}

fn select(table: &RouteTable, head: &RequestHead, random: u64) -> Option<Selected> {
    match table.select(head, &stream(), random) {
        Selection::Route(selected) => Some(selected),
        _ => None,
    }
}

#[test]
fn criteria_match() {
    let criteria = [
        (json!({"prefix": "/a"}), "/ab", true),
        (json!({"prefix": "/A", "caseSensitive": false}), "/ab", true),
        (json!({"prefix": "/A"}), "/ab", false),
        (json!({"path": "/a"}), "/a?q", true),
        (json!({"path": "/a"}), "/a/", false),
        (json!({"path": "/A", "caseSensitive": false}), "/a", true),
        (json!({"safeRegex": {"regex": "/[a-c]+"}}), "/abc?x", true),
        (json!({"safeRegex": {"regex": "/[a-c]+"}}), "/abcd", false),
        (json!({"pathSeparatedPrefix": "/a"}), "/a", true),
        (json!({"pathSeparatedPrefix": "/a"}), "/a/b", true),
        (json!({"pathSeparatedPrefix": "/a"}), "/ab", false),
        (
            json!({"prefix": "/", "queryParameters": [
                {"name": "q", "stringMatch": {"exact": "1"}}]}),
            "/?p&q=1",
            true,
        ),
        (
            json!({"prefix": "/", "queryParameters": [{"name": "q", "presentMatch": true}]}),
            "/?p",
            false,
        ),
        (
            json!({"prefix": "/", "headers": [{"name": "x-user", "presentMatch": true}]}),
            "/",
            true,
        ),
        (
            json!({"prefix": "/", "headers": [{"name": "x-user", "invertMatch": true,
            "stringMatch": {"exact": "jason"}}]}),
            "/",
            false,
        ),
        (json!({"prefix": "/", "grpc": {}}), "/", false),
    ];
    for (criteria, path, want) in criteria {
        let table = table(one_host(
            json!([{"match": criteria, "route": {"cluster": "c"}}]),
        ));
        let mut head = RequestHead::new("GET", "h", path);
        head.headers.append("x-user", b"jason");
        assert_eq!(
            select(&table, &head, 0).is_some(),
            want,
            "{criteria} {path}"
        );
    }
}

#[test]
fn long_lists_keep_their_order() {
    let mut routes: Vec<serde_json::Value> = (0..40)
        .map(|at| {
            json!({"name": format!("r{at}"), "match": {"path": format!("/{at}")},
            "route": {"cluster": "c"}})
        })
        .collect();
    routes.insert(
        20,
        json!({"name": "prefix", "match": {"prefix": "/3"},
        "route": {"cluster": "c"}}),
    );
    let table = table(one_host(json!(routes)));
    for (path, want) in [
        ("/3", "r3"),
        ("/30", "prefix"),
        ("/25", "r25"),
        ("/39", "prefix"),
    ] {
        let selected = select(&table, &RequestHead::new("GET", "h", path), 0);
        assert_eq!(&*selected.expect(path).route.name, want, "{path}");
    }
}

#[test]
fn weights_and_fractions() {
    let table = table(one_host(json!([
        {"match": {"prefix": "/f", "runtimeFraction": {"defaultValue": {"numerator": 10}}},
         "route": {"cluster": "few"}},
        {"match": {"prefix": "/"}, "route": {"weightedClusters": {"clusters": [
            {"name": "a", "weight": 20}, {"name": "b", "weight": 80}]}}},
    ])));
    let mut counts = std::collections::BTreeMap::new();
    for random in 0..1000 {
        let selected = select(&table, &RequestHead::new("GET", "h", "/"), random).expect("a route");
        *counts
            .entry(selected.cluster.expect("a cluster").to_string())
            .or_insert(0) += 1;
    }
    assert_eq!(
        counts,
        [("a".to_owned(), 200), ("b".to_owned(), 800)].into()
    );
    let few = (0..1000)
        .filter(|random| {
            let selected = select(&table, &RequestHead::new("GET", "h", "/f"), *random);
            selected.is_some_and(|one| one.cluster.as_deref() == Some("few"))
        })
        .count();
    assert_eq!(few, 100, "a tenth");
}

#[test]
fn rewrites_and_edits() {
    let add = |name: &str, value: &str| json!({"header": {"key": name, "value": value}});
    let table = table(json!({
        "name": "t",
        "requestHeadersToAdd": [add("x-l", "table")],
        "virtualHosts": [{
            "name": "v", "domains": ["*"],
            "requestHeadersToAdd": [add("x-l", "host")],
            "responseHeadersToRemove": ["x-secret"],
            "routes": [
                {"match": {"pathSeparatedPrefix": "/rw"},
                 "requestHeadersToAdd": [add("x-l", "route"), add("x-none", "%REQ(none)%")],
                 "route": {"cluster": "c", "prefixRewrite": "/x",
                    "hostRewriteLiteral": "other", "appendXForwardedHost": true}},
                {"match": {"prefix": "/re"}, "route": {"cluster": "c", "regexRewrite":
                    {"pattern": {"regex": "^/re/(.*)$"}, "substitution": "/\\1/re"}}},
            ],
        }],
    }));
    let mut head = RequestHead::new("GET", "h:80", "/rw/a?q=1");
    let selected = select(&table, &head, 0).expect("a route");
    selected.finalize_request(&mut head, &stream(), true);
    assert_eq!(
        (&head.path[..], &head.authority[..]),
        (&b"/x/a?q=1"[..], &b"other"[..])
    );
    let levels: Vec<&[u8]> = head.headers.get_all("x-l").collect();
    assert_eq!(
        levels,
        [&b"route"[..], b"host", b"table"],
        "the most specific level first"
    );
    assert!(
        !head.headers.contains("x-none"),
        "a missing value adds nothing"
    );
    for (name, want) in [
        ("x-envoy-original-path", "/rw/a?q=1"),
        ("x-envoy-original-host", "h:80"),
        ("x-forwarded-host", "h:80"),
    ] {
        assert_eq!(head.headers.get(name), Some(want.as_bytes()), "{name}");
    }
    let mut response = ResponseHead::new(200);
    response.headers.append("x-secret", b"1");
    selected.finalize_response(&mut response, &head, &stream());
    assert!(!response.headers.contains("x-secret"), "removed");
    let mut head = RequestHead::new("GET", "h", "/re/abc?q");
    select(&table, &head, 0)
        .expect("a route")
        .finalize_request(&mut head, &stream(), false);
    assert_eq!(&head.path[..], b"/abc/re?q", "only the path is rewritten");
    assert!(
        !head.headers.contains("x-envoy-original-path"),
        "suppressed"
    );
}

#[test]
fn redirects() {
    for (redirect, path, want) in [
        (
            json!({"portRedirect": 8443, "httpsRedirect": true}),
            "/r?a=1",
            "https://foo.com:8443/r?a=1",
        ),
        (
            json!({"prefixRewrite": "/new"}),
            "/r/x?q=1",
            "http://foo.com:29902/new/x?q=1",
        ),
        (
            json!({"pathRedirect": "/w", "hostRedirect": "h.com", "stripQuery": true}),
            "/r?b=2",
            "http://h.com/w",
        ),
        (
            json!({"pathRedirect": "/w?c=3"}),
            "/r?b=2",
            "http://foo.com:29902/w?c=3",
        ),
        (
            json!({"schemeRedirect": "https"}),
            "/r",
            "https://foo.com:29902/r",
        ),
    ] {
        let table = table(one_host(
            json!([{"match": {"prefix": "/r"}, "redirect": redirect}]),
        ));
        let head = RequestHead::new("GET", "foo.com:29902", path);
        let selected = select(&table, &head, 0).expect("a route");
        let Action::Redirect(action) = &selected.route.action else {
            panic!("a redirect")
        };
        let location = action.location(&head, &selected.route.criteria);
        assert_eq!(String::from_utf8_lossy(&location), want, "{redirect}");
    }
}

#[test]
fn tls_is_required() {
    let table = table(
        json!({"name": "t", "virtualHosts": [{"name": "v", "domains": ["*"],
        "requireTls": "ALL", "routes": []}]}),
    );
    let mut head = RequestHead::new("GET", "h", "/p");
    match table.select(&head, &stream(), 0) {
        Selection::TlsRequired { location } => assert_eq!(location, b"https://h/p"),
        other => panic!("{other:?}"),
    }
    head.headers.set("x-forwarded-proto", b"https");
    assert!(
        matches!(table.select(&head, &stream(), 0), Selection::NoRoute(_)),
        "over TLS"
    );
}

#[test]
fn timeouts_of_requests() {
    let of = |route: serde_json::Value, headers: &[(&str, &str)]| {
        let table = table(one_host(
            json!([{"match": {"prefix": "/"}, "route": route}]),
        ));
        let mut head = RequestHead::new("POST", "h", "/");
        for (name, value) in headers {
            head.headers.append(name, value.as_bytes());
        }
        let selected = select(&table, &head, 0).expect("a route");
        selected
            .timeouts(&mut head)
            .global
            .map(|limit| limit.as_millis())
    };
    let grpc = [("content-type", "application/grpc"), ("grpc-timeout", "3S")];
    for (route, headers, want, why) in [
        (
            json!({"cluster": "c"}),
            &[][..],
            Some(15_000),
            "Envoy's default",
        ),
        (
            json!({"cluster": "c", "timeout": "0s"}),
            &[],
            None,
            "no limit",
        ),
        (
            json!({"cluster": "c", "timeout": "5s"}),
            &grpc,
            Some(5_000),
            "gRPC's header is not asked",
        ),
        (
            json!({"cluster": "c", "timeout": "5s", "maxGrpcTimeout": "0s"}),
            &grpc,
            Some(3_000),
            "as the client says",
        ),
        (
            json!({"cluster": "c", "maxGrpcTimeout": "1s"}),
            &grpc,
            Some(1_000),
            "capped",
        ),
        (
            json!({"cluster": "c"}),
            &[("x-envoy-upstream-rq-timeout-ms", "70")],
            Some(70),
            "header",
        ),
    ] {
        assert_eq!(of(route.clone(), headers), want, "{why}");
    }
}

#[test]
fn refusals_name_the_field() {
    let route = |value: serde_json::Value| one_host(json!([value]));
    for (value, part) in [
        (
            json!({"name": "t", "virtualHosts": [
            {"name": "a", "domains": ["x"]}, {"name": "b", "domains": ["X"]}]}),
            "Duplicate entry of domain X",
        ),
        (
            json!({"name": "t", "virtualHosts": [{"name": "a"}]}),
            "virtual_hosts[0].domains",
        ),
        (
            route(json!({"match": {"safeRegex": {"regex": "("}}, "route": {"cluster": "c"}})),
            "virtual_hosts[0].routes[0].match.safe_regex.regex: invalid regex '('",
        ),
        (
            route(json!({"match": {"prefix": "/"}})),
            "routes[0].action: is required",
        ),
        (
            route(
                json!({"match": {"prefix": "/"}, "route": {"weightedClusters": {"clusters": [
            {"name": "a", "weight": 0}]}}}),
            ),
            "Sum of weights",
        ),
        (
            route(json!({"match": {"prefix": "/"}, "route": {"cluster": "c",
            "internalRedirectPolicy": {}}})),
            "internal_redirect_policy: is not supported",
        ),
        (
            route(json!({"match": {"prefix": "/"}, "directResponse": {"status": 99}})),
            "direct_response.status",
        ),
        (
            route(json!({"match": {"prefix": "/"}, "requestHeadersToAdd": [
            {"header": {"key": "x", "value": "%NOPE%"}}], "route": {"cluster": "c"}})),
            "request_headers_to_add[0].header.value",
        ),
        (
            route(json!({"match": {"prefix": "/"}, "route": {"cluster": "c",
            "requestMirrorPolicies": [{}]}})),
            "request_mirror_policies[0]",
        ),
    ] {
        let error = refused(value);
        assert!(error.contains(part), "{error} without {part}");
        assert!(error.starts_with("route configuration 't': "), "{error}");
    }
}
