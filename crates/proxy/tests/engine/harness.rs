//! A proxy under test, upstreams that say what they saw, and a client of raw bytes.
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proxy::state::Notice;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(10);

pub struct Proxy {
    drain: Option<daemon::drain::Drain>,
    thread: Option<std::thread::JoinHandle<Result<(), proxy::ProxyError>>>,
    addresses: BTreeMap<String, SocketAddr>,
}

impl Proxy {
    /// Starts a proxy and waits until it is ready.
    pub fn start(resources: Value, concurrency: usize) -> Proxy {
        let bootstrap = json!({
            "node": {"id": "test", "cluster": "test"},
            "static_resources": resources,
        });
        let bootstrap = envoy_api::json::from_json(bootstrap).unwrap();
        let (sender, notices) = channel();
        let sender = Mutex::new(sender);
        let options = proxy::Options {
            concurrency: Some(concurrency),
            drain_time: Duration::from_millis(500),
            observer: Some(Arc::new(move |notice| {
                let _ = sender.lock().unwrap().send(notice);
            })),
            ..proxy::Options::default()
        };
        let (drain, watch) = daemon::drain::Drain::new();
        let thread = std::thread::spawn(move || proxy::run(bootstrap, options, watch));
        let addresses = wait_ready(&notices);
        Proxy {
            drain: Some(drain),
            thread: Some(thread),
            addresses,
        }
    }

    pub fn address(&self, listener: &str) -> SocketAddr {
        self.addresses[listener]
    }

    pub fn start_drain(&self) {
        self.drain.as_ref().unwrap().start();
    }
}

fn wait_ready(notices: &Receiver<Notice>) -> BTreeMap<String, SocketAddr> {
    let mut addresses = BTreeMap::new();
    loop {
        match notices
            .recv_timeout(PATIENCE)
            .expect("the proxy does not become ready")
        {
            Notice::Listening { name, address } => {
                addresses.insert(name.to_string(), address);
            }
            Notice::Ready => return addresses,
            Notice::Admin(_) => {}
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.drain.take().unwrap().start();
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

pub fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {
        "address": address.ip().to_string(), "port_value": address.port()}})
}

pub fn any_port() -> Value {
    address("127.0.0.1:0".parse().unwrap())
}

pub fn cluster(name: &str, upstream: SocketAddr, more: Value) -> Value {
    let mut cluster = json!({
        "name": name,
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": address(upstream)}}]}]},
    });
    merge(&mut cluster, more);
    cluster
}

/// A cluster that speaks HTTP/2 without being asked.
pub fn http2() -> Value {
    json!({"typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}}}}})
}

/// A listener `http` whose virtual host for everything has these routes.
pub fn http_listener(routes: Value, more: Value) -> Value {
    json!({"name": "http", "address": any_port(), "filter_chains": [
        {"filters": [hcm(routes, more)]}]})
}

/// The type URL of one of Envoy's extensions.
pub fn any(message: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.{message}")
}

pub fn hcm(routes: Value, more: Value) -> Value {
    let mut config = json!({
        "@type": any("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "test",
        "route_config": {"name": "r", "validate_clusters": false, "virtual_hosts": [
            {"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
    });
    merge(&mut config, more);
    json!({"name": "hcm", "typed_config": config})
}

pub fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        for (key, value) in more {
            into.insert(key, value);
        }
    }
}

/// A raw connection with patience.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends bytes and reads to the end of the connection.
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads until `end` has been seen.
pub fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut answer = Vec::new();
    let mut byte = [0u8; 1];
    while !answer.ends_with(end.as_bytes()) {
        match stream.read(&mut byte) {
            Ok(1) => answer.push(byte[0]),
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&answer)),
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// An upstream on raw TCP: `serve` gets each connection and its number.
pub fn upstream(serve: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let (serve, stream) = (serve.clone(), stream.unwrap());
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            std::thread::spawn(move || serve(stream, number));
        }
    });
    address
}

/// One request as raw text: head, then the body (by length or chunks, taken apart).
pub fn read_request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut head = Vec::new();
    let mut byte = [0u8; 1];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    };
    let mut body = Vec::new();
    if header("transfer-encoding").is_some() {
        loop {
            let size = read_until(stream, "\r\n");
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).unwrap();
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    } else if let Some(length) = header("content-length") {
        body.resize(length.parse().unwrap(), 0);
        stream.read_exact(&mut body).unwrap();
    }
    Some((head, String::from_utf8_lossy(&body).into_owned()))
}

/// An upstream that answers each request with what it saw.
pub fn echo_upstream() -> SocketAddr {
    upstream(|mut stream, number| {
        while let Some((head, body)) = read_request(&mut stream) {
            let seen = format!("#{number}\n{head}{body}");
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-Case: Kept\r\n\r\n{seen}",
                seen.len()
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    })
}
