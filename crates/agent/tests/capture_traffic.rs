//! What the kernel does with connections once the rules are in: whom they reach, in both tools,
//! with the proxy exempt by user and by mark.
#![allow(clippy::unwrap_used)]

#[path = "toy/namespace.rs"]
mod namespace;

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use agent::capture::{apply, flags};
use namespace::{HERE, Peer, THERE, in_namespace};
use socket2::{Domain, Protocol, Socket, Type};

/// Nobody has this address; the default route leads to the peer.
const VIRTUAL_IP: [u8; 4] = [10, 96, 0, 10];
const MARK: u32 = 77;
const LIMIT: Duration = Duration::from_secs(5);

/// Says its name to everyone who connects, until the process ends.
fn speak(address: ([u8; 4], u16), name: &'static str) {
    let listener = TcpListener::bind(SocketAddr::from(address)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            use std::io::Write;
            let _ = stream.unwrap().write_all(name.as_bytes());
        }
    });
}

/// The same over UDP.
fn speak_udp(address: ([u8; 4], u16), name: &'static str) {
    let socket = UdpSocket::bind(SocketAddr::from(address)).unwrap();
    // The agent's answers are told from others by the proxy's mark (or user).
    socket2::SockRef::from(&socket).set_mark(MARK).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, client)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(name.as_bytes(), client);
        }
    });
}

/// Connected, so that only an answer from the asked address counts.
fn ask_udp(address: ([u8; 4], u16), mark: Option<u32>) -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    if let Some(mark) = mark {
        socket2::SockRef::from(&socket).set_mark(mark).unwrap();
    }
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.connect(SocketAddr::from(address)).unwrap();
    socket.send(b"?").unwrap();
    let mut buffer = [0; 64];
    match socket.recv(&mut buffer) {
        Ok(length) => String::from_utf8_lossy(&buffer[..length]).into_owned(),
        Err(error) => error.kind().to_string(),
    }
}

/// The name of who answers.
fn reach(address: ([u8; 4], u16), mark: Option<u32>, source: Option<Ipv4Addr>) -> String {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    if let Some(mark) = mark {
        socket.set_mark(mark).unwrap();
    }
    if let Some(source) = source {
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    }
    if let Err(error) = socket.connect_timeout(&SocketAddr::from(address).into(), LIMIT) {
        return error.kind().to_string();
    }
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut name = String::new();
    stream.read_to_string(&mut name).unwrap();
    name
}

fn capture(arguments: &[&str]) {
    let common = [
        "-i",
        "*",
        "-x",
        "10.99.0.0/16",
        "-b",
        "*",
        "-d",
        "9999",
        "--redirect-dns",
        "--dns-servers",
        "10.77.0.2",
    ];
    let all: Vec<String> = common
        .iter()
        .chain(arguments)
        .map(|text| text.to_string())
        .collect();
    apply::run(&flags::parse(&all, |_| None, "").unwrap()).unwrap();
}

fn from_here(is_proxy: bool, mark: Option<u32>) {
    let passthrough = Some(Ipv4Addr::new(127, 0, 0, 6));
    for (address, source, want, why) in [
        (
            (THERE, 80),
            None,
            if is_proxy { "peer" } else { "outbound" },
            "another pod",
        ),
        (
            (HERE, 9080),
            None,
            if is_proxy { "inbound" } else { "application" },
            "the pod itself: the proxy's call comes in again, the application's is direct",
        ),
        (([127, 0, 0, 1], 9080), None, "application", "loopback"),
        (
            (HERE, 9080),
            passthrough,
            "application",
            "the proxy to its application",
        ),
    ] {
        let got = reach(address, mark, source);
        assert_eq!(got, want, "proxy {is_proxy}, mark {mark:?}: {why}");
    }
}

fn scenario(tool: &[&str]) {
    let peer = Peer::start();
    for (address, name) in [
        (([0, 0, 0, 0], 15001), "outbound"),
        (([0, 0, 0, 0], 15006), "inbound"),
        (([0, 0, 0, 0], 9080), "application"),
        (([0, 0, 0, 0], 9999), "excluded"),
    ] {
        speak(address, name);
    }
    peer.run(|| speak((THERE, 80), "peer"));
    // As the agent: an answer must come from the address to which redirection leads.
    speak_udp(([127, 0, 0, 1], 15053), "agent");
    peer.run(|| speak_udp((THERE, 53), "resolver"));
    // This process is root: it is the application, or the proxy by its user or its mark.
    let rounds: [(&[&str], bool, Option<u32>); 4] = [
        (&["-u", "1337", "-g", "1337"], false, None),
        (&["-u", "0", "-g", "4242"], true, None),
        (&["--proxy-mark", "77"], false, None),
        (&["--proxy-mark", "77"], true, Some(MARK)),
    ];
    for (exempt, is_proxy, mark) in rounds {
        capture(&[tool, exempt].concat());
        from_here(is_proxy, mark);
        if !is_proxy {
            assert_eq!(
                reach((VIRTUAL_IP, 9080), mark, None),
                "outbound",
                "a virtual IP"
            );
        }
        // As the application with rules by user this test would need an agent of another user.
        if is_proxy || exempt[0] == "--proxy-mark" {
            let resolver = if is_proxy { "resolver" } else { "agent" };
            assert_eq!(
                ask_udp((THERE, 53), mark),
                resolver,
                "DNS, proxy {is_proxy}"
            );
        }
        let from_there = |port| peer.run(|| reach((HERE, port), None, None));
        assert_eq!(
            from_there(9080),
            "inbound",
            "{tool:?} {exempt:?}: from another pod"
        );
        assert_eq!(
            from_there(12345),
            "inbound",
            "{tool:?} {exempt:?}: an unknown port"
        );
        assert_eq!(
            from_there(9999),
            "excluded",
            "{tool:?} {exempt:?}: an excluded port"
        );
        capture(&[tool, exempt, &["--cleanup-only"]].concat());
        assert_eq!(
            reach((THERE, 80), None, None),
            "peer",
            "{tool:?}: after the cleanup"
        );
    }
}

#[test]
fn nftables_traffic() {
    if in_namespace("nftables_traffic") {
        scenario(&["--native-nftables"]);
    }
}

#[test]
fn iptables_traffic() {
    if in_namespace("iptables_traffic") {
        scenario(&[]);
    }
}
