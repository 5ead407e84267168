//! The client's half of the protocol without IO: subscriptions, versions held for a reconnect,
//! acknowledgements. `grpc::client` drives it; what a resource means is the caller's business.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use envoy_api::ResourceType;
use envoy_api::core::Node;
use envoy_api::discovery::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_api::google::rpc::Status;

pub use crate::wire::Received;
use crate::wire::{WireError, decode_delta, decode_full};
use crate::{Interest, Mode, Service};

/// A change of one resource type, to be accepted or rejected as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The type of all resources.
    pub kind: ResourceType,
    /// What was added or changed.
    pub added: Vec<Received>,
    /// What is gone.
    pub removed: Vec<String>,
    /// The server's version of the whole, for humans.
    pub version: String,
    /// Quoted in the acknowledgement.
    pub nonce: String,
    /// The stream it came on: an acknowledgement never goes to a later one.
    pub stream: u64,
}

/// A request to be written to the stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Delta.
    Delta(DeltaDiscoveryRequest),
    /// State of the world.
    Full(DiscoveryRequest),
}

/// Why a response was not turned into an update.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The bytes are no response: the stream must be given up.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A type that was not asked for; it has been refused on the stream.
    #[error("the server sent {0}, which was not subscribed to")]
    Unasked(String),
}

/// One client of one discovery service.
#[derive(Debug)]
pub struct Client {
    node: Node,
    mode: Mode,
    service: Service,
    stream: u64,
    connected: bool,
    node_sent: bool,
    types: BTreeMap<ResourceType, TypeState>,
    acknowledgements: VecDeque<Acknowledgement>,
}

#[derive(Debug)]
struct TypeState {
    interest: Interest,
    /// What this stream has been told; `None` before the type's first request.
    announced: Option<Interest>,
    /// Accepted resources and their versions: they outlive the stream.
    held: BTreeMap<String, String>,
    /// Names in the last response (state of the world), to see what vanished.
    seen: BTreeSet<String>,
    /// Names that the server may think we ask for. State of the world: a request whose nonce came
    /// too late does not count, only acknowledgements are sure to.
    told: BTreeSet<String>,
    /// Names that were given up and are wanted again before the server was told: it still thinks
    /// that we have them, so it must be told both.
    again: BTreeSet<String>,
    /// State of the world: both have been told since the last response.
    asked_again: bool,
    /// Updates that were handed out and neither accepted nor rejected yet.
    unanswered: usize,
    /// State of the world: the version last accepted and the nonce last acknowledged.
    version: String,
    nonce: String,
}

#[derive(Debug)]
struct Acknowledgement {
    type_url: String,
    nonce: String,
    error: Option<String>,
}

impl Client {
    /// A client that announces `node` and has no subscription yet.
    pub fn new(node: Node, mode: Mode, service: Service) -> Client {
        Client {
            node,
            mode,
            service,
            stream: 0,
            connected: false,
            node_sent: false,
            types: BTreeMap::new(),
            acknowledgements: VecDeque::new(),
        }
    }

