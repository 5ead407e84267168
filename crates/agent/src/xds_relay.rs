//! Serves discovery to the proxy on a unix socket and relays it to the control plane. The proxy's
//! stream outlives the control plane's: after a restart everything is announced again by the relay.

mod delta;
mod full;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use daemon::drain::DrainWatch;
use daemon::metrics::{Counter, Gauge, Registry};
use envoy_api::istio::NameTable;
use tokio::net::UnixListener;
use tokio::sync::watch;
use xds::grpc::server::{self, Limits, serve_unix};
use xds::grpc::transport::{Call, Connection};
use xds::grpc::{Code, Status};
use xds::{Mode, Service};

use crate::control_plane::{BackOff, ControlPlane, Credential};
use crate::identity::IdentityWatch;

/// Where the relay puts the name table that it takes out of the stream.
pub type NameTableSender = Arc<watch::Sender<Option<Arc<NameTable>>>>;

pub struct Relay {
    control_plane: ControlPlane,
    identity: IdentityWatch,
    /// `None`: nobody here answers DNS, the table is not asked for.
    names: Option<NameTableSender>,
    metrics: Metrics,
}

struct Metrics {
    connected: Gauge,
    connects: Counter,
    failures: Counter,
}

impl Relay {
    pub fn new(
        control_plane: ControlPlane,
        identity: IdentityWatch,
        names: Option<NameTableSender>,
        registry: &Registry,
    ) -> Relay {
        let metrics = Metrics {
            connected: registry.gauge(
                "istio_agent_xds_connected",
                "Streams open to the control plane.",
            ),
            connects: registry.counter("istio_agent_xds_connections_total", "Streams opened."),
            failures: registry.counter(
                "istio_agent_xds_connection_failures_total",
                "Streams not opened.",
            ),
        };
        Relay {
            control_plane,
            identity,
            names,
            metrics,
        }
    }

    /// Serves until the drain starts.
    pub async fn serve(self, listener: UnixListener, drain: DrainWatch) {
        let relay = Arc::new(self);
        let handler = move |call: server::Call| {
            let relay = relay.clone();
            async move { relay.stream(call).await }
        };
        let shutdown = async move { drain.started().await };
        serve_unix(listener, handler, Limits::default(), shutdown).await;
    }

