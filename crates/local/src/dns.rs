//! The node's name server: names of the mesh from a table that is replaced as a whole, other
//! names from the host's resolver if the pods can reach the outside.

mod wire;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket as StdUdpSocket};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use daemon::tasks::{self, Task, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use crate::error::LocalError;
use crate::network::DNS_ADDRESS;
use crate::node::Node;
use crate::services::{DOMAIN, Name};
use wire::{Answer, Outcome, Question};

const PORT: u16 = 53;
const FORWARD_LIMIT: Duration = Duration::from_secs(5);
/// Questions being forwarded, and TCP connections, at once.
const AT_ONCE: usize = 256;
const MOST_ALIASES: usize = 8;

type Table = Arc<RwLock<Arc<BTreeMap<String, Name>>>>;

/// The running server.
#[derive(Debug)]
pub struct NameServer {
    table: Table,
    _tasks: [Task<()>; 2],
}

impl NameServer {
    /// Listens inside the node. `upstream` answers what is not of the mesh.
    pub async fn start(node: &Node, upstream: Option<IpAddr>) -> Result<NameServer, LocalError> {
        let address = SocketAddr::from((DNS_ADDRESS, PORT));
        let (udp, tcp) = node
            .run(move || {
                let udp = StdUdpSocket::bind(address)?;
                udp.set_nonblocking(true)?;
                let tcp = std::net::TcpListener::bind(address)?;
                tcp.set_nonblocking(true)?;
                std::io::Result::Ok((udp, tcp))
            })
            .await?
            .map_err(|error| LocalError::system("listen on the node's DNS port", error))?;
        let use_socket = |error| LocalError::system("use the node's DNS socket", error);
        let udp = UdpSocket::from_std(udp).map_err(use_socket)?;
        let tcp = TcpListener::from_std(tcp).map_err(use_socket)?;
        let table = Table::default();
        let server = Arc::new(Server {
            table: Arc::clone(&table),
            upstream,
            places: Semaphore::new(AT_ONCE),
        });
        let tasks = [
            tasks::spawn("dns-udp", serve_udp(Arc::clone(&server), udp)),
            tasks::spawn("dns-tcp", serve_tcp(server, tcp)),
        ];
        Ok(NameServer {
            table,
            _tasks: tasks,
        })
    }

    pub fn set_names(&self, names: BTreeMap<String, Name>) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(names);
    }
}

struct Server {
    table: Table,
    upstream: Option<IpAddr>,
    places: Semaphore,
}

impl Server {
    async fn answer(&self, query: &[u8], limit: usize) -> Option<Vec<u8>> {
        let question = wire::question(query)?;
        let table = Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner));
        let outcome = look_up(&table, &question);
        match (outcome, self.upstream) {
            (Some(outcome), _) => Some(wire::response(query, &question, &outcome, limit)),
            (None, Some(upstream)) => {
                let _place = self.places.try_acquire().ok()?;
                Some(forward(query, upstream).await.unwrap_or_else(|| {
                    wire::response(query, &question, &Outcome::ServerFailure, limit)
                }))
            }
            (None, None) => Some(wire::response(
                query,
                &question,
                &Outcome::NoSuchName,
                limit,
            )),
        }
    }
}

/// `None`: not ours to answer.
fn look_up(table: &BTreeMap<String, Name>, question: &Question) -> Option<Outcome> {
    let mut answers = Vec::new();
    let mut name = question.name.clone();
    for _ in 0..MOST_ALIASES {
        match table.get(&name) {
            Some(Name::Addresses(addresses)) => {
                if question.wants_ipv4() {
                    let mut addresses = addresses.clone();
                    rotate(&mut addresses);
                    answers.extend(
                        addresses
                            .into_iter()
                            .map(|ip| Answer::Address(name.clone(), ip)),
                    );
                }
                return Some(Outcome::Found(answers));
            }
            Some(Name::Alias(target)) => {
                answers.push(Answer::Alias(name, target.clone()));
                name = target.clone();
            }
            None => break,
        }
    }
    if !answers.is_empty() {
        return Some(Outcome::Found(answers));
    }
    let ours = name == DOMAIN || name.ends_with(&format!(".{DOMAIN}"));
    ours.then_some(Outcome::NoSuchName)
}

