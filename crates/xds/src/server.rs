//! The server's half of the protocol without IO, one `Stream` per client stream: what to send
//! when, in which order (make before break), and what the client has acknowledged.
//!
//! The driver feeds requests and generations in, asks `next_response` until it is `None`, writes
//! what it gets, and asks again after each input and at `deadline`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use envoy_api::discovery::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_api::{Resource, ResourceType};

use crate::Mode;
use crate::wire::{Outgoing, encode_delta, encode_full, is_eds_cluster, route_names};

mod type_state;
mod unresolved;

pub use type_state::Rejection;
use type_state::{Acknowledged, TypeState};
use unresolved::Unresolved;

/// How long a later type waits for the acknowledgement of an earlier one, routes for the
/// endpoints of new clusters, and removals for the routes: a silent client must not stall itself.
pub const ORDER_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a stream takes its resources from: always the newest generation.
pub trait Source {
    /// The number of what `generate` would give now.
    fn generation(&self) -> u64;

    /// The client's resources of a type: all, or those of the names that exist.
    fn generate(&mut self, kind: ResourceType, names: Option<&BTreeSet<String>>) -> Vec<Resource>;
}

/// How much of a type a change may concern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Any resource of it.
    All,
    /// These names at most.
    Names(BTreeSet<String>),
}

/// A response to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// The type of all resources.
    pub kind: ResourceType,
    /// Delta: what changed; state of the world: the set.
    pub resources: Vec<Resource>,
    /// Removed names (delta only).
    pub removed: Vec<String>,
    /// Delta: the generation, for humans; state of the world: a hash over the set.
    pub version: String,
    /// Unique on this stream.
    pub nonce: String,
    mode: Mode,
}

impl Response {
    /// The encoded message as shared chunks.
    pub fn encode(&self) -> Vec<Bytes> {
        let outgoing = Outgoing {
            kind: self.kind,
            version: &self.version,
            nonce: &self.nonce,
            resources: &self.resources,
            removed: &self.removed,
        };
        match self.mode {
            Mode::Delta => encode_delta(&outgoing),
            Mode::StateOfTheWorld => encode_full(&outgoing),
        }
    }
}

/// What a request meant, for logs and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// A type's first request on this stream.
    Opened(ResourceType),
    /// A changed subscription, or nothing new.
    Subscribed(ResourceType),
    /// A response is in force.
    Acknowledged(ResourceType),
    /// A response was refused; the text is the client's.
    Rejected(ResourceType, String),
    /// A nonce that is not the last one sent: ignored.
    Stale(ResourceType),
    /// A type that is none of ours: ignored.
    Unknown(String),
}

/// One client stream.
#[derive(Debug)]
pub struct Stream {
    mode: Mode,
    label: String,
    counter: u64,
    types: BTreeMap<ResourceType, TypeState>,
    unresolved: Unresolved,
    /// How far the client had come before something was unresolved.
    settled: u64,
}

impl Stream {
    /// A new stream; nonces begin with the label, which should be unique among streams.
    pub fn new(mode: Mode, label: impl Into<String>) -> Stream {
        Stream {
            mode,
            label: label.into(),
            counter: 0,
            types: BTreeMap::new(),
            unresolved: Unresolved::default(),
            settled: 0,
        }
    }

    /// A request of a delta stream.
    pub fn delta_request(&mut self, request: &DeltaDiscoveryRequest, now: Instant) -> Meaning {
        let Some(kind) = ResourceType::from_type_url(&request.type_url) else {
            return Meaning::Unknown(request.type_url.clone());
        };
        if self.unresolved.is_empty() {
            self.settled = self.synced();
        }
        let Some(state) = self.types.get_mut(&kind) else {
            let state = TypeState::open_delta(kind, request);
            self.types.insert(kind, state);
            self.resolve(kind, &[]);
            if kind == ResourceType::Endpoint {
                self.send_endpoints_of_unanswered_clusters();
            }
            return Meaning::Opened(kind);
        };
        state.change_names(
            &request.resource_names_subscribe,
            &request.resource_names_unsubscribe,
        );
        if request.response_nonce.is_empty() {
            return Meaning::Subscribed(kind);
        }
        let error = request
            .error_detail
            .as_ref()
            .map(|status| status.message.clone());
        let Some(acknowledged) = state.acknowledge(&request.response_nonce, error) else {
            return Meaning::Stale(kind);
        };
        self.acknowledged(kind, acknowledged, now)
    }

