//! The one owner of mesh state: events in, a snapshot and what changed out.
//! A bad object never replaces a good one; it only gets a status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_api::kinds::Kind;
use mesh_api::mesh_config::MeshConfig;
use mesh_api::{Object, ObjectKey};

use crate::cache::FragmentCache;
use crate::endpoints::Endpoints;
use crate::model::{Endpoint, Resolution, Service, ServiceKey, Workload, WorkloadKey};
use crate::snapshot::service_entries;
use crate::snapshot::{Problem, Snapshot};

/// The shard under which endpoints from ServiceEntry objects are kept.
const SERVICE_ENTRY_SHARD: &str = "service-entry";

/// One change that a source reports.
#[derive(Debug, Clone)]
pub enum Event {
    Object(Arc<Object>),
    ObjectRemoved(ObjectKey),
    Service(Arc<Service>),
    ServiceRemoved(ServiceKey),
    Workload(Arc<Workload>),
    WorkloadRemoved(WorkloadKey),
    /// All endpoints that one source (`shard`) knows for a service.
    Endpoints {
        service: ServiceKey,
        shard: String,
        endpoints: Vec<Endpoint>,
    },
    MeshConfig(Arc<MeshConfig>),
}

/// Grows with every accepted change; names a version of one object in cache keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// A value with the revision at which it last changed.
#[derive(Debug, Clone)]
pub struct Versioned<T> {
    pub value: Arc<T>,
    pub revision: Revision,
}

/// What changed since the snapshot before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub generation: u64,
    /// The first snapshot: everything is new.
    pub everything: bool,
    pub mesh: bool,
    pub objects: BTreeSet<ObjectKey>,
    pub services: BTreeSet<ServiceKey>,
    pub workloads: BTreeSet<WorkloadKey>,
    /// Services whose endpoints changed.
    pub endpoints: BTreeSet<ServiceKey>,
    /// Those among them whose endpoints also shape clusters, listeners or names: resolved by
    /// DNS, headless, or written with addresses.
    pub structural: BTreeSet<ServiceKey>,
    /// Services whose endpoints run under other identities than before.
    pub identities: BTreeSet<ServiceKey>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        !self.everything
            && !self.mesh
            && self.objects.is_empty()
            && self.services.is_empty()
            && self.workloads.is_empty()
            && self.endpoints.is_empty()
    }

    /// Nothing but endpoint sets changed: the fast lane may send them at once.
    pub fn only_endpoints(&self) -> bool {
        !self.everything
            && !self.mesh
            && self.objects.is_empty()
            && self.services.is_empty()
            && self.workloads.is_empty()
            && self.identities.is_empty()
            && self.structural.is_empty()
    }

    /// Whether every index of the snapshot before still holds.
    fn keeps_indexes(&self) -> bool {
        !self.everything
            && !self.mesh
            && self.objects.is_empty()
            && self.services.is_empty()
            && self.workloads.is_empty()
    }
}

/// Everything the sources have said so far.
#[derive(Debug)]
pub struct State {
    pub(crate) domain: String,
    pub(crate) mesh: Versioned<MeshConfig>,
    pub(crate) objects: BTreeMap<ObjectKey, Versioned<Object>>,
    pub(crate) services: BTreeMap<ServiceKey, Versioned<Service>>,
    pub(crate) workloads: BTreeMap<WorkloadKey, Versioned<Workload>>,
    pub(crate) endpoints: Endpoints,
    pub(crate) cache: Arc<FragmentCache>,
    /// Objects whose newest version was refused, with the reasons.
    pub(crate) rejected: BTreeMap<ObjectKey, Vec<Problem>>,
    /// Parts of accepted objects that have no effect yet.
    pub(crate) notes: BTreeMap<ObjectKey, Vec<Problem>>,
    /// Services that ServiceEntry objects last gave endpoints to.
    entry_services: BTreeSet<ServiceKey>,
    revision: u64,
    generation: u64,
    pending: Changes,
    last: Option<Arc<Snapshot>>,
}

impl State {
    /// A mesh whose platform services are named `NAME.NAMESPACE.svc.cluster.local`.
    pub fn new(mesh: Arc<MeshConfig>) -> Self {
        Self::with_domain(mesh, "cluster.local")
    }

    pub fn with_domain(mesh: Arc<MeshConfig>, domain: &str) -> Self {
        Self {
            domain: domain.to_owned(),
            mesh: Versioned {
                value: mesh,
                revision: Revision(1),
            },
            objects: BTreeMap::new(),
            services: BTreeMap::new(),
            workloads: BTreeMap::new(),
            endpoints: Endpoints::default(),
            cache: Arc::default(),
            rejected: BTreeMap::new(),
            notes: BTreeMap::new(),
            entry_services: BTreeSet::new(),
            revision: 1,
            generation: 0,
            pending: Changes {
                everything: true,
                ..Changes::default()
            },
            last: None,
        }
    }

