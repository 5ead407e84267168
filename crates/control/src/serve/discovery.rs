//! One discovery stream: requests in, responses out, new generations as they come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::clock::Clock;
use daemon::drain::DrainWatch;
use envoy_api::core::Node;
use envoy_api::discovery::{DeltaDiscoveryRequest, DiscoveryRequest};
use pilot::NodeError;
use tokio::sync::Semaphore;
use xds::Mode;
use xds::grpc::server::{Call, Requests, Responses};
use xds::grpc::{Code, Status};
use xds::server::{Meaning, Response, Stream};

use super::authenticate::{Authenticator, Caller};
use super::connection::Peer;
use super::proxies::{Connected, Proxies};
use super::resources::Client;
use crate::metrics::Metrics;
use crate::pipeline::PublishedWatch;

/// A client must say who it is by then.
const FIRST_REQUEST: Duration = Duration::from_secs(30);

/// What all streams share.
pub(crate) struct Discovery {
    pub published: PublishedWatch,
    pub authenticator: Authenticator,
    pub proxies: Proxies,
    pub metrics: Metrics,
    pub clock: Clock,
    /// Translations at once: as many as there are processors.
    pub translations: Arc<Semaphore>,
    pub drain: DrainWatch,
    /// Nonces of another process must not look like ours.
    pub process: String,
}

enum Request {
    Delta(DeltaDiscoveryRequest),
    Full(DiscoveryRequest),
}

impl Request {
    async fn read(mode: Mode, requests: &mut Requests) -> Result<Option<Request>, Status> {
        Ok(match mode {
            Mode::Delta => requests.message().await?.map(Request::Delta),
            Mode::StateOfTheWorld => requests.message().await?.map(Request::Full),
        })
    }

    fn take_node(&mut self) -> Option<Node> {
        match self {
            Request::Delta(request) => request.node.take(),
            Request::Full(request) => request.node.take(),
        }
    }
}

impl Discovery {
    /// Serves one stream until either side ends it.
    pub async fn serve(&self, call: Call, mode: Mode, peer: &Peer) -> Result<(), Status> {
        let Call {
            headers,
            mut requests,
            responses,
            ..
        } = call;
        let caller = self.authenticator.caller(peer, &headers).map_err(|error| {
            tracing::info!(%error, peer = %peer.address, "discovery stream refused");
            Status::new(Code::Unauthenticated, "authentication failure")
        })?;
        let reading = Request::read(mode, &mut requests);
        let first = tokio::time::timeout(FIRST_REQUEST, reading).await;
        let first = first.map_err(|_| Status::new(Code::DeadlineExceeded, "no request came"))?;
        let Some(mut first) = first? else {
            return Ok(());
        };
        let node = first
            .take_node()
            .ok_or_else(|| node_status(&NodeError::Missing))?;
        let (mut client, connected) = self.connect(node, mode, caller, peer)?;
        let gauge = self.metrics.connected.with(&[env!("CARGO_PKG_VERSION")]);
        let _counted = Counted::new(gauge);

        let mut published = self.published.clone();
        self.request(&mut client, &first);
        loop {
            client = self.advance(client, &connected, &responses).await?;
            let deadline = client.stream.deadline(Instant::now());
            tokio::select! {
                request = Request::read(mode, &mut requests) => match request? {
                    Some(request) => self.request(&mut client, &request),
                    None => return Ok(()),
                },
                changed = published.changed() => {
                    changed.map_err(|_| Status::unavailable("shutting down"))?;
                    let newest = published.borrow_and_update().clone();
                    if let Some(newest) = newest {
                        client.adopt(newest);
                    }
                }
                () = sleep_until(deadline) => {}
                () = self.drain.started() => return Err(Status::unavailable("shutting down")),
            }
        }
    }

    fn connect(
        &self,
        node: Node,
        mode: Mode,
        caller: Caller,
        peer: &Peer,
    ) -> Result<(Client, Connected), Status> {
        let published = self.published.borrow().clone();
        let published =
            published.ok_or_else(|| Status::unavailable("the sources are not synced yet"))?;
        let label = format!("{}-{}", self.process, pki::rotation::random().to_bits());
        let stream = Stream::new(mode, label);
        let id = caller.id;
        let name = node.id.clone();
        let client = Client::new(stream, node, id, published, self.metrics.clone());
        let client = client.map_err(|error| {
            tracing::info!(%error, peer = %peer.address, node = %name, "node refused");
            node_status(&error)
        })?;
        let now = self.clock.now();
        let connected = self
            .proxies
            .connect(&client.node, &client.view, peer.address, now);
        tracing::info!(node = %name, connection = connected.number(), ?mode, "proxy connected");
        Ok((client, connected))
    }

    fn request(&self, client: &mut Client, request: &Request) {
        let now = Instant::now();
        let meaning = match request {
            Request::Delta(request) => client.stream.delta_request(request, now),
            Request::Full(request) => client.stream.full_request(request, now),
        };
        match &meaning {
            Meaning::Rejected(kind, message) => {
                let node = &client.node.id;
                tracing::warn!(%node, %kind, %message, "a proxy refused a response");
                self.metrics.rejects.with(&[kind.type_url()]).increment();
            }
            Meaning::Stale(kind) => {
                self.metrics
                    .expired_nonces
                    .with(&[kind.type_url()])
                    .increment();
            }
            Meaning::Unknown(type_url) => {
                tracing::debug!(%type_url, "a request for an unknown type");
            }
            Meaning::Opened(_) | Meaning::Subscribed(_) | Meaning::Acknowledged(_) => {}
        }
    }

    /// Writes what there is to write, and reports how far the client has come.
    async fn advance(
        &self,
        client: Client,
        connected: &Connected,
        responses: &Responses,
    ) -> Result<Client, Status> {
        let permit = self.translations.clone().acquire_owned().await;
        let computing = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let mut client = client;
            let responses = client.responses();
            (client, responses)
        });
        let (client, written) = computing.await.map_err(|error| {
            self.metrics.internal_errors.increment();
            tracing::error!(%error, "translation failed");
            Status::internal("translation failed")
        })?;
        let before = self.proxies.synced(connected);
        connected.update(&client.stream, &client.view);
        let generation = client.published.generation();
        if before < generation && client.stream.synced() == generation {
            self.metrics
                .convergence_time
                .observe(client.published.at.elapsed().as_secs_f64());
        }
        for response in written {
            self.write(&response, responses).await?;
        }
        Ok(client)
    }

    async fn write(&self, response: &Response, responses: &Responses) -> Result<(), Status> {
        let label = Metrics::type_label(response.kind);
        let message = response.encode();
        let bytes: usize = message.iter().map(bytes::Bytes::len).sum();
        self.metrics.pushes.with(&[&label]).increment();
        self.metrics
            .config_size
            .with(&[response.kind.type_url()])
            .observe(bytes as f64);
        responses.send(message).await
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn node_status(error: &NodeError) -> Status {
    match error {
        NodeError::Identity { .. } => Status::new(Code::PermissionDenied, error.to_string()),
        _ => Status::invalid_argument(error),
    }
}

/// One more while it lives.
struct Counted(daemon::metrics::Gauge);

impl Counted {
    fn new(gauge: daemon::metrics::Gauge) -> Counted {
        gauge.add(1);
        Counted(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}
