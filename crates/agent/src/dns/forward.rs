//! Passes a query on as it is, to one server after the other or to all at once.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::{read_message, write_message};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

#[derive(Clone, Debug)]
pub struct Forwarder {
    pub servers: Vec<SocketAddr>,
    pub timeout: Duration,
    /// All servers at once; the first answer counts.
    pub is_parallel: bool,
}

impl Forwarder {
    /// `own` is left out of the servers: asking oneself never ends.
    pub fn new(servers: Vec<SocketAddr>, own: SocketAddr, timeout: Duration) -> Forwarder {
        let servers = servers
            .into_iter()
            .filter(|server| *server != own)
            .collect();
        Forwarder {
            servers,
            timeout,
            is_parallel: false,
        }
    }

    /// The answer as it came, with the query's own id.
    pub async fn ask(&self, query: &[u8], transport: Transport) -> io::Result<Vec<u8>> {
        let asking = async {
            if self.is_parallel {
                self.all(query, transport).await
            } else {
                self.one_by_one(query, transport).await
            }
        };
        tokio::time::timeout(self.timeout, asking).await?
    }

    /// The time is shared, so that a dead first server leaves some to the others.
    async fn one_by_one(&self, query: &[u8], transport: Transport) -> io::Result<Vec<u8>> {
        let count = self.servers.len();
        let mut last = io::Error::other("no DNS server is configured");
        let start = (pki::rotation::random() * count as f64) as usize;
        for index in 0..count {
            let server = self.servers[(start + index) % count];
            let share = self.timeout / u32::try_from(count).unwrap_or(1);
            match tokio::time::timeout(share, exchange(server, query, transport)).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(error)) => last = error,
                Err(elapsed) => last = elapsed.into(),
            }
        }
        Err(last)
    }

    async fn all(&self, query: &[u8], transport: Transport) -> io::Result<Vec<u8>> {
        let mut asked = JoinSet::new();
        for server in self.servers.clone() {
            let query = query.to_vec();
            asked.spawn(async move { exchange(server, &query, transport).await });
        }
        let mut last = io::Error::other("no DNS server is configured");
        while let Some(answer) = asked.join_next().await {
            match answer.map_err(io::Error::other).flatten() {
                Ok(reply) => return Ok(reply),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

async fn exchange(server: SocketAddr, query: &[u8], transport: Transport) -> io::Result<Vec<u8>> {
    let Some(id) = query.get(..2) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    // An id of our own on a port of its own: answers are hard to forge.
    let mut sent = query.to_vec();
    let own = pki::key::random::<2>().map_err(io::Error::other)?;
    sent[..2].copy_from_slice(&own);
    let mut reply = match transport {
        Transport::Udp => exchange_udp(server, &sent).await?,
        Transport::Tcp => {
            let mut stream = TcpStream::connect(server).await?;
            write_message(&mut stream, &sent).await?;
            let reply = read_message(&mut stream).await?;
            reply.ok_or(io::ErrorKind::UnexpectedEof)?
        }
    };
    if !is_answer(&sent, &reply) {
        return Err(io::Error::other("the server answered another question"));
    }
    reply[..2].copy_from_slice(id);
    Ok(reply)
}

async fn exchange_udp(server: SocketAddr, sent: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    // Connected: the kernel drops what comes from elsewhere and reports a closed port.
    socket.connect(server).await?;
    socket.send(sent).await?;
    let mut buffer = vec![0; 65_535];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if is_answer(sent, &buffer[..length]) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

/// An answer has the query's id, the answer bit, and (where it repeats it) the same question.
fn is_answer(query: &[u8], reply: &[u8]) -> bool {
    const HEADER: usize = 12;
    let (Some(asked), Some(answered)) = (query.get(..HEADER), reply.get(..HEADER)) else {
        return false;
    };
    let end = question_end(query);
    asked[..2] == answered[..2]
        && answered[2] & 0x80 != 0
        && (answered[4..6] == [0, 0]
            || reply
                .get(HEADER..end)
                .is_some_and(|question| question.eq_ignore_ascii_case(&query[HEADER..end])))
}

/// Where the first question ends: a name without compression, type and class.
fn question_end(query: &[u8]) -> usize {
    let mut position = 12;
    while let Some(length) = query.get(position) {
        position += 1 + usize::from(*length);
        if *length == 0 {
            break;
        }
    }
    (position + 4).min(query.len())
}