    /// The gRPC path that this client's stream is opened on.
    pub fn path(&self) -> &'static str {
        self.service.path(self.mode)
    }

    /// Replaces what is wanted of one type. Resources no longer covered are forgotten here; the
    /// server sends nothing for them.
    pub fn subscribe(&mut self, kind: ResourceType, interest: Interest) {
        let state = self.types.entry(kind).or_insert_with(|| TypeState {
            interest: Interest::Names(BTreeSet::new()),
            announced: None,
            held: BTreeMap::new(),
            seen: BTreeSet::new(),
            told: BTreeSet::new(),
            again: BTreeSet::new(),
            asked_again: false,
            unanswered: 0,
            version: String::new(),
            nonce: String::new(),
        });
        state.held.retain(|name, _| interest.covers(name));
        state.note_again(&interest);
        state.interest = interest;
    }

    /// A new stream is open: everything is announced again, with the versions held.
    pub fn connected(&mut self) {
        self.stream += 1;
        self.connected = true;
        self.node_sent = false;
        self.acknowledgements.clear();
        for state in self.types.values_mut() {
            state.announced = None;
            state.again.clear();
            state.told.clear();
            state.nonce.clear();
        }
    }

    /// The stream is gone.
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.acknowledgements.clear();
    }

    /// The next request to write, until there is none: acknowledgements first, then changed
    /// subscriptions in push order.
    pub fn next_request(&mut self) -> Option<Request> {
        if !self.connected {
            return None;
        }
        let mut request = match self.acknowledgements.pop_front() {
            Some(acknowledgement) => self.acknowledge(acknowledgement),
            None => self.announce()?,
        };
        if !self.node_sent {
            self.node_sent = true;
            match &mut request {
                Request::Delta(request) => request.node = Some(self.node.clone()),
                Request::Full(request) => request.node = Some(self.node.clone()),
            }
        }
        Some(request)
    }

    /// Reads one response of the stream. Every update must be accepted or rejected.
    pub fn received(&mut self, message: Bytes) -> Result<Update, ClientError> {
        let response = match self.mode {
            Mode::Delta => decode_delta(message)?,
            Mode::StateOfTheWorld => decode_full(message)?,
        };
        let state = ResourceType::from_type_url(&response.type_url)
            .and_then(|kind| Some((kind, self.types.get_mut(&kind)?)));
        let Some((kind, state)) = state else {
            self.acknowledgements.push_back(Acknowledgement {
                type_url: response.type_url.clone(),
                nonce: response.nonce,
                error: Some(format!("{} was not subscribed to", response.type_url)),
            });
            return Err(ClientError::Unasked(response.type_url));
        };
        let mut removed = response.removed;
        if self.mode == Mode::StateOfTheWorld && kind.is_wildcard() {
            let now: BTreeSet<String> = response
                .resources
                .iter()
                .map(|resource| resource.name.clone())
                .collect();
            let known = state.held.keys().chain(&state.seen);
            let vanished: BTreeSet<&String> = known.filter(|name| !now.contains(*name)).collect();
            removed = vanished.into_iter().cloned().collect();
            state.seen = now;
        }
        for resource in &response.resources {
            state.again.remove(&resource.name);
        }
        state.asked_again = false;
        state.unanswered += 1;
        Ok(Update {
            kind,
            added: response.resources,
            removed,
            version: response.version,
            nonce: response.nonce,
            stream: self.stream,
        })
    }

    /// The update is in force: it is held from now on, and acknowledged if its stream still lives.
    pub fn accept(&mut self, update: &Update) {
        if let Some(state) = self.types.get_mut(&update.kind) {
            for name in &update.removed {
                state.held.remove(name);
            }
            for resource in &update.added {
                if state.interest.covers(&resource.name) {
                    state
                        .held
                        .insert(resource.name.clone(), resource.version.clone());
                }
            }
            state.version.clone_from(&update.version);
        }
        self.answer(update, None);
    }

    /// The update is refused as a whole: what was held stays held.
    pub fn reject(&mut self, update: &Update, message: String) {
        self.answer(update, Some(message));
    }

    /// The versions held of one type, by name.
    pub fn held(&self, kind: ResourceType) -> Option<&BTreeMap<String, String>> {
        self.types.get(&kind).map(|state| &state.held)
    }

    fn answer(&mut self, update: &Update, error: Option<String>) {
        if let Some(state) = self.types.get_mut(&update.kind) {
            state.unanswered = state.unanswered.saturating_sub(1);
        }
        if self.connected && update.stream == self.stream {
            self.acknowledgements.push_back(Acknowledgement {
                type_url: update.kind.type_url().to_owned(),
                nonce: update.nonce.clone(),
                error,
            });
        }
    }

    fn acknowledge(&mut self, acknowledgement: Acknowledgement) -> Request {
        let Acknowledgement {
            type_url,
            nonce,
            error,
        } = acknowledgement;
        let error_detail = error.map(refusal);
        if self.mode == Mode::Delta {
            return Request::Delta(DeltaDiscoveryRequest {
                type_url,
                response_nonce: nonce,
                error_detail,
                ..Default::default()
            });
        }
        let mut request = DiscoveryRequest {
            response_nonce: nonce.clone(),
            error_detail,
            ..Default::default()
        };
        let kind = ResourceType::from_type_url(&type_url);
        if let Some(state) = kind.and_then(|kind| self.types.get_mut(&kind)) {
            state.nonce = nonce;
            // A request before may have been too late to count, so both are told again.
            let interest = state.interest.without(&state.again);
            request.resource_names = interest.full_names();
            state.told = request.resource_names.iter().cloned().collect();
            state.announced = Some(interest);
            request.version_info.clone_from(&state.version);
        }
        request.type_url = type_url;
        Request::Full(request)
    }

    fn announce(&mut self) -> Option<Request> {
        let mode = self.mode;
        self.types.iter_mut().find_map(|(kind, state)| match mode {
            Mode::Delta => state.announce_delta(*kind).map(Request::Delta),
            Mode::StateOfTheWorld => state.announce_full(*kind).map(Request::Full),
        })
    }
}

