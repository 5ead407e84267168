//! One resource type on one stream: subscription, what the client holds, what is in flight, what
//! it refused. `draft` decides what the next response of the type holds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use envoy_api::discovery::DeltaDiscoveryRequest;
use envoy_api::{Resource, ResourceType};

use super::{ORDER_TIMEOUT, Scope};

mod draft;

pub(super) use draft::Draft;

/// A resource that the client refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The refused version; another one is tried again.
    pub version: String,
    /// The generation that brought it.
    pub generation: u64,
    /// The client's text.
    pub message: String,
}

#[derive(Debug)]
pub(super) struct InFlight {
    pub nonce: String,
    pub generation: u64,
    pub resources: Vec<Resource>,
    pub removed: Vec<String>,
    pub since: Instant,
}

pub(super) enum Acknowledged {
    Accepted {
        /// Resources that the client did not have at all.
        new: Vec<Resource>,
        /// Resources that it had in another version.
        replaced: Vec<Resource>,
        removed: Vec<String>,
    },
    Rejected {
        message: String,
    },
}

#[derive(Debug)]
pub(super) struct Held {
    version: String,
    /// State of the world: a refused or not yet removed resource is sent as it was.
    body: Bytes,
}

#[derive(Debug, Default)]
enum Dirty {
    #[default]
    No,
    Names(BTreeSet<String>),
    All,
}

#[derive(Debug)]
pub(super) struct TypeState {
    kind: ResourceType,
    wildcard: bool,
    pub names: BTreeSet<String>,
    pub held: BTreeMap<String, Held>,
    dirty: Dirty,
    /// Asked for by name: answered even if unchanged, and whatever else waits.
    forced: BTreeSet<String>,
    /// A wildcard's first answer is sent even if it is empty.
    must_answer: bool,
    /// State of the world: answer a request that only repeats itself (a cluster was replaced and
    /// its endpoints are asked for again).
    pub answer_repeat: bool,
    pub in_flight: Option<InFlight>,
    /// Names of a refused response, to be sent one by one to find the culprit.
    suspects: VecDeque<String>,
    pub rejected: BTreeMap<String, Rejection>,
    /// Held by the client, gone here: removed when nothing refers to it any more.
    doomed: BTreeSet<String>,
    pub diffed: u64,
    clean: u64,
    pub last_nonce: String,
    keep_bodies: bool,
    /// State of the world: the set that was refused before any was accepted on this stream. What
    /// the client holds is not known then, so nothing may be left out to find the culprit.
    refused_set: Option<String>,
    is_known: bool,
}

impl TypeState {
    fn new(kind: ResourceType) -> TypeState {
        TypeState {
            kind,
            wildcard: false,
            names: BTreeSet::new(),
            held: BTreeMap::new(),
            dirty: Dirty::All,
            forced: BTreeSet::new(),
            must_answer: false,
            answer_repeat: false,
            in_flight: None,
            suspects: VecDeque::new(),
            rejected: BTreeMap::new(),
            doomed: BTreeSet::new(),
            diffed: 0,
            clean: 0,
            last_nonce: String::new(),
            keep_bodies: false,
            refused_set: None,
            is_known: true,
        }
    }

    /// The first delta request: no name (where the type allows it) or `*` is the wildcard; what
    /// the client still holds from another stream is not sent again.
    pub fn open_delta(kind: ResourceType, request: &DeltaDiscoveryRequest) -> TypeState {
        let mut state = TypeState::new(kind);
        let names = &request.resource_names_subscribe;
        state.wildcard =
            names.iter().any(|name| name == "*") || names.is_empty() && kind.is_wildcard();
        state.names = names.iter().filter(|name| *name != "*").cloned().collect();
        for (name, version) in &request.initial_resource_versions {
            if state.covers(name) {
                let held = Held {
                    version: version.clone(),
                    body: Bytes::new(),
                };
                state.held.insert(name.clone(), held);
            }
        }
        state.must_answer = state.wildcard && state.held.is_empty();
        state.forced = state
            .names
            .iter()
            .filter(|name| !state.held.contains_key(*name))
            .cloned()
            .collect();
        state
    }