    async fn stream(&self, call: server::Call) -> Result<(), Status> {
        let Some((Service::Aggregated, mode)) = Service::from_path(&call.path) else {
            return Err(Status::new(
                Code::Unimplemented,
                "only aggregated discovery is served",
            ));
        };
        let mut session = Session {
            relay: self,
            path: call.path,
            requests: call.requests,
            responses: call.responses,
            tracker: Tracker::new(mode, self.names.is_some()),
        };
        let mut back_off = BackOff::new(Duration::from_millis(50), Duration::from_secs(2));
        // The proxy speaks first: without its node there is nothing to announce.
        let Some(first) = session.requests.next().await? else {
            return Ok(());
        };
        session.tracker.request(first)?;
        loop {
            let Some(call) = session.connect(&mut back_off).await? else {
                return Ok(());
            };
            self.metrics.connects.increment();
            self.metrics.connected.add(1);
            let ended = session.pump(call, &mut back_off).await;
            self.metrics.connected.add(-1);
            match ended? {
                Ended::ProxyLeft => return Ok(()),
                Ended::Upstream {
                    reason,
                    was_answered,
                } => {
                    tracing::info!(%reason, "the control plane's stream ended; connecting again");
                    // A server that refuses at once is not asked in a busy loop.
                    if !was_answered && session.pause(back_off.delay()).await?.is_left() {
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn open(&self, path: &str) -> Result<Call, Status> {
        let issued = self.identity.borrow().clone();
        let credential = match &issued {
            Some(issued) => Credential::Certificate(&issued.identity),
            None => Credential::Token,
        };
        let target = self.control_plane.target(credential).await?;
        let mut connection = Connection::connect(&target).await?;
        connection.open(path)
    }
}

/// One stream of the proxy.
struct Session<'a> {
    relay: &'a Relay,
    path: String,
    requests: server::Requests,
    responses: server::Responses,
    tracker: Tracker,
}

enum Ended {
    ProxyLeft,
    Upstream { reason: Status, was_answered: bool },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Proxy {
    Left,
    Stays,
}

impl Proxy {
    fn is_left(self) -> bool {
        self == Proxy::Left
    }
}

impl Session<'_> {
    /// A stream to the control plane, however long it takes; `None` if the proxy left meanwhile.
    async fn connect(&mut self, back_off: &mut BackOff) -> Result<Option<Call>, Status> {
        loop {
            let opened = {
                let mut opening = std::pin::pin!(self.relay.open(&self.path));
                loop {
                    tokio::select! {
                        opened = opening.as_mut() => break opened,
                        request = self.requests.next() => match request? {
                            Some(bytes) => drop(self.tracker.request(bytes)?),
                            None => return Ok(None),
                        },
                    }
                }
            };
            let status = match opened {
                Ok(call) => return Ok(Some(call)),
                Err(status) => status,
            };
            self.relay.metrics.failures.increment();
            let pause = back_off.delay();
            tracing::warn!(%status, retry_in = ?pause, "the control plane cannot be reached");
            if self.pause(pause).await?.is_left() {
                return Ok(None);
            }
        }
    }

    /// Waits, and notes what the proxy says meanwhile.
    async fn pause(&mut self, pause: Duration) -> Result<Proxy, Status> {
        let mut waiting = std::pin::pin!(tokio::time::sleep(pause));
        loop {
            tokio::select! {
                () = waiting.as_mut() => return Ok(Proxy::Stays),
                request = self.requests.next() => match request? {
                    Some(bytes) => drop(self.tracker.request(bytes)?),
                    None => return Ok(Proxy::Left),
                },
            }
        }
    }

    /// Moves messages both ways until one side ends. An error is the proxy's.
    async fn pump(&mut self, call: Call, back_off: &mut BackOff) -> Result<Ended, Status> {
        let Call {
            requests,
            mut responses,
        } = call;
        let mut was_answered = false;
        for message in self.tracker.announce() {
            if let Err(reason) = requests.send(vec![message]).await {
                return Ok(Ended::Upstream {
                    reason,
                    was_answered,
                });
            }
        }
        loop {
            let upstream = tokio::select! {
                request = self.requests.next() => match request? {
                    None => return Ok(Ended::ProxyLeft),
                    Some(bytes) => self.tracker.request(bytes)?,
                },
                response = responses.next() => match response {
                    Ok(Some(bytes)) => {
                        was_answered = true;
                        back_off.reset();
                        self.deliver(bytes).await?
                    }
                    Ok(None) => {
                        let reason = Status::unavailable("the server ended the stream");
                        return Ok(Ended::Upstream { reason, was_answered });
                    }
                    Err(reason) => return Ok(Ended::Upstream { reason, was_answered }),
                },
            };
            if let Some(message) = upstream
                && let Err(reason) = requests.send(vec![message]).await
            {
                return Ok(Ended::Upstream {
                    reason,
                    was_answered,
                });
            }
        }
    }

    /// Gives the response to the proxy, or keeps it if it is ours; then there is an answer.
    async fn deliver(&mut self, bytes: Bytes) -> Result<Option<Bytes>, Status> {
        match self.tracker.response(bytes.clone())? {
            FromControl::Forward => {
                self.responses.send(vec![bytes]).await?;
                Ok(None)
            }
            FromControl::Names { table, answer } => {
                if let (Some(names), Some(table)) = (&self.relay.names, table) {
                    tracing::debug!(hosts = table.table.len(), "name table received");
                    names.send_replace(Some(Arc::new(table)));
                }
                Ok(Some(answer))
            }
        }
    }
}

/// What to do with a response.
#[derive(Debug, PartialEq)]
enum FromControl {
    Forward,
    /// The name table (if there is one in it) and the acknowledgement to send.
    Names {
        table: Option<NameTable>,
        answer: Bytes,
    },
}

/// What the proxy has asked for and holds, so that it can be announced again.
enum Tracker {
    Delta(delta::Tracker),
    Full(full::Tracker),
}

impl Tracker {
    fn new(mode: Mode, wants_names: bool) -> Tracker {
        match mode {
            Mode::Delta => Tracker::Delta(delta::Tracker::new(wants_names)),
            Mode::StateOfTheWorld => Tracker::Full(full::Tracker::new(wants_names)),
        }
    }

    /// Notes a request; gives what is to be sent on, if the stream is open.
    fn request(&mut self, bytes: Bytes) -> Result<Option<Bytes>, Status> {
        match self {
            Tracker::Delta(tracker) => tracker.request(bytes),
            Tracker::Full(tracker) => tracker.request(bytes),
        }
    }

    fn response(&mut self, bytes: Bytes) -> Result<FromControl, Status> {
        match self {
            Tracker::Delta(tracker) => tracker.response(bytes),
            Tracker::Full(tracker) => tracker.response(bytes),
        }
    }

    /// The first messages of a new stream.
    fn announce(&mut self) -> Vec<Bytes> {
        match self {
            Tracker::Delta(tracker) => tracker.announce(),
            Tracker::Full(tracker) => tracker.announce(),
        }
    }
}
