//! The TCP proxy: one downstream connection to one upstream connection, copied both ways with half
//! close; buffers exist only while bytes are in them.
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::time::{Instant, Sleep};

use super::transport::{Io, Transport};
use super::{Session, metadata_exchange};
use crate::cluster::Cluster;
use crate::cluster::connect::{self, ConnectOptions};
use crate::cluster::shared::Host;
use crate::parse::network_filter::NetworkFilter;
use crate::parse::tcp_proxy::TcpProxy;
use crate::stream_info::{ResponseFlags, StreamInfo};

const COPY_BUFFER: usize = 64 * 1024;

/// Proxies the connection; the record says how it went.
pub async fn run(session: &Session, config: &TcpProxy, io: &Io, info: &mut StreamInfo) {
    let name = config.clusters.pick(session.worker.random()).clone();
    info.upstream.cluster = Some(name.clone());
    let Some(cluster) = session.worker.cluster(&name) else {
        info.response_flags.insert(ResponseFlags::NO_CLUSTER_FOUND);
        return;
    };
    info.upstream.cluster_metadata = Some(cluster.config.metadata.clone());
    info.upstream.cluster_stat_name = Some(cluster.config.stat_name.clone());
    let Some(from_client) = meet_downstream(session, io, info).await else {
        return;
    };
    let Some(upstream) = connect_upstream(session, config, &cluster, info).await else {
        return;
    };
    let upstream = Io::new(upstream);
    let Some(from_server) = meet_upstream(session, &cluster, &upstream, info).await else {
        return;
    };
    let mut copies = Copies::new(io.clone(), upstream);
    copies.up.buffer = from_client;
    copies.down.buffer = from_server;
    let idle = config.idle_timeout;
    let lifetime = config.max_connection_duration;
    let ended = tokio::select! {
        ended = copies.run(idle) => ended,
        () = session.chain.drain.closed() => Ended::Drained,
        () = sleep_or_never(lifetime) => Ended::TooOld,
    };
    info.bytes.received = copies.up.moved;
    info.bytes.sent = copies.down.moved;
    info.bytes.upstream_sent = copies.up.moved;
    info.bytes.upstream_received = copies.down.moved;
    note_end(info, &ended);
}

/// Peer metadata from the client, where it was negotiated; payload that came with it is returned.
async fn meet_downstream(session: &Session, io: &Io, info: &mut StreamInfo) -> Option<BytesMut> {
    let mut rest = BytesMut::new();
    let filters = &session.chain.entry.config.filters;
    let wanted = filters
        .iter()
        .any(|one| matches!(one, NetworkFilter::MetadataExchange));
    if wanted && metadata_exchange::is_negotiated(session.connection.tls.as_deref()) {
        let node = &session.worker.settings.environment.node;
        let peer = metadata_exchange::exchange(io, node, &mut rest)
            .await
            .ok()?;
        info.downstream_peer = peer.map(|peer| Rc::new(*peer));
    }
    Some(rest)
}

/// The same with the upstream.
async fn meet_upstream(
    session: &Session,
    cluster: &Cluster,
    io: &Io,
    info: &mut StreamInfo,
) -> Option<BytesMut> {
    let mut rest = BytesMut::new();
    let negotiated = metadata_exchange::is_negotiated(info.upstream.tls.as_deref());
    if cluster.config.metadata_exchange && negotiated {
        let node = &session.worker.settings.environment.node;
        let peer = metadata_exchange::exchange(io, node, &mut rest)
            .await
            .ok()?;
        info.upstream_peer = peer.map(|peer| Rc::new(*peer));
    }
    Some(rest)
}

fn note_end(info: &mut StreamInfo, ended: &Ended) {
    match ended {
        Ended::Idle => info.connection_termination_details = Some("idle_timeout".into()),
        Ended::TooOld => {
            info.response_flags.insert(ResponseFlags::DURATION_TIMEOUT);
            info.connection_termination_details = Some("duration_timeout".into());
        }
        Ended::Drained | Ended::Finished => {}
        Ended::Failed { error, upstream } => {
            if *upstream && error.kind() == io::ErrorKind::ConnectionReset {
                info.response_flags
                    .insert(ResponseFlags::UPSTREAM_REMOTE_RESET);
            }
            tracing::debug!(%error, "TCP connection failed");
        }
    }
}

