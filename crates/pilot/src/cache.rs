//! Encoded fragments (virtual host, cluster, filter chain, endpoint set) by small keys.
//! A key names every input of its fragment by revision, so an unchanged fragment survives into
//! the next snapshot and is shared by all proxies to which the key applies.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::keys::FragmentKey;

/// Generations for which an unused fragment is kept.
const KEPT_GENERATIONS: u64 = 8;
/// Below this number nothing is swept: a small mesh may flip back and forth for free.
const SWEEP_ABOVE: usize = 4096;

/// One encoded message with the hash of its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    pub name: String,
    pub body: Bytes,
    pub hash: u64,
}

impl Fragment {
    pub fn new(name: String, message: &impl prost::Message) -> Self {
        let body = Bytes::from(message.encode_to_vec());
        let hash = xxh3_64(&body);
        Self { name, body, hash }
    }

    /// The resource whose version is the hash of its content.
    pub fn resource(&self, kind: envoy_api::ResourceType) -> envoy_api::Resource {
        envoy_api::Resource {
            kind,
            name: self.name.clone(),
            version: format!("{:016x}", self.hash),
            body: self.body.clone(),
        }
    }
}

#[derive(Debug)]
struct Entry {
    fragment: Option<Arc<Fragment>>,
    used: u64,
}

#[derive(Debug, Default)]
struct Entries {
    map: HashMap<FragmentKey, Entry>,
    generation: u64,
}

/// Shared by all snapshots of one state.
#[derive(Debug, Default)]
pub struct FragmentCache {
    entries: Mutex<Entries>,
    translations: AtomicU64,
}

impl FragmentCache {
    /// The fragment of `key`; translated only when no proxy asked for it before.
    /// `None` is remembered too: a fragment that cannot be made is not tried for each proxy.
    pub fn fragment(
        &self,
        key: FragmentKey,
        translate: impl FnOnce() -> Option<Fragment>,
    ) -> Option<Arc<Fragment>> {
        {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            let generation = entries.generation;
            if let Some(entry) = entries.map.get_mut(&key) {
                entry.used = generation;
                return entry.fragment.clone();
            }
        }
        // Outside the lock: two proxies may translate the same fragment once each at worst.
        self.translations.fetch_add(1, Ordering::Relaxed);
        let fragment = translate().map(Arc::new);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let used = entries.generation;
        entries.map.insert(
            key,
            Entry {
                fragment: fragment.clone(),
                used,
            },
        );
        fragment
    }

    /// How many fragments were translated since the start.
    pub fn translations(&self) -> u64 {
        self.translations.load(Ordering::Relaxed)
    }

    /// Starts a generation and forgets what nobody asked for lately.
    pub(crate) fn begin(&self, generation: u64) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.generation = generation;
        if entries.map.len() > SWEEP_ABOVE {
            entries
                .map
                .retain(|_, entry| entry.used + KEPT_GENERATIONS >= generation);
        }
    }
}
