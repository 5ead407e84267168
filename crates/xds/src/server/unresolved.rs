//! What an accepted resource needs and the client has not yet acknowledged: endpoints of new
//! clusters, routes of listeners. Others wait for it, but never longer than `ORDER_TIMEOUT`.

use std::collections::BTreeMap;
use std::time::Instant;

use envoy_api::ResourceType;

use super::ORDER_TIMEOUT;

#[derive(Debug, Default)]
pub(super) struct Unresolved {
    deadlines: BTreeMap<(ResourceType, String), Instant>,
}

impl Unresolved {
    pub fn insert(&mut self, kind: ResourceType, name: String, now: Instant) {
        self.deadlines
            .entry((kind, name))
            .or_insert(now + ORDER_TIMEOUT);
    }

    /// Forgets the names of the type that the condition names.
    pub fn resolve(&mut self, kind: ResourceType, is_resolved: impl Fn(&str) -> bool) {
        self.deadlines
            .retain(|(known, name), _| *known != kind || !is_resolved(name));
    }

    pub fn expire(&mut self, now: Instant) {
        self.deadlines.retain(|_, deadline| *deadline > now);
    }

    pub fn has(&self, kind: ResourceType) -> bool {
        self.deadlines.keys().any(|(known, _)| *known == kind)
    }

    pub fn is_empty(&self) -> bool {
        self.deadlines.is_empty()
    }

    pub fn deadlines(&self) -> impl Iterator<Item = Instant> {
        self.deadlines.values().copied()
    }
}
