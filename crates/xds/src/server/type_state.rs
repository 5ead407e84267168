//! One resource type on one stream: subscription, what the client holds, what is in flight, what
//! it refused. Decides what the next response of the type holds, not when it is sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use envoy_api::discovery::DeltaDiscoveryRequest;
use envoy_api::{Resource, ResourceType};

use super::{ORDER_TIMEOUT, Scope, Source};
use crate::Mode;

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

/// A response before it has a nonce.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub resources: Vec<Resource>,
    /// Names that the client no longer has once it acknowledges.
    pub removed: Vec<String>,
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
        new: Vec<Resource>,
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

    /// What the next response holds, if there is one. `gated`: something earlier waits, so only
    /// what the client asked for by name may go.
    pub fn draft(&mut self, mode: Mode, gated: bool, source: &mut dyn Source) -> Option<Draft> {
        if gated {
            return self.answer_forced(mode, source);
        }
        while let Some(suspect) = self.suspects.front().cloned() {
            if let Some(draft) = self.isolate(mode, &suspect, source) {
                return Some(draft);
            }
            self.suspects.pop_front();
            self.dirty = Dirty::All;
        }
        let scope = match std::mem::take(&mut self.dirty) {
            Dirty::No => return self.answer_forced(mode, source),
            Dirty::All => None,
            Dirty::Names(names) if mode == Mode::StateOfTheWorld && self.wildcard => {
                drop(names);
                None
            }
            Dirty::Names(names) => Some(names),
        };
        let draft = self.diff(mode, scope.as_ref(), source);
        self.diffed = source.generation();
        draft.or_else(|| self.answer_forced(mode, source))
    }

    /// The removals that waited for everything else.
    pub fn removals(&mut self, mode: Mode, source: &mut dyn Source) -> Option<Draft> {
        if self.doomed.is_empty() || self.in_flight.is_some() {
            return None;
        }
        let removed: Vec<String> = std::mem::take(&mut self.doomed).into_iter().collect();
        let resources = match mode {
            Mode::Delta => Vec::new(),
            Mode::StateOfTheWorld if self.wildcard => {
                let resources = source.generate(self.kind, None);
                self.whole_set(resources, |_| false)
            }
            // Names that the client still asks for cannot be removed in this protocol.
            Mode::StateOfTheWorld => {
                for name in &removed {
                    self.held.remove(name);
                }
                self.settle();
                return None;
            }
        };
        Some(Draft { resources, removed })
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
        let mut new = Vec::new();
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
            if self.held.insert(resource.name.clone(), held).is_none() {
                new.push(resource);
            }
        }
        Acknowledged::Accepted {
            new,
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
            self.held.remove(&name);
        }
        let resources: Vec<Resource> = resources
            .into_iter()
            .filter(|resource| self.covers(&resource.name))
            .collect();
        let (mut unchanged, mut changed): (Vec<Resource>, Vec<Resource>) = resources
            .into_iter()
            .partition(|resource| self.is_held(resource));
        if changed.is_empty() && unchanged.len() == 1 {
            changed.append(&mut unchanged);
        }
        if changed.len() == 1 {
            for Resource { name, version, .. } in changed {
                self.suspects.retain(|suspect| *suspect != name);
                let message = message.clone();
                self.rejected.insert(
                    name,
                    Rejection {
                        version,
                        generation,
                        message,
                    },
                );
            }
        } else {
            let new = changed.into_iter().map(|resource| resource.name);
            let known: BTreeSet<String> = self.suspects.iter().cloned().collect();
            self.suspects
                .extend(new.filter(|name| !known.contains(name)));
        }
        // What the client did with the good part of a refused response is not known: it is
        // diffed again (and, while there are suspects, sent one by one).
        self.dirty = Dirty::All;
        Acknowledged::Rejected { message }
    }

    /// One suspect alone; `None` if it is settled already.
    fn isolate(&mut self, mode: Mode, name: &str, source: &mut dyn Source) -> Option<Draft> {
        let only = BTreeSet::from([name.to_owned()]);
        let by_name = self.names.contains(name);
        let whole = mode == Mode::StateOfTheWorld && self.wildcard;
        let resources = source.generate(self.kind, (by_name && !whole).then_some(&only));
        let suspect = resources.iter().find(|resource| resource.name == name)?;
        if self.is_held(suspect) || self.is_pinned(suspect) {
            return None;
        }
        if whole {
            let resources = self.whole_set(resources, |resource| resource.name == name);
            return Some(Draft {
                resources,
                removed: Vec::new(),
            });
        }
        Some(Draft {
            resources: vec![suspect.clone()],
            removed: Vec::new(),
        })
    }

    fn diff(
        &mut self,
        mode: Mode,
        scope: Option<&BTreeSet<String>>,
        source: &mut dyn Source,
    ) -> Option<Draft> {
        let wanted: Option<BTreeSet<String>> = match scope {
            Some(scope) if self.wildcard => Some(scope.clone()),
            Some(scope) => Some(scope.intersection(&self.names).cloned().collect()),
            None if self.wildcard => None,
            None => Some(self.names.clone()),
        };
        let is_nothing = wanted.as_ref().is_some_and(BTreeSet::is_empty);
        let resources = match is_nothing {
            true => Vec::new(),
            false => source.generate(self.kind, wanted.as_ref()),
        };
        let now: BTreeSet<&str> = resources.iter().map(|resource| &*resource.name).collect();
        let in_scope = |name: &String| wanted.as_ref().is_none_or(|wanted| wanted.contains(name));
        let is_gone = |name: &String| in_scope(name) && !now.contains(name.as_str());
        self.rejected.retain(|name, _| !is_gone(name));
        let gone: BTreeSet<String> = self
            .held
            .keys()
            .filter(|name| is_gone(name))
            .cloned()
            .collect();
        self.doomed.retain(|name| !now.contains(name.as_str()));
        for resource in &resources {
            if self.is_held(resource) {
                // The user went back to what the client never gave up.
                self.rejected.remove(&resource.name);
            }
        }
        let later = removed_last(self.kind);
        let mut removed: Vec<String> = Vec::new();
        match later {
            true => self.doomed.extend(gone),
            false => removed.extend(gone),
        }
        let unanswered: Vec<String> = self
            .forced
            .iter()
            .filter(|name| is_gone(name))
            .cloned()
            .collect();
        let is_new = |resource: &Resource| {
            self.forced.contains(&resource.name)
                || !self.is_held(resource) && !self.is_pinned(resource)
        };
        let changed = resources.iter().any(is_new) || !removed.is_empty();
        if mode == Mode::StateOfTheWorld && self.wildcard {
            if !changed && !self.must_answer {
                return None;
            }
            let resources = self.whole_set(resources, is_new);
            return Some(Draft { resources, removed });
        }
        let resources: Vec<Resource> = resources.into_iter().filter(is_new).collect();
        match mode {
            Mode::Delta => {
                removed.extend(unanswered);
                removed.sort();
                removed.dedup();
            }
            Mode::StateOfTheWorld => {
                for name in removed.drain(..).chain(unanswered) {
                    self.held.remove(&name);
                    self.forced.remove(&name);
                }
            }
        }
        let is_empty = resources.is_empty() && removed.is_empty();
        (!is_empty || self.must_answer).then_some(Draft { resources, removed })
    }

    /// Only what was asked for by name.
    fn answer_forced(&mut self, mode: Mode, source: &mut dyn Source) -> Option<Draft> {
        if self.forced.is_empty() || mode == Mode::StateOfTheWorld && self.wildcard {
            self.settle();
            return None;
        }
        let resources = source.generate(self.kind, Some(&self.forced));
        let mut removed: BTreeSet<String> = std::mem::take(&mut self.forced);
        for resource in &resources {
            removed.remove(&resource.name);
        }
        let removed: Vec<String> = match mode {
            Mode::Delta => removed.into_iter().collect(),
            Mode::StateOfTheWorld => Vec::new(),
        };
        if resources.is_empty() && removed.is_empty() {
            self.settle();
            return None;
        }
        Some(Draft { resources, removed })
    }

    /// State of the world: the set with the changes that `is_new` lets pass; others stay as the
    /// client has them, and so does what is to be removed last.
    fn whole_set(
        &self,
        resources: Vec<Resource>,
        is_new: impl Fn(&Resource) -> bool,
    ) -> Vec<Resource> {
        let mut set = Vec::with_capacity(resources.len() + self.doomed.len());
        for resource in resources {
            if is_new(&resource) {
                set.push(resource);
            } else if let Some(held) = self.held.get(&resource.name) {
                set.push(self.as_held(&resource.name, held));
            }
        }
        for name in &self.doomed {
            if let Some(held) = self.held.get(name) {
                set.push(self.as_held(name, held));
            }
        }
        set
    }

    fn as_held(&self, name: &str, held: &Held) -> Resource {
        Resource {
            kind: self.kind,
            name: name.to_owned(),
            version: held.version.clone(),
            body: held.body.clone(),
        }
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

/// Types that others refer to: their removals wait for those.
fn removed_last(kind: ResourceType) -> bool {
    matches!(
        kind,
        ResourceType::Cluster | ResourceType::Endpoint | ResourceType::Secret
    )
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
