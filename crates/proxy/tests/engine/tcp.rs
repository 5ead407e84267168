//! The TCP proxy: bytes both ways, half close, no upstream.
use std::io::{Read, Write};
use std::net::Shutdown;

use serde_json::json;

use crate::harness::*;

fn tcp_listener(cluster_name: &str) -> serde_json::Value {
    json!({"name": "tcp", "address": any_port(), "filter_chains": [{"filters": [
        {"name": "tcp", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "tcp", "cluster": cluster_name}}]}]})
}

#[test]
fn copies_both_ways_and_closes_one_at_a_time() {
    let up = upstream(|mut stream, _| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all.reverse();
        stream.write_all(&all).unwrap();
    });
    for concurrency in [1, 4] {
        let clusters = json!([cluster("up", up, json!({}))]);
        let resources = json!({"listeners": [tcp_listener("up")], "clusters": clusters});
        let proxy = Proxy::start(resources, concurrency);
        let mut stream = connect(proxy.address("tcp"));
        let sent: Vec<u8> = (0..2_000_000u32).map(|n| n as u8).collect();
        let mut writer = stream.try_clone().unwrap();
        let (bytes, thread) = (sent.clone(), ());
        let thread = std::thread::spawn(move || {
            let () = thread;
            writer.write_all(&bytes).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        thread.join().unwrap();
        got.reverse();
        assert!(got == sent, "{} bytes came back", got.len());
    }
}

#[test]
fn no_upstream_closes_the_connection() {
    let resources = json!({"listeners": [tcp_listener("none")], "clusters": [
        {"name": "none", "load_assignment": {"cluster_name": "none"}}]});
    let proxy = Proxy::start(resources, 1);
    let mut stream = connect(proxy.address("tcp"));
    assert_eq!(stream.read(&mut [0; 8]).unwrap_or(0), 0);
}

#[test]
fn a_connection_without_a_chain_is_logged() {
    let name = format!("stolos-listener-log-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let mut listener = tcp_listener("none");
    listener["filter_chains"][0]["filter_chain_match"] = json!({"destination_port": 1});
    let format = json!({"text_format_source": {"inline_string":
        "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n"}});
    listener["access_log"] = json!([{"name": "file",
        "filter": {"response_flag_filter": {"flags": ["NR"]}},
        "typed_config": {"@type": any("access_loggers.file.v3.FileAccessLog"),
            "path": path, "log_format": format}}]);
    let resources = json!({"listeners": [listener], "clusters": [
        {"name": "none", "load_assignment": {"cluster_name": "none"}}]});
    let proxy = Proxy::start(resources, 1);
    let mut stream = connect(proxy.address("tcp"));
    assert_eq!(stream.read(&mut [0; 8]).unwrap_or(0), 0);
    // Its end writes what is still in memory.
    drop(proxy);
    let written = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(written, "NR filter_chain_not_found\n");
}

#[test]
fn a_restored_destination_finds_its_listener_and_its_host() {
    let up = upstream(|mut stream, _| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
    });
    let (other, port) = (tcp_upstream("other"), up.port());
    let proxy_protocol = json!([{"name": "pp", "typed_config": {"@type":
        "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"}}]);
    // The wildcard listener of a port that nothing binds, and the catch-all that hands over to it.
    let mut by_port = tcp_listener("original");
    by_port["name"] = json!("by-port");
    by_port["address"] = address(format!("0.0.0.0:{port}").parse().unwrap());
    by_port["bind_to_port"] = json!(false);
    let mut virtual_listener = tcp_listener("other");
    virtual_listener["name"] = json!("virtual");
    virtual_listener["use_original_dst"] = json!(true);
    virtual_listener["listener_filters"] = proxy_protocol;
    let clusters = json!([
        cluster("other", other, json!({})),
        {"name": "original", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"},
    ]);
    let listeners = json!([virtual_listener, by_port]);
    let proxy = Proxy::start(json!({"listeners": listeners, "clusters": clusters}), 1);
    for (destination, want) in [
        (format!("127.0.0.1 {port}"), "hi"),
        ("127.0.0.1 1".into(), "other"),
    ] {
        let (ip, port) = destination.split_once(' ').unwrap();
        let mut stream = connect(proxy.address("virtual"));
        stream
            .write_all(format!("PROXY TCP4 9.9.9.9 {ip} 1 {port}\r\nhi").as_bytes())
            .unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).unwrap();
        assert_eq!(got, want, "{destination}");
    }
}

fn tcp_upstream(answer: &'static str) -> std::net::SocketAddr {
    upstream(move |mut stream, _| {
        let _ = stream.read_to_end(&mut Vec::new());
        stream.write_all(answer.as_bytes()).unwrap();
    })
}
