//! Mutual TLS between two proxies: identity in x-forwarded-client-cert, SAN checks, plain text
//! refused, filter chains by transport protocol, SNI passthrough.
use std::time::Duration;

use pki::{Authority, Key, SpiffeId, TrustDomain};
use serde_json::{Value, json};

use crate::harness::*;

pub struct Certificates {
    authority: Authority,
    now: jiff::Timestamp,
}

impl Certificates {
    pub fn new() -> Certificates {
        let now = jiff::Timestamp::now();
        let authority =
            Authority::create(&TrustDomain::new("cluster.local").unwrap(), now).unwrap();
        Certificates { authority, now }
    }

    /// `common_tls_context` of a workload that trusts the authority and these peers.
    pub fn context(&self, account: &str, peers: Value, alpn: Value) -> Value {
        let id: SpiffeId = format!("spiffe://cluster.local/ns/a/sa/{account}")
            .parse()
            .unwrap();
        let key = Key::generate().unwrap();
        let csr = pki::csr::create(&key, &id).unwrap();
        let ttl = Duration::from_secs(3600);
        let chain = self.authority.sign(&csr, &[id], ttl, self.now).unwrap();
        let chain = chain[..chain.len() - 1].concat();
        let matchers: Vec<Value> = peers
            .as_array()
            .unwrap()
            .iter()
            .map(|matcher| json!({"san_type": "URI", "matcher": matcher}))
            .collect();
        json!({
            "alpn_protocols": alpn,
            "tls_certificates": [{
                "certificate_chain": {"inline_string": chain},
                "private_key": {"inline_string": key.to_pem().expose()}}],
            "validation_context": {
                "trusted_ca": {"inline_string": self.authority.roots_pem()},
                "match_typed_subject_alt_names": matchers},
        })
    }
}

fn socket(side: &str, more: Value) -> Value {
    let mut config = json!({"@type":
        format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{side}")});
    merge(&mut config, more);
    json!({"name": "envoy.transport_sockets.tls", "typed_config": config})
}

fn to_up() -> Value {
    json!([{"match": {"prefix": "/"}, "route": {"cluster": "up"}}])
}

fn server(certificates: &Certificates) -> Proxy {
    let context = certificates.context(
        "server",
        json!([{"prefix": "spiffe://cluster.local/"}]),
        json!(["h2", "http/1.1"]),
    );
    let hcm = hcm(
        to_up(),
        json!({"forward_client_cert_details": "APPEND_FORWARD",
            "set_current_client_cert_details": {"subject": true, "dns": true, "uri": true}}),
    );
    let listener = json!({
        "name": "https", "address": any_port(),
        "listener_filters": [{"name": "tls", "typed_config": {
            "@type": any("filters.listener.tls_inspector.v3.TlsInspector")}}],
        "filter_chains": [{
            "filter_chain_match": {"transport_protocol": "tls"},
            "transport_socket": socket("DownstreamTlsContext", json!({
                "common_tls_context": context, "require_client_certificate": true})),
            "filters": [hcm]}],
    });
    let clusters = json!([cluster("up", echo_upstream(), json!({}))]);
    Proxy::start(json!({"listeners": [listener], "clusters": clusters}), 1)
}

fn client(certificates: &Certificates, server: &Proxy, peer: &str, more: Value) -> Proxy {
    let alpn = if more == json!({}) {
        json!(["istio", "http/1.1"])
    } else {
        json!(["h2"])
    };
    let context = certificates.context("client", json!([{"exact": peer}]), alpn);
    let mut cluster_more = json!({"transport_socket": socket("UpstreamTlsContext", json!({
        "common_tls_context": context, "sni": "server.test"}))});
    merge(&mut cluster_more, more);
    let clusters = json!([cluster("up", server.address("https"), cluster_more)]);
    let listener = http_listener(to_up(), json!({}));
    Proxy::start(json!({"listeners": [listener], "clusters": clusters}), 1)
}

const REQUEST: &[u8] = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[test]
fn identities_are_verified_and_passed_on() {
    let certificates = Certificates::new();
    let server = server(&certificates);
    let right = "spiffe://cluster.local/ns/a/sa/server";
    for (name, more) in [("http1", json!({})), ("http2", http2())] {
        let client = client(&certificates, &server, right, more);
        let answer = exchange(client.address("http"), REQUEST);
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{name}: {answer}");
        let part = "x-forwarded-client-cert: By=spiffe://cluster.local/ns/a/sa/server;Hash=";
        assert!(answer.contains(part), "{name}: {answer}");
        assert!(
            answer.contains(";URI=spiffe://cluster.local/ns/a/sa/client"),
            "{name}: {answer}"
        );
    }
    let wrong = client(
        &certificates,
        &server,
        "spiffe://cluster.local/ns/a/sa/other",
        json!({}),
    );
    let answer = exchange(wrong.address("http"), REQUEST);
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("TLS_error"),
        "{answer}"
    );
    let stranger = client(&Certificates::new(), &server, right, json!({}));
    let answer = exchange(stranger.address("http"), REQUEST);
    assert!(
        answer.starts_with("HTTP/1.1 503 "),
        "another authority: {answer}"
    );
    let plain = exchange(server.address("https"), REQUEST);
    assert_eq!(plain, "", "plain text has no filter chain");
}