    /// The first state-of-the-world request.
    pub fn open_full(kind: ResourceType, names: BTreeSet<String>) -> TypeState {
        let mut state = TypeState::new(kind);
        state.wildcard = names.is_empty() && kind.is_wildcard() || names.contains("*");
        state.must_answer = state.wildcard;
        state.keep_bodies = true;
        state.is_known = !state.wildcard;
        state.forced.clone_from(&names);
        state.names = names;
        state
    }

    /// Delta: names come and go; each one asked for is answered.
    pub fn change_names(&mut self, subscribe: &[String], unsubscribe: &[String]) {
        for name in unsubscribe {
            if name == "*" {
                self.wildcard = false;
            } else {
                self.names.remove(name);
            }
        }
        for name in subscribe {
            if name == "*" {
                self.wildcard = true;
                self.must_answer = true;
                self.dirty = Dirty::All;
            } else {
                self.names.insert(name.clone());
                self.forced.insert(name.clone());
            }
        }
        if !unsubscribe.is_empty() {
            self.forget_uncovered();
        }
    }

    /// Delta: sends these once more where the client has asked for them, changed or not.
    pub fn answer_again<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        let subscribed = names.filter(|name| self.names.contains(*name));
        self.forced.extend(subscribed.map(str::to_owned));
    }

    /// State of the world: the names that count from now on; whether they changed.
    pub fn replace_names(&mut self, names: BTreeSet<String>) -> bool {
        if self.wildcard || names == self.names {
            return false;
        }
        self.forced.extend(names.difference(&self.names).cloned());
        self.names = names;
        self.forget_uncovered();
        true
    }

    /// State of the world: a request without nonce on a type that is already open. What is on
    /// its way is not sent twice.
    pub fn subscribe_again(&mut self, names: BTreeSet<String>) {
        let nothing_on_its_way = self.in_flight.is_none() && !self.last_nonce.is_empty();
        self.replace_names(names);
        if nothing_on_its_way {
            self.forced.extend(self.names.iter().cloned());
            self.must_answer |= self.wildcard;
        }
    }

    /// State of the world: the same request again.
    pub fn repeat(&mut self) {
        if std::mem::take(&mut self.answer_repeat) {
            self.forced.extend(self.names.iter().cloned());
        }
    }

    pub fn changed(&mut self, generation: u64, scope: Option<&Scope>) {
        match (scope, &mut self.dirty) {
            (None, Dirty::No) => self.diffed = generation,
            (None, _) | (Some(_), Dirty::All) => {}
            (Some(Scope::All), dirty) => *dirty = Dirty::All,
            (Some(Scope::Names(names)), Dirty::Names(all)) => all.extend(names.iter().cloned()),
            (Some(Scope::Names(names)), dirty) => *dirty = Dirty::Names(names.clone()),
        }
        self.settle();
    }

    pub fn sent(&mut self, draft: Draft, nonce: String, generation: u64, now: Instant) {
        self.must_answer = false;
        self.last_nonce.clone_from(&nonce);
        for resource in &draft.resources {
            self.forced.remove(&resource.name);
        }
        for name in &draft.removed {
            self.forced.remove(name);
            self.doomed.remove(name);
        }
        let Draft { resources, removed } = draft;
        self.in_flight = Some(InFlight {
            nonce,
            generation,
            resources,
            removed,
            since: now,
        });
    }

    /// The answer to what is in flight; `None` for any other nonce.
    pub fn acknowledge(&mut self, nonce: &str, error: Option<String>) -> Option<Acknowledged> {
        let in_flight = self
            .in_flight
            .take_if(|in_flight| in_flight.nonce == nonce)?;
        let acknowledged = match error {
            None => self.accepted(in_flight),
            Some(message) => self.refused(in_flight, message),
        };
        self.settle();
        Some(acknowledged)
    }

    /// Whether later types should wait for this one.
    pub fn is_unsettled(&self, now: Instant) -> bool {
        match &self.in_flight {
            Some(in_flight) => now < in_flight.since + ORDER_TIMEOUT,
            None => !matches!(self.dirty, Dirty::No) || !self.suspects.is_empty(),
        }
    }

    /// The newest generation of which everything of this type is in force at the client.
    pub fn synced(&self) -> u64 {
        let rejected = self.rejected.values().map(|rejection| rejection.generation);
        match rejected.min() {
            Some(generation) => self.clean.min(generation.saturating_sub(1)),
            None => self.clean,
        }
    }

    pub fn is_idle(&self) -> bool {
        self.in_flight.is_none()
            && matches!(self.dirty, Dirty::No)
            && !self.must_answer
            && self.forced.is_empty()
            && self.suspects.is_empty()
            && self.doomed.is_empty()
    }

    fn covers(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    fn settle(&mut self) {
        if self.is_idle() {
            self.clean = self.diffed;
        }
    }

    fn forget_uncovered(&mut self) {
        let TypeState {
            wildcard, names, ..
        } = self;
        let covers = |name: &String| *wildcard || names.contains(name);
        self.held.retain(|name, _| covers(name));
        self.rejected.retain(|name, _| covers(name));
        self.forced.retain(covers);
        self.doomed.retain(covers);
        self.suspects.retain(covers);
        self.settle();
    }

    fn accepted(&mut self, in_flight: InFlight) -> Acknowledged {
        let (mut new, mut replaced) = (Vec::new(), Vec::new());
        self.is_known = true;
        for name in &in_flight.removed {
            self.held.remove(name);
            self.rejected.remove(name);
        }
        for resource in in_flight.resources {
            if !self.covers(&resource.name) {
                continue;
            }
            let was_held = self.is_held(&resource);
            if !was_held {
                self.suspects.retain(|suspect| *suspect != resource.name);
            }
            // A set may hold a refused resource as it was before: that clears nothing.
            if !was_held || self.is_pinned(&resource) {
                self.rejected.remove(&resource.name);
            }
            let body = if self.keep_bodies {
                resource.body.clone()
            } else {
                Bytes::new()
            };
            let held = Held {
                version: resource.version.clone(),
                body,
            };
            match self.held.insert(resource.name.clone(), held) {
                None => new.push(resource),
                Some(_) if !was_held => replaced.push(resource),
                Some(_) => {}
            }
        }
        Acknowledged::Accepted {
            new,
            replaced,
            removed: in_flight.removed,
        }
    }

    fn refused(&mut self, in_flight: InFlight, message: String) -> Acknowledged {
        let InFlight {
            generation,
            resources,
            removed,
            ..
        } = in_flight;
        for name in removed {
            // Refused for the sake of a resource beside it: it is removed again. Refused alone:
            // asking once more would change nothing.
            if resources.is_empty() {
                self.held.remove(&name);
            } else if !self.held.contains_key(&name) && self.covers(&name) {
                self.forced.insert(name);
            }
        }
        if !self.is_known {
            self.refused_set = Some(version_of(&resources));
        }
        let (mut unchanged, mut changed): (Vec<Resource>, Vec<Resource>) = resources
            .into_iter()
            .partition(|resource| self.is_held(resource));
        if changed.is_empty() && unchanged.len() == 1 {
            changed.append(&mut unchanged);
        }
        let is_culprit = changed.len() == 1 || !self.is_known;
        // What was unsubscribed meanwhile was sent all the same: it may be the culprit.
        changed.retain(|resource| self.covers(&resource.name));
        for Resource { name, version, .. } in changed {
            self.suspects.retain(|suspect| *suspect != name);
            if is_culprit {
                let message = message.clone();
                let rejection = Rejection {
                    version,
                    generation,
                    message,
                };
                self.rejected.insert(name, rejection);
            } else {
                self.suspects.push_back(name);
            }
        }
        // What the client did with the good part of a refused response is not known: it is
        // diffed again (and, while there are suspects, sent one by one).
        self.dirty = Dirty::All;
        Acknowledged::Rejected { message }
    }

    fn is_held(&self, resource: &Resource) -> bool {
        self.held
            .get(&resource.name)
            .is_some_and(|held| held.version == resource.version)
    }

    fn is_pinned(&self, resource: &Resource) -> bool {
        self.rejected
            .get(&resource.name)
            .is_some_and(|r| r.version == resource.version)
    }
}

/// State of the world: the version of a set is a hash of its content.
pub(super) fn version_of(resources: &[Resource]) -> String {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for resource in resources {
        hash.update(resource.name.as_bytes());
        hash.update(&[0]);
        hash.update(resource.version.as_bytes());
        hash.update(&[0]);
    }
    format!("{:016x}", hash.digest())
}
