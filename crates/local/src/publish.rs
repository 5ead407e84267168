//! Published ports: a listener on 127.0.0.1 of the host whose connections go on inside the
//! node's network namespace.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};

use daemon::tasks::{self, Task};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::node::Node;

/// Relayed connections at once, per port.
const CONNECTIONS: usize = 4096;
/// A privileged port P is published at P + 8000.
const PRIVILEGED_SHIFT: u16 = 8000;
const FIRST_UNPRIVILEGED: u16 = 1024;
/// How many ports after a taken one are tried.
const NEXT_TRIED: u16 = 100;

/// A port of a service: `istio-ingressgateway:8080` is in namespace istio-system or default.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortKey {
    pub service: String,
    pub namespace: Option<String>,
    pub port: u16,
}

/// Reads `SERVICE[.NAMESPACE]:PORT`.
pub fn parse_key(text: &str) -> Option<PortKey> {
    let (host, port) = text.rsplit_once(':')?;
    let (service, namespace) = match host.split_once('.') {
        Some((service, namespace)) => (service, Some(namespace.to_owned())),
        None => (host, None),
    };
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (!service.is_empty()).then(|| PortKey {
        service: service.to_owned(),
        namespace,
        port,
    })
}

/// Where the connections of a published port go; changes without closing the port.
pub type Targets = Arc<Mutex<Vec<SocketAddrV4>>>;

/// One published port. Dropping it closes the listener and its connections.
#[derive(Debug)]
pub struct Published {
    pub host_port: u16,
    targets: Targets,
    _accepting: Task<()>,
}

impl Published {
    /// Listens at `wanted` (exactly), at any port (`Some(0)`), or where the rule says.
    pub async fn open(node: &Node, port: u16, wanted: Option<u16>) -> io::Result<Published> {
        let listener = match wanted {
            Some(exact) => bind(exact).await?,
            None => bind_near(port).await?,
        };
        let host_port = listener.local_addr()?.port();
        let targets = Targets::default();
        let accepting = accept_all(listener, node.clone(), Arc::clone(&targets));
        let accepting = tasks::spawn(format!("published-port-{host_port}"), accepting);
        Ok(Published {
            host_port,
            targets,
            _accepting: accepting,
        })
    }

    pub fn set_targets(&self, targets: Vec<SocketAddrV4>) {
        *self.targets.lock().unwrap_or_else(PoisonError::into_inner) = targets;
    }
}

/// All published ports, by what they publish.
pub type PublishedPorts = BTreeMap<PortKey, Published>;

async fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await
}

/// P, or P + 8000 where P is privileged, or the next free one.
async fn bind_near(port: u16) -> io::Result<TcpListener> {
    let first = if port < FIRST_UNPRIVILEGED {
        port + PRIVILEGED_SHIFT
    } else {
        port
    };
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for candidate in (0..NEXT_TRIED).filter_map(|step| first.checked_add(step)) {
        match bind(candidate).await {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn accept_all(listener: TcpListener, node: Node, targets: Targets) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = tasks::Tasks::new();
    let mut turn = 0usize;
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::warn!(%error, "published port: accept failed");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let target = {
            let targets = targets.lock().unwrap_or_else(PoisonError::into_inner);
            (!targets.is_empty()).then(|| targets[turn % targets.len()])
        };
        turn = turn.wrapping_add(1);
        let Some(target) = target else { continue }; // nobody serves: the connection is closed
        let node = node.clone();
        connections.spawn("published-connection", async move {
            let _place = place;
            relay(client, &node, target).await;
        });
    }
}

async fn relay(mut client: TcpStream, node: &Node, target: SocketAddrV4) {
    let Ok(mut server) = node.connect(SocketAddr::V4(target)).await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    // Either side's end is passed on by the copy; an error closes both.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        for (text, want, why) in [
            ("a:80", Some(("a", None, 80)), "service and port"),
            ("a.b:80", Some(("a", Some("b"), 80)), "with a namespace"),
            ("a", None, "no port"),
            ("a:0", None, "no port 0"),
            (":80", None, "no service"),
            ("a:x", None, "not a number"),
        ] {
            let want = want.map(|(service, namespace, port)| PortKey {
                service: service.to_owned(),
                namespace: namespace.map(str::to_owned),
                port,
            });
            assert_eq!(parse_key(text), want, "{text}: {why}");
        }
    }

    #[tokio::test]
    async fn a_taken_port_moves_to_the_next() {
        let taken = bind(0).await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let other = bind_near(port).await.unwrap();
        assert_ne!(other.local_addr().unwrap().port(), port);
    }
}