/// Clients take the first address: give each a different one.
fn rotate(addresses: &mut [Ipv4Addr]) {
    if addresses.len() > 1 {
        let mut byte = [0u8; 4];
        let _ = aws_lc_rs::rand::fill(&mut byte);
        let by = u32::from_le_bytes(byte) as usize % addresses.len();
        addresses.rotate_left(by);
    }
}

async fn serve_udp(server: Arc<Server>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let answering = Tasks::new();
    let mut buffer = vec![0u8; 4096];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let query = buffer[..length].to_vec();
        let (server, socket) = (Arc::clone(&server), Arc::clone(&socket));
        answering.spawn("dns-answer", async move {
            let limit = wire::udp_limit(&query);
            if let Some(response) = server.answer(&query, limit).await {
                let _ = socket.send_to(&response, client).await;
            }
        });
    }
}

async fn serve_tcp(server: Arc<Server>, listener: TcpListener) {
    let connections = Tasks::new();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let server = Arc::clone(&server);
        connections.spawn("dns-connection", async move {
            let _place = place;
            let _ = tokio::time::timeout(FORWARD_LIMIT * 2, converse(&server, stream)).await;
        });
    }
}

async fn converse(server: &Server, mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let length = usize::from(stream.read_u16().await?);
        let mut query = vec![0u8; length];
        stream.read_exact(&mut query).await?;
        let limit = usize::from(u16::MAX);
        let Some(response) = server.answer(&query, limit).await else {
            return Ok(());
        };
        let length = u16::try_from(response.len()).unwrap_or(u16::MAX);
        stream.write_all(&length.to_be_bytes()).await?;
        stream.write_all(&response[..usize::from(length)]).await?;
    }
}

/// From the host's own network: the supervisor lives there.
async fn forward(query: &[u8], upstream: IpAddr) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.ok()?;
    socket.connect((upstream, PORT)).await.ok()?;
    socket.send(query).await.ok()?;
    let mut buffer = vec![0u8; 4096];
    let length = tokio::time::timeout(FORWARD_LIMIT, socket.recv(&mut buffer))
        .await
        .ok()?
        .ok()?;
    buffer.truncate(length);
    Some(buffer)
}

/// The host's first resolver.
pub fn host_resolver() -> Option<IpAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").ok()?;
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .find_map(|rest| rest.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_mesh_are_answered_or_denied_others_are_not_ours() {
        let table = BTreeMap::from([
            (
                "a.b.svc.cluster.local".to_owned(),
                Name::Addresses(vec![Ipv4Addr::LOCALHOST]),
            ),
            (
                "x.org".to_owned(),
                Name::Alias("a.b.svc.cluster.local".to_owned()),
            ),
        ]);
        let ask = |name: &str, kind: u16| {
            look_up(
                &table,
                &Question {
                    name: name.to_owned(),
                    kind,
                    end: 0,
                },
            )
        };
        let address = Answer::Address("a.b.svc.cluster.local".to_owned(), Ipv4Addr::LOCALHOST);
        let alias = Answer::Alias("x.org".to_owned(), "a.b.svc.cluster.local".to_owned());
        for (name, kind, want, why) in [
            (
                "a.b.svc.cluster.local",
                1,
                Some(Outcome::Found(vec![address.clone()])),
                "A",
            ),
            (
                "a.b.svc.cluster.local",
                28,
                Some(Outcome::Found(vec![])),
                "AAAA: none, but known",
            ),
            (
                "x.org",
                1,
                Some(Outcome::Found(vec![alias, address])),
                "through an alias",
            ),
            (
                "no.b.svc.cluster.local",
                1,
                Some(Outcome::NoSuchName),
                "in our zone",
            ),
            ("y.org", 1, None, "for the upstream"),
        ] {
            assert_eq!(ask(name, kind), want, "{name} {kind}: {why}");
        }
    }
}