    /// A request of a state-of-the-world stream.
    pub fn full_request(&mut self, request: &DiscoveryRequest, now: Instant) -> Meaning {
        let Some(kind) = ResourceType::from_type_url(&request.type_url) else {
            return Meaning::Unknown(request.type_url.clone());
        };
        if self.unresolved.is_empty() {
            self.settled = self.synced();
        }
        let names: BTreeSet<String> = request.resource_names.iter().cloned().collect();
        let Some(state) = self.types.get_mut(&kind) else {
            self.types.insert(kind, TypeState::open_full(kind, names));
            return Meaning::Opened(kind);
        };
        if request.response_nonce.is_empty() {
            state.subscribe_again(names);
            return Meaning::Subscribed(kind);
        }
        if request.response_nonce != state.last_nonce {
            return Meaning::Stale(kind);
        }
        let changed = state.replace_names(names);
        let error = request
            .error_detail
            .as_ref()
            .map(|status| status.message.clone());
        match state.acknowledge(&request.response_nonce, error) {
            Some(acknowledged) => self.acknowledged(kind, acknowledged, now),
            None => {
                if !changed {
                    state.repeat();
                }
                Meaning::Subscribed(kind)
            }
        }
    }

    /// A new generation: the types that it may concern for this client. All others are up to
    /// date at once.
    pub fn changed(&mut self, generation: u64, concerned: &BTreeMap<ResourceType, Scope>) {
        for (kind, state) in &mut self.types {
            state.changed(generation, concerned.get(kind));
        }
    }

    /// The next response to write, `None` until something happens (at the latest at `deadline`).
    pub fn next_response(&mut self, source: &mut dyn Source, now: Instant) -> Option<Response> {
        self.unresolved.expire(now);
        let mut earlier_waits = false;
        for kind in ResourceType::ALL {
            let routes_wait =
                self.unresolved.has(ResourceType::Endpoint) && waits_for_endpoints(*kind);
            let Some(state) = self.types.get_mut(kind) else {
                continue;
            };
            if state.in_flight.is_none() {
                let gated = earlier_waits || routes_wait;
                if let Some(draft) = state.draft(self.mode, gated, source) {
                    return Some(self.send(*kind, draft, source.generation(), now));
                }
            }
            earlier_waits |= state.is_unsettled(now);
        }
        let quiet = !self
            .types
            .iter()
            .any(|(kind, state)| waits_for_endpoints(*kind) && state.is_unsettled(now));
        let (kind, draft) = self
            .types
            .iter_mut()
            .filter(|_| quiet)
            .find_map(|(kind, state)| Some((*kind, state.removals(self.mode, source)?)))?;
        Some(self.send(kind, draft, source.generation(), now))
    }

