//! The endpoint sets of all services, beside the snapshot: a shared handle that is read when a
//! resource is sent, so that the slow lane never sends older endpoints (discovery.md 4).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use crate::model::{Endpoint, Health, ServiceKey};

/// All endpoints of one service at one moment.
#[derive(Debug, Default, PartialEq)]
pub struct EndpointSet {
    /// Changes with every update of this service.
    pub revision: u64,
    pub endpoints: Vec<Endpoint>,
    /// SPIFFE ids of all endpoints, sorted.
    pub identities: Arc<BTreeSet<String>>,
}

/// What an update of one shard changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Update {
    pub endpoints: bool,
    pub identities: bool,
}

#[derive(Debug, Default)]
struct Sharded {
    shards: BTreeMap<String, Vec<Endpoint>>,
    merged: Arc<EndpointSet>,
}

/// Clones share the same sets.
#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    sets: Arc<RwLock<BTreeMap<ServiceKey, Sharded>>>,
}

impl Endpoints {
    /// The endpoints of a service as they are now; empty when it has none.
    pub fn read(&self, key: &ServiceKey) -> Arc<EndpointSet> {
        let sets = self.sets.read().unwrap_or_else(PoisonError::into_inner);
        sets.get(key)
            .map(|sharded| sharded.merged.clone())
            .unwrap_or_default()
    }

    /// Replaces what one source knows about a service.
    pub(crate) fn replace(
        &self,
        key: &ServiceKey,
        shard: &str,
        endpoints: Vec<Endpoint>,
        revision: u64,
    ) -> Update {
        let mut sets = self.sets.write().unwrap_or_else(PoisonError::into_inner);
        let sharded = sets.entry(key.clone()).or_default();
        let before = sharded
            .shards
            .get(shard)
            .map(Vec::as_slice)
            .unwrap_or_default();
        if before == endpoints.as_slice() {
            return Update::default();
        }
        if endpoints.is_empty() {
            sharded.shards.remove(shard);
        } else {
            sharded.shards.insert(shard.to_owned(), endpoints);
        }
        let merged: Vec<Endpoint> = sharded
            .shards
            .values()
            .flatten()
            .filter(|endpoint| endpoint.health != Health::Terminating)
            .cloned()
            .collect();
        let identities: BTreeSet<String> = merged
            .iter()
            .map(|endpoint| endpoint.identity.clone())
            .filter(|identity| !identity.is_empty())
            .collect();
        let changed = identities != *sharded.merged.identities;
        let identities = if changed {
            Arc::new(identities)
        } else {
            sharded.merged.identities.clone()
        };
        sharded.merged = Arc::new(EndpointSet {
            revision,
            endpoints: merged,
            identities,
        });
        Update {
            endpoints: true,
            identities: changed,
        }
    }

    /// Forgets a service that is gone.
    pub(crate) fn remove(&self, key: &ServiceKey) {
        self.sets
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}
