//! The server over real sockets, with a server of ours to forward to.

use std::net::IpAddr;

use daemon::drain::Drain;
use daemon::tasks;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

use super::*;

struct Running {
    address: SocketAddr,
    _drain: Drain,
    _task: tasks::Task,
}

async fn start(zone: Option<Zone>, servers: Vec<SocketAddr>) -> Running {
    let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = sockets.address().unwrap();
    let forwarder = Forwarder::new(servers, address, Duration::from_millis(500));
    let (sender, zone) = watch::channel(zone.map(Arc::new));
    let server = Server::new(zone, forwarder, &Registry::new());
    let (drain, watch) = Drain::new();
    let task = tasks::spawn("dns", async move {
        let _sender = sender;
        server.serve(sockets, watch).await;
    });
    Running {
        address,
        _drain: drain,
        _task: task,
    }
}

fn zone(host: &str, ip: &str) -> Zone {
    let mut zone = Zone::new(Vec::new(), vec!["test".into()]);
    zone.insert(host, &[ip.parse().unwrap()]);
    zone
}

async fn ask(server: SocketAddr, name: &str, transport: Transport) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    let bytes = message.to_vec().unwrap();
    let forwarder = Forwarder {
        servers: vec![server],
        timeout: Duration::from_secs(10),
        is_parallel: true,
    };
    let reply = forwarder.ask(&bytes, transport).await.unwrap();
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!(reply.metadata.id, message.metadata.id);
    reply
}

fn first_address(message: &Message) -> Option<IpAddr> {
    message
        .answers
        .first()
        .and_then(|record| record.data.ip_addr())
}

#[tokio::test]
async fn own_names_and_others() {
    let upstream = start(Some(zone("there.test", "2.2.2.2")), Vec::new()).await;
    let mut own = Zone::new(Vec::new(), Vec::new());
    own.insert("here.test", &["1.1.1.1".parse().unwrap()]);
    // The dead server first: its share of the time passes, or the port is refused.
    let dead = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let servers = vec![dead.local_addr().unwrap(), upstream.address];
    let server = start(Some(own), servers).await;
    for transport in [Transport::Udp, Transport::Tcp] {
        for (name, want) in [("here.test.", "1.1.1.1"), ("there.test.", "2.2.2.2")] {
            let reply = ask(server.address, name, transport).await;
            assert_eq!(
                first_address(&reply),
                Some(want.parse().unwrap()),
                "{name} {transport:?}"
            );
        }
        let reply = ask(server.address, "nowhere.test.", transport).await;
        assert_eq!(
            reply.metadata.response_code,
            ResponseCode::NXDomain,
            "as the other says"
        );
    }
}

#[tokio::test]
async fn failures_are_told() {
    let dead = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let alone = start(
        Some(zone("a.x", "1.1.1.1")),
        vec![dead.local_addr().unwrap()],
    )
    .await;
    let reply = ask(alone.address, "b.x.", Transport::Udp).await;
    assert_eq!(
        reply.metadata.response_code,
        ResponseCode::ServFail,
        "no server answers"
    );
    let early = start(None, Vec::new()).await;
    let reply = ask(early.address, "a.x.", Transport::Tcp).await;
    assert_eq!(
        reply.metadata.response_code,
        ResponseCode::ServFail,
        "names not known yet"
    );
}
