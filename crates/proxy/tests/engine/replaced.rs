//! Filter chains replaced by chains of another transport: connections that are open drain, and
//! their next request meets the newest policy.
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use envoy_api::{ResourceType, cluster, listener};
use serde_json::{Value, json};

use crate::harness::*;
use crate::tls::Certificates;
use crate::xds::{Server, start};

/// Longer than any test: nothing closes because the drain time is over.
const DRAIN: Duration = Duration::from_secs(300);

/// Chains as `(filter_chain_match, filters, transport_socket)`.
type Chain = (Value, Vec<Value>, Value);

fn set(server: &Server, chains: Vec<Chain>) {
    let chains: Vec<Value> = chains
        .into_iter()
        .map(|(criteria, filters, transport)| {
            json!({"filter_chain_match": criteria, "filters": filters,
                "transport_socket": transport})
        })
        .collect();
    let inspector = json!({"name": "tls", "typed_config": {
        "@type": any("filters.listener.tls_inspector.v3.TlsInspector")}});
    let filters = if chains.iter().any(|one| !one["transport_socket"].is_null()) {
        json!([inspector])
    } else {
        json!([])
    };
    server.set::<listener::Listener>(
        ResourceType::Listener,
        vec![
            json!({"name": "in", "address": any_port(), "listener_filters": filters,
            "filter_chains": chains}),
        ],
    );
}

fn replace(server: &Server, chains: Vec<Chain>) {
    set(server, chains);
    server.wait_accepted(ResourceType::Listener);
}

fn served(body: &str) -> Value {
    let routes = json!([{"match": {"prefix": "/"}, "direct_response": {
        "status": 200, "body": {"inline_string": body}}}]);
    hcm(routes, json!({}))
}

fn rules() -> Value {
    json!({"action": "DENY", "policies": {"all": {
        "permissions": [{"any": true}], "principals": [{"any": true}]}}})
}

fn denied() -> Value {
    let filters = json!([
        {"name": "rbac", "typed_config": {
            "@type": any("filters.http.rbac.v3.RBAC"), "rules": rules()}},
        {"name": "router", "typed_config": {"@type": any("filters.http.router.v3.Router")}}]);
    let mut filter = served("never");
    merge(
        &mut filter["typed_config"],
        json!({"http_filters": filters}),
    );
    filter
}

fn network_denied() -> Value {
    json!({"name": "rbac", "typed_config": {
        "@type": any("filters.network.rbac.v3.RBAC"), "stat_prefix": "tcp.", "rules": rules()}})
}

fn any_transport() -> Value {
    json!({})
}

fn raw() -> Value {
    json!({"transport_protocol": "raw_buffer"})
}

fn only_tls() -> Value {
    json!({"transport_protocol": "tls"})
}

/// Runs a case against a proxy whose listener began with one plain chain.
fn with_proxy(case: impl FnOnce(&Server, SocketAddr)) {
    let server = Server::start();
    server.set::<cluster::Cluster>(ResourceType::Cluster, vec![]);
    set(
        &server,
        vec![(any_transport(), vec![served("first")], json!(null))],
    );
    let (address, drain, thread) = start(&server, DRAIN);
    case(&server, address);
    drain.start();
    thread.join().unwrap();
    server.end();
}

fn ask(stream: &mut TcpStream, end: &str) -> String {
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    read_until(stream, end)
}

#[test]
fn an_open_connection_meets_the_policy_of_the_chain_it_matches_now() {
    with_proxy(|server, address| {
        let (mut kept, mut later) = (connect(address), connect(address));
        ask(&mut kept, "first");
        ask(&mut later, "first");
        replace(server, vec![(raw(), vec![served("second")], json!(null))]);
        replace(server, vec![(raw(), vec![denied()], json!(null))]);
        let answer = ask(&mut kept, "RBAC: access denied");
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        let answer = answer.to_ascii_lowercase();
        assert!(answer.contains("connection: close"), "{answer}");
        let mut rest = String::new();
        assert_eq!(kept.read_to_string(&mut rest).unwrap(), 0, "{rest}");

        // The policy is gone again, and the listener was another one in between.
        server.set::<listener::Listener>(ResourceType::Listener, vec![]);
        server.wait_accepted(ResourceType::Listener);
        replace(server, vec![(raw(), vec![served("third")], json!(null))]);
        let answer = ask(&mut later, "third").to_ascii_lowercase();
        assert!(answer.contains("connection: close"), "{answer}");
    });
}