    /// Takes one event in; the snapshot changes only when it is asked for.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Object(object) => self.apply_object(object),
            Event::ObjectRemoved(key) => {
                self.rejected.remove(&key);
                self.notes.remove(&key);
                if self.objects.remove(&key).is_some() {
                    self.pending.objects.insert(key);
                }
            }
            Event::Service(service) => {
                let key = service.key.clone();
                let revision = self.next();
                if insert(&mut self.services, key.clone(), service, revision) {
                    self.pending.services.insert(key);
                }
            }
            Event::ServiceRemoved(key) => {
                if self.services.remove(&key).is_some() {
                    self.endpoints.remove(&key);
                    self.pending.services.insert(key);
                }
            }
            Event::Workload(workload) => {
                let key = workload.key.clone();
                let revision = self.next();
                if insert(&mut self.workloads, key.clone(), workload, revision) {
                    self.pending.workloads.insert(key);
                }
            }
            Event::WorkloadRemoved(key) => {
                if self.workloads.remove(&key).is_some() {
                    self.pending.workloads.insert(key);
                }
            }
            Event::Endpoints {
                service,
                shard,
                endpoints,
            } => {
                self.replace_endpoints(service, &shard, endpoints);
            }
            Event::MeshConfig(mesh) => {
                if *mesh != *self.mesh.value {
                    self.mesh = Versioned {
                        value: mesh,
                        revision: self.next(),
                    };
                    self.pending.mesh = true;
                }
            }
        }
    }

    /// The state as one immutable value, and what changed since the last call.
    pub fn snapshot(&mut self) -> (Arc<Snapshot>, Changes) {
        if let Some(last) = &self.last
            && self.pending.is_empty()
        {
            let changes = Changes {
                generation: self.generation,
                ..Changes::default()
            };
            return (last.clone(), changes);
        }
        self.update_entry_endpoints();
        self.generation += 1;
        self.cache.begin(self.generation);
        let mut changes = std::mem::take(&mut self.pending);
        changes.generation = self.generation;
        let kept = self.last.as_deref().filter(|_| changes.keeps_indexes());
        let snapshot = Arc::new(match kept {
            Some(last) => last.again(self.generation),
            None => Snapshot::build(self, self.generation),
        });
        self.last = Some(snapshot.clone());
        (snapshot, changes)
    }

    /// The endpoint sets, shared with every snapshot.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    fn next(&mut self) -> Revision {
        self.revision += 1;
        Revision(self.revision)
    }

    fn apply_object(&mut self, object: Arc<Object>) {
        let key = object.key();
        let findings = mesh_api::validate::validate(&object);
        let problems: Vec<Problem> = findings
            .iter()
            .filter(|finding| finding.is_error())
            .map(|finding| Problem::invalid(finding.to_string()))
            .collect();
        if !problems.is_empty() {
            // The last good version stays in force.
            self.rejected.insert(key.clone(), problems);
            self.pending.objects.insert(key);
            return;
        }
        let notes: Vec<Problem> = findings
            .iter()
            .filter(|finding| finding.reason == mesh_api::Reason::NotPerformed)
            .map(|finding| Problem::not_performed(finding.to_string()))
            .collect();
        if notes.is_empty() {
            self.notes.remove(&key);
        } else {
            self.notes.insert(key.clone(), notes);
        }
        let was_rejected = self.rejected.remove(&key).is_some();
        let revision = self.next();
        if insert(&mut self.objects, key.clone(), object, revision) || was_rejected {
            self.pending.objects.insert(key);
        }
    }

    fn replace_endpoints(&mut self, key: ServiceKey, shard: &str, endpoints: Vec<Endpoint>) {
        let revision = self.next();
        let update = self.endpoints.replace(&key, shard, endpoints, revision.0);
        if update.identities {
            self.pending.identities.insert(key.clone());
        }
        if update.endpoints {
            let sent_alone =
                |service: &Versioned<Service>| service.value.resolution == Resolution::ClientSide;
            if !self.services.get(&key).is_some_and(sent_alone) {
                self.pending.structural.insert(key.clone());
            }
            self.pending.endpoints.insert(key);
        }
    }

    /// Endpoints that ServiceEntry and WorkloadEntry objects and selected workloads give.
    fn update_entry_endpoints(&mut self) {
        let concerned =
            |key: &ObjectKey| matches!(key.kind, Kind::ServiceEntry | Kind::WorkloadEntry);
        let changes = &self.pending;
        let needed = changes.everything
            || changes.mesh
            || !changes.workloads.is_empty()
            || !changes.services.is_empty()
            || changes.objects.iter().any(concerned);
        if !needed {
            return;
        }
        let sets = service_entries::endpoints(self);
        let now: BTreeSet<ServiceKey> = sets.keys().cloned().collect();
        for gone in std::mem::take(&mut self.entry_services).difference(&now) {
            self.replace_endpoints(gone.clone(), SERVICE_ENTRY_SHARD, Vec::new());
        }
        for (key, endpoints) in sets {
            self.replace_endpoints(key, SERVICE_ENTRY_SHARD, endpoints);
        }
        self.entry_services = now;
    }
}

/// Stores a value unless it is equal to the one before; an equal one keeps its revision.
fn insert<K: Ord, T: PartialEq>(
    map: &mut BTreeMap<K, Versioned<T>>,
    key: K,
    value: Arc<T>,
    revision: Revision,
) -> bool {
    if map.get(&key).is_some_and(|before| *before.value == *value) {
        return false;
    }
    map.insert(key, Versioned { value, revision });
    true
}

impl Revision {
    /// One revision for several inputs; the order counts.
    pub fn combine(parts: impl IntoIterator<Item = Revision>) -> Revision {
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend_from_slice(&part.0.to_le_bytes());
        }
        // The top bit keeps combined revisions apart from counted ones.
        Revision(xxhash_rust::xxh3::xxh3_64(&bytes) | 1 << 63)
    }
}