    /// When `next_response` should be asked again although nothing happened.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let in_flight = self
            .types
            .values()
            .filter_map(|state| state.in_flight.as_ref());
        in_flight
            .map(|in_flight| in_flight.since + ORDER_TIMEOUT)
            .chain(self.unresolved.deadlines())
            .filter(|deadline| *deadline > now)
            .min()
    }

    /// The newest generation of which the client has acknowledged everything it was sent; 0 until
    /// it has asked for listeners and clusters (or for whatever else, where it asks for neither).
    pub fn synced(&self) -> u64 {
        let has = |kind| self.types.contains_key(&kind);
        if has(ResourceType::Cluster) != has(ResourceType::Listener) {
            return 0;
        }
        let synced = self.types.values().map(TypeState::synced).min();
        let synced = synced.unwrap_or(0);
        match self.unresolved.is_empty() {
            true => synced,
            false => synced.min(self.settled),
        }
    }

    /// The newest generation sent (or found to change nothing) for a type, and acknowledged.
    pub fn progress(&self, kind: ResourceType) -> Option<(u64, u64)> {
        self.types
            .get(&kind)
            .map(|state| (state.diffed, state.synced()))
    }

    /// The types that this stream asks for.
    pub fn kinds(&self) -> impl Iterator<Item = ResourceType> {
        self.types.keys().copied()
    }

    /// The names that the client asks for; `None` before the type's first request.
    pub fn names(&self, kind: ResourceType) -> Option<&BTreeSet<String>> {
        self.types.get(&kind).map(|state| &state.names)
    }

    /// Nothing is on its way and nothing waits to be sent.
    pub fn is_idle(&self) -> bool {
        self.unresolved.is_empty() && self.types.values().all(TypeState::is_idle)
    }

    /// What the client has refused and not yet replaced.
    pub fn rejections(&self) -> impl Iterator<Item = (ResourceType, &str, &Rejection)> {
        self.types.iter().flat_map(|(kind, state)| {
            state
                .rejected
                .iter()
                .map(|(name, rejection)| (*kind, name.as_str(), rejection))
        })
    }

    fn send(
        &mut self,
        kind: ResourceType,
        draft: type_state::Draft,
        generation: u64,
        now: Instant,
    ) -> Response {
        self.counter += 1;
        let nonce = format!("{}-{}", self.label, self.counter);
        let version = match self.mode {
            Mode::Delta => generation.to_string(),
            Mode::StateOfTheWorld => type_state::version_of(&draft.resources),
        };
        if self.mode == Mode::StateOfTheWorld {
            let dependent = match kind {
                ResourceType::Cluster => Some(ResourceType::Endpoint),
                ResourceType::Listener => Some(ResourceType::Route),
                _ => None,
            };
            if let Some(state) = dependent.and_then(|kind| self.types.get_mut(&kind)) {
                state.answer_repeat = true;
            }
        }
        let removed = match self.mode {
            Mode::Delta => draft.removed.clone(),
            Mode::StateOfTheWorld => Vec::new(),
        };
        if (self.mode, kind) == (Mode::Delta, ResourceType::Cluster) {
            self.send_endpoints_again(&draft.resources);
        }
        let resources = draft.resources.clone();
        if let Some(state) = self.types.get_mut(&kind) {
            state.sent(draft, nonce.clone(), generation, now);
        }
        Response {
            kind,
            resources,
            removed,
            version,
            nonce,
            mode: self.mode,
        }
    }

    /// A client that comes back (to a control plane that was restarted, say) may be sent a cluster
    /// before it names the endpoints it holds: equal or not, they are what the cluster waits for.
    fn send_endpoints_of_unanswered_clusters(&mut self) {
        let clusters = self.types.get(&ResourceType::Cluster);
        let in_flight = clusters.and_then(|clusters| clusters.in_flight.as_ref());
        let unanswered = in_flight.map(|in_flight| in_flight.resources.clone());
        self.send_endpoints_again(&unanswered.unwrap_or_default());
    }

    /// Envoy warms a replaced cluster until its endpoints have come again; on a delta stream it
    /// does not ask for them (the name is subscribed already), and it acknowledges no CDS while
    /// a cluster warms. So the endpoints follow the cluster at once, unasked.
    fn send_endpoints_again(&mut self, clusters: &[Resource]) {
        if let Some(endpoints) = self.types.get_mut(&ResourceType::Endpoint) {
            let replaced = clusters
                .iter()
                .filter(|cluster| is_eds_cluster(&cluster.body));
            endpoints.answer_again(replaced.map(|cluster| cluster.name.as_str()));
        }
    }

    fn acknowledged(
        &mut self,
        kind: ResourceType,
        acknowledged: Acknowledged,
        now: Instant,
    ) -> Meaning {
        if let Acknowledged::Accepted {
            new,
            replaced,
            removed,
        } = &acknowledged
        {
            self.resolve(kind, removed);
            match kind {
                ResourceType::Cluster => {
                    for cluster in new.iter().filter(|cluster| is_eds_cluster(&cluster.body)) {
                        self.need(ResourceType::Endpoint, cluster.name.clone(), now);
                    }
                    self.unresolved.resolve(ResourceType::Endpoint, |name| {
                        removed.iter().any(|removed| removed == name)
                    });
                }
                ResourceType::Listener => {
                    for listener in new.iter().chain(replaced) {
                        for name in route_names(&listener.body) {
                            self.need(ResourceType::Route, name, now);
                        }
                    }
                }
                _ => {}
            }
        }
        match acknowledged {
            Acknowledged::Accepted { .. } => Meaning::Acknowledged(kind),
            Acknowledged::Rejected { message } => Meaning::Rejected(kind, message),
        }
    }

    /// Something that the client has accepted names this, which it does not have yet.
    fn need(&mut self, kind: ResourceType, name: String, now: Instant) {
        let is_held = |state: &TypeState| state.held.contains_key(&name);
        if !self.types.get(&kind).is_some_and(is_held) {
            self.unresolved.insert(kind, name, now);
        }
    }

    /// What the client has, or knows not to exist, is waited for no longer.
    fn resolve(&mut self, kind: ResourceType, removed: &[String]) {
        let state = self.types.get(&kind);
        self.unresolved.resolve(kind, |name| {
            state.is_some_and(|state| state.held.contains_key(name))
                || removed.iter().any(|removed| removed == name)
        });
    }
}

/// Listeners and routes name clusters: they come after their endpoints, and go before them.
fn waits_for_endpoints(kind: ResourceType) -> bool {
    matches!(
        kind,
        ResourceType::Listener | ResourceType::Route | ResourceType::VirtualHost
    )
}

#[cfg(test)]
mod tests;
