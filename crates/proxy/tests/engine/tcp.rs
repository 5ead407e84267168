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