#[test]
fn a_connection_that_matches_no_http_chain_any_more_gets_no_answer() {
    let tcp = json!({"name": "tcp", "typed_config": {
        "@type": any("filters.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": "tcp", "cluster": "none"}});
    let closing: Vec<(&str, Vec<Chain>)> = vec![
        (
            "plain text, and only TLS is left",
            vec![(only_tls(), vec![served("tls")], json!(null))],
        ),
        (
            "the chain speaks no HTTP",
            vec![(raw(), vec![tcp], json!(null))],
        ),
        (
            "network RBAC of another transport's chain",
            vec![(raw(), vec![network_denied(), served("in")], json!(null))],
        ),
        (
            "network RBAC of the same transport's chain",
            vec![(
                any_transport(),
                vec![network_denied(), served("in")],
                json!(null),
            )],
        ),
    ];
    for (why, chains) in closing {
        with_proxy(|server, address| {
            let (mut idle, mut kept) = (connect(address), connect(address));
            ask(&mut idle, "first");
            ask(&mut kept, "first");
            replace(server, chains);
            kept.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                .unwrap();
            let mut answer = String::new();
            kept.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "", "{why}");
            idle.set_nonblocking(true).unwrap();
            let idle = idle.read(&mut [0]).unwrap_err().kind();
            assert_eq!(idle, std::io::ErrorKind::WouldBlock, "{why}: it was closed");
        });
    }
}

/// A request without a body on a stream; its path is `/`, its authority `a`.
fn headers_frame(stream: u8) -> Vec<u8> {
    let block = [0x82, 0x86, 0x84, 0x41, 1, b'a'];
    let mut frame = vec![0, 0, block.len() as u8, 1, 0x5, 0, 0, 0, stream];
    frame.extend(block);
    frame
}

/// HTTP/2 by hand: a client that has not seen GOAWAY yet still opens streams.
fn http2_connection(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address);
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .unwrap();
    stream.write_all(&headers_frame(1)).unwrap();
    read_until(&mut stream, "first");
    stream
}

#[test]
fn new_streams_meet_the_policy_too() {
    with_proxy(|server, address| {
        let mut kept = http2_connection(address);
        replace(server, vec![(raw(), vec![served("second")], json!(null))]);
        replace(server, vec![(raw(), vec![denied()], json!(null))]);
        kept.write_all(&headers_frame(3)).unwrap();
        read_until(&mut kept, "RBAC: access denied");
    });
    with_proxy(|server, address| {
        let mut kept = http2_connection(address);
        replace(server, vec![(only_tls(), vec![served("tls")], json!(null))]);
        kept.write_all(&headers_frame(3)).unwrap();
        // RST_STREAM of stream 3: REFUSED_STREAM, so the client may ask elsewhere.
        read_until(&mut kept, "\0\0\u{4}\u{3}\0\0\0\0\u{3}\0\0\0\u{7}");
    });
}

#[test]
fn strict_deleted_then_deny_reaches_mutual_tls_connections_that_are_open() {
    let certificates = Certificates::new();
    let socket = |side: &str, required: bool| {
        let peers = json!([{"prefix": "spiffe://cluster.local/"}]);
        let mut config = json!({
            "@type": any(&format!("transport_sockets.tls.v3.{side}")),
            "common_tls_context": certificates.context("a", peers, json!(["http/1.1"]))});
        if required {
            merge(&mut config, json!({"require_client_certificate": true}));
        }
        json!({"name": "tls", "typed_config": config})
    };
    let tls = socket("DownstreamTlsContext", true);
    let strict = || vec![(only_tls(), vec![served("first")], tls.clone())];
    let permissive = |filter: &dyn Fn() -> Value| {
        let by_alpn = json!({"transport_protocol": "tls", "application_protocols": ["http/1.1"]});
        vec![
            (by_alpn, vec![filter()], tls.clone()),
            (raw(), vec![filter()], json!(null)),
        ]
    };
    let server = Server::start();
    server.set::<cluster::Cluster>(ResourceType::Cluster, vec![]);
    set(&server, strict());
    let (address, drain, thread) = start(&server, DRAIN);
    let up = cluster(
        "up",
        address,
        json!({"transport_socket": socket("UpstreamTlsContext", false)}),
    );
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "up"}}]);
    // The client pools its connection: the second request is on the one of the first.
    let client = Proxy::start(
        json!({"listeners": [http_listener(routes, json!({}))], "clusters": [up]}),
        1,
    );
    let mut through = connect(client.address("http"));
    ask(&mut through, "first");
    replace(&server, permissive(&|| served("second")));
    replace(&server, permissive(&denied));
    let answer = ask(&mut through, "\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    drop(through);
    drop(client);
    drain.start();
    thread.join().unwrap();
    server.end();
}