impl TypeState {
    fn note_again(&mut self, interest: &Interest) {
        let (Interest::Names(old), Interest::Names(new)) = (&self.interest, interest) else {
            self.again.clear();
            return;
        };
        self.again.retain(|name| new.contains(name));
        let again = new.difference(old).filter(|name| self.told.contains(*name));
        let again: Vec<String> = again.cloned().collect();
        if !again.is_empty() {
            self.asked_again = false;
            self.again.extend(again);
        }
    }

    fn announce_delta(&mut self, kind: ResourceType) -> Option<DeltaDiscoveryRequest> {
        let mut request = DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            ..Default::default()
        };
        match &self.announced {
            None if self.interest.is_nothing() => return None,
            // An update of the stream before is still being looked at: what is held, and must be
            // announced now, is known when it is answered.
            None if self.unanswered > 0 => return None,
            None => {
                // The old spelling of the wildcard, no name at all, is understood by every server.
                request.resource_names_subscribe = self.interest.full_names();
                request.initial_resource_versions = self.held.clone();
            }
            Some(announced) if *announced == self.interest && self.again.is_empty() => return None,
            Some(announced) => {
                let (old, new) = (announced.delta_names(), self.interest.delta_names());
                // A name that is subscribed to is answered, whatever the server thinks we have.
                let mut names = std::mem::take(&mut self.again);
                names.extend(new.difference(&old).cloned());
                request.resource_names_subscribe = names.into_iter().collect();
                request.resource_names_unsubscribe = old.difference(&new).cloned().collect();
            }
        }
        self.told = self.interest.full_names().into_iter().collect();
        self.announced = Some(self.interest.clone());
        Some(request)
    }

    fn announce_full(&mut self, kind: ResourceType) -> Option<DiscoveryRequest> {
        let is_new = self.announced.is_none();
        let is_told = self.announced.as_ref() == Some(&self.interest);
        let give_up = is_told && !self.again.is_empty() && !self.asked_again;
        if is_new && self.interest.is_nothing() || is_told && !give_up {
            return None;
        }
        let interest = match give_up {
            true => self.interest.without(&self.again),
            false => self.interest.clone(),
        };
        self.asked_again = !give_up;
        let resource_names = interest.full_names();
        self.told.extend(resource_names.iter().cloned());
        self.announced = Some(interest);
        Some(DiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            version_info: self.version.clone(),
            response_nonce: self.nonce.clone(),
            resource_names,
            ..Default::default()
        })
    }
}

fn refusal(message: String) -> Status {
    const INVALID_ARGUMENT: i32 = 3;
    Status {
        code: INVALID_ARGUMENT,
        message,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
