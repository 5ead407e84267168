//! What the next response of a type holds: what differs from what the client has, what it asked
//! for by name, one suspect of a refused response, or the removals that waited.

use std::collections::BTreeSet;

use envoy_api::{Resource, ResourceType};

use super::{Dirty, Held, TypeState, version_of};
use crate::Mode;
use crate::server::Source;

/// A response before it has a nonce.
#[derive(Debug, Default)]
pub(in crate::server) struct Draft {
    pub resources: Vec<Resource>,
    /// Names that the client no longer has once it acknowledges.
    pub removed: Vec<String>,
}

impl TypeState {
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

    /// Compares what there is with what the client holds.
    fn diff(
        &mut self,
        mode: Mode,
        scope: Option<&BTreeSet<String>>,
        source: &mut dyn Source,
    ) -> Option<Draft> {
        let wanted = self.wanted(scope);
        let resources = match wanted.as_ref().is_some_and(BTreeSet::is_empty) {
            true => Vec::new(),
            false => source.generate(self.kind, wanted.as_ref()),
        };
        let now: BTreeSet<&str> = resources.iter().map(|resource| &*resource.name).collect();
        let in_scope = |name: &String| wanted.as_ref().is_none_or(|wanted| wanted.contains(name));
        let is_gone = |name: &&String| in_scope(name) && !now.contains(name.as_str());
        let gone: BTreeSet<String> = self.held.keys().filter(is_gone).cloned().collect();
        let unanswered: Vec<String> = self.forced.iter().filter(is_gone).cloned().collect();
        self.rejected.retain(|name, _| !is_gone(&name));
        self.doomed.retain(|name| !now.contains(name.as_str()));
        for resource in &resources {
            if self.is_held(resource) {
                // The user went back to what the client never gave up.
                self.rejected.remove(&resource.name);
            }
        }
        let mut removed: Vec<String> = Vec::new();
        match is_removed_last(self.kind) {
            true => self.doomed.extend(gone),
            false => removed.extend(gone),
        }
        let is_new = |resource: &Resource| {
            let is_settled = self.is_held(resource) || self.is_pinned(resource);
            self.forced.contains(&resource.name) || !is_settled
        };
        if !self.is_known {
            let is_refused = self.refused_set == Some(version_of(&resources));
            return (!is_refused).then_some(Draft { resources, removed });
        }
        if mode == Mode::StateOfTheWorld && self.wildcard {
            let changed = resources.iter().any(is_new) || !removed.is_empty();
            let resources =
                (changed || self.must_answer).then(|| self.whole_set(resources, is_new));
            return resources.map(|resources| Draft { resources, removed });
        }
        let resources: Vec<Resource> = resources.into_iter().filter(is_new).collect();
        match mode {
            Mode::Delta => {
                removed.extend(unanswered);
                removed.sort();
                removed.dedup();
            }
            // Names that the client asks for cannot be removed in this protocol.
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

    /// The names to generate; `None` is all.
    fn wanted(&self, scope: Option<&BTreeSet<String>>) -> Option<BTreeSet<String>> {
        match scope {
            Some(scope) if self.wildcard => Some(scope.clone()),
            Some(scope) => Some(scope.intersection(&self.names).cloned().collect()),
            None if self.wildcard => None,
            None => Some(self.names.clone()),
        }
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
}

/// Types that others refer to: their removals wait for those.
fn is_removed_last(kind: ResourceType) -> bool {
    matches!(
        kind,
        ResourceType::Cluster | ResourceType::Endpoint | ResourceType::Secret
    )
}