async fn sleep_or_never(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

async fn connect_upstream(
    session: &Session,
    config: &TcpProxy,
    cluster: &Rc<Cluster>,
    info: &mut StreamInfo,
) -> Option<Transport> {
    let hash = config.hash_source_ip.then(|| session.source_hash());
    for _ in 0..config.max_connect_attempts {
        let host = cluster.choose_for_tcp(&info.downstream, hash, session.worker.random());
        let Some(host) = host else {
            info.response_flags
                .insert(ResponseFlags::NO_HEALTHY_UPSTREAM);
            return None;
        };
        info.upstream.host = Some(host.clone());
        if over_limit(cluster) {
            info.response_flags.insert(ResponseFlags::UPSTREAM_OVERFLOW);
            return None;
        }
        info.attempt_count += 1;
        match connect::open(cluster, &host, &ConnectOptions::default()).await {
            Ok(opened) => {
                note_upstream(info, &opened.connection, &host);
                cluster.on_connected(&host, session.worker.random());
                session.hold(opened.connection);
                return Some(opened.transport);
            }
            Err(failure) => {
                let random = session.worker.random();
                cluster.on_connect_failure(&host, failure.timeout, random);
                // The server accepted and hung up before we had looked.
                if failure.reason.contains("Connection reset") {
                    info.response_flags
                        .insert(ResponseFlags::UPSTREAM_REMOTE_RESET);
                    return None;
                }
                info.upstream.transport_failure_reason = Some(failure.reason);
            }
        }
    }
    info.response_flags
        .insert(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
    info.response_flags
        .insert(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
    None
}

fn over_limit(cluster: &Cluster) -> bool {
    let open = cluster.block.priorities[0]
        .connections
        .load(Ordering::Relaxed);
    open >= cluster.config.circuit_breakers.default.max_connections
}

fn note_upstream(info: &mut StreamInfo, upstream: &connect::UpstreamConnection, host: &Arc<Host>) {
    info.upstream.local = upstream.local;
    info.upstream.remote = host.address.socket();
    info.upstream.tls = upstream.tls.clone();
    info.upstream.connection_id = Some(upstream.id);
    info.durations.upstream_connect = Some(upstream.connect_time);
}

/// Why copying ended.
#[derive(Debug)]
pub enum Ended {
    Finished,
    Idle,
    TooOld,
    Drained,
    /// `upstream`: while reading from the upstream or writing to it.
    Failed {
        error: io::Error,
        upstream: bool,
    },
}

/// Both directions of a tunnel.
#[derive(Debug)]
pub struct Copies {
    up: Copy,
    down: Copy,
}

impl Copies {
    pub fn new(downstream: Io, upstream: Io) -> Copies {
        Copies {
            up: Copy::new(downstream.clone(), upstream.clone()),
            down: Copy::new(upstream, downstream),
        }
    }

    /// Until both directions have ended, or nothing moved for `idle`.
    pub async fn run(&mut self, idle: Option<Duration>) -> Ended {
        let mut timer: Option<std::pin::Pin<Box<Sleep>>> =
            idle.map(|idle| Box::pin(tokio::time::sleep(idle)));
        let mut seen = 0;
        std::future::poll_fn(move |cx| {
            match self.poll(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ended::Finished),
                Poll::Ready(Err((error, upstream))) => {
                    return Poll::Ready(Ended::Failed { error, upstream });
                }
                Poll::Pending => {}
            }
            if let (Some(timer), Some(idle)) = (&mut timer, idle) {
                while timer.as_mut().poll(cx).is_ready() {
                    let moved = self.up.moved + self.down.moved;
                    if moved == seen {
                        return Poll::Ready(Ended::Idle);
                    }
                    seen = moved;
                    timer.as_mut().reset(Instant::now() + idle);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// An error says whether the upstream's side failed.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), (io::Error, bool)>> {
        let up = match self.up.poll(cx) {
            Poll::Ready(Err((error, reading))) => return Poll::Ready(Err((error, !reading))),
            other => other,
        };
        let down = match self.down.poll(cx) {
            Poll::Ready(Err((error, reading))) => return Poll::Ready(Err((error, reading))),
            other => other,
        };
        if up.is_ready() && down.is_ready() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }
}

/// One direction.
#[derive(Debug)]
struct Copy {
    from: Io,
    to: Io,
    buffer: BytesMut,
    /// Nothing is known to be waiting inside the writing side (TLS buffers).
    flushed: bool,
    ended: bool,
    closed: bool,
    moved: u64,
}

impl Copy {
    fn new(from: Io, to: Io) -> Copy {
        Copy {
            from,
            to,
            buffer: BytesMut::new(),
            flushed: true,
            ended: false,
            closed: false,
            moved: 0,
        }
    }

    /// An error says whether it came from reading.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), (io::Error, bool)>> {
        let writing = |error| (error, false);
        let reading = |error| (error, true);
        loop {
            if self.closed {
                return Poll::Ready(Ok(()));
            }
            while !self.buffer.is_empty() {
                let count = ready!(self.to.poll_write(cx, &self.buffer)).map_err(writing)?;
                if count == 0 {
                    return Poll::Ready(Err(writing(io::ErrorKind::WriteZero.into())));
                }
                self.flushed = false;
                self.moved += count as u64;
                self.buffer.advance(count);
            }
            if self.ended {
                ready!(self.to.poll_shutdown(cx)).map_err(writing)?;
                self.closed = true;
                continue;
            }
            if self.from.poll_readable(cx).map_err(reading)?.is_pending() {
                self.buffer = BytesMut::new();
                return self.flush(cx).map_err(writing);
            }
            self.buffer.reserve(COPY_BUFFER);
            match self.from.poll_read(cx, &mut self.buffer) {
                Poll::Pending => {
                    self.buffer = BytesMut::new();
                    return self.flush(cx).map_err(writing);
                }
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(reading(error))),
            }
        }
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.flushed && self.to.poll_flush(cx)?.is_ready() {
            self.flushed = true;
        }
        Poll::Pending
    }
}
