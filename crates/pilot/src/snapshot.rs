//! The mesh at one moment, immutable and indexed for translation. Endpoint sets are not part of
//! it: it holds the handle to them. Indexes whose inputs did not change are shared with the
//! snapshot before.

pub mod destination_rules;
pub mod gateways;
pub mod merge_delegates;
pub mod policies;
pub mod scopes;
pub mod secrets;
pub mod service_entries;
pub mod services;
pub mod statuses;
pub mod virtual_services;
pub mod visibility;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use mesh_api::mesh_config::MeshConfig;
use mesh_api::{Kind, Object, ObjectKey};

pub use destination_rules::{DestinationRules, MergedRule};
pub use gateways::{GatewayEntry, Gateways};
pub use policies::{AuthorizationEntry, EffectiveMtls, MtlsMode, Policies};
pub use scopes::{EgressListener, OutboundPolicy, Scope};
pub use secrets::Secrets;
pub use services::{ServiceEntryRef, Services};
pub use statuses::{Problem, Status, Statuses};
pub use virtual_services::{VirtualServiceEntry, VirtualServices};
pub use visibility::Visibility;

use crate::cache::FragmentCache;
use crate::endpoints::Endpoints;
use crate::model::{ProxyView, Role, Workload, WorkloadKey};
use crate::state::{Revision, State, Versioned};

/// Everything translation may read.
#[derive(Debug)]
pub struct Snapshot {
    pub generation: u64,
    pub mesh: Arc<MeshConfig>,
    pub mesh_revision: Revision,
    /// What platform service names end with, `cluster.local`.
    pub domain: String,
    pub services: Arc<Services>,
    pub virtual_services: Arc<VirtualServices>,
    pub destination_rules: Arc<DestinationRules>,
    pub gateways: Arc<Gateways>,
    pub policies: Arc<Policies>,
    pub secrets: Arc<Secrets>,
    pub sidecars: Arc<scopes::Sidecars>,
    pub endpoints: Endpoints,
    pub cache: Arc<FragmentCache>,
    workloads: Arc<Workloads>,
    scopes: Mutex<BTreeMap<scopes::ScopeKey, Arc<Scope>>>,
    statuses: Arc<Statuses>,
}

#[derive(Debug, Default)]
struct Workloads {
    by_key: BTreeMap<WorkloadKey, Arc<Workload>>,
    by_address: BTreeMap<IpAddr, Arc<Workload>>,
}

impl Snapshot {
    /// The same mesh at a later generation: only endpoints changed.
    pub(crate) fn again(&self, generation: u64) -> Self {
        let scopes = self
            .scopes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Self {
            generation,
            mesh: self.mesh.clone(),
            mesh_revision: self.mesh_revision,
            domain: self.domain.clone(),
            services: self.services.clone(),
            virtual_services: self.virtual_services.clone(),
            destination_rules: self.destination_rules.clone(),
            gateways: self.gateways.clone(),
            policies: self.policies.clone(),
            secrets: self.secrets.clone(),
            sidecars: self.sidecars.clone(),
            endpoints: self.endpoints.clone(),
            cache: self.cache.clone(),
            workloads: self.workloads.clone(),
            scopes: Mutex::new(scopes),
            statuses: self.statuses.clone(),
        }
    }

    pub(crate) fn build(state: &State, generation: u64) -> Self {
        let mesh = state.mesh.value.clone();
        let mut statuses = Statuses::new(&state.objects, [&state.rejected, &state.notes]);
        let services = Arc::new(Services::build(state, &mut statuses));
        let virtual_services = Arc::new(VirtualServices::build(state, &mut statuses));
        let destination_rules = Arc::new(DestinationRules::build(state, &mut statuses));
        let gateways = Arc::new(Gateways::build(state));
        statuses::check_references(
            state,
            &services,
            &virtual_services,
            &gateways,
            &mut statuses,
        );
        Self {
            generation,
            mesh,
            mesh_revision: state.mesh.revision,
            domain: state.domain.clone(),
            services,
            virtual_services,
            destination_rules,
            gateways,
            policies: Arc::new(Policies::build(state)),
            secrets: Arc::new(Secrets::build(state)),
            sidecars: Arc::new(scopes::Sidecars::build(state)),
            endpoints: state.endpoints.clone(),
            cache: state.cache.clone(),
            workloads: Arc::new(Workloads::build(state)),
            scopes: Mutex::default(),
            statuses: Arc::new(statuses),
        }
    }

    /// The workload of a proxy: by name, else by one of its addresses.
    pub fn workload(&self, key: &WorkloadKey, addresses: &[IpAddr]) -> Option<Arc<Workload>> {
        let by_address = || {
            addresses
                .iter()
                .find_map(|address| self.workloads.by_address.get(address))
                .filter(|workload| workload.key.namespace == key.namespace)
        };
        self.workloads.by_key.get(key).or_else(by_address).cloned()
    }

    /// What the proxy may see and how it treats what it does not know. Shared by all proxies
    /// to which the same Sidecar applies.
    pub fn scope(&self, view: &ProxyView) -> Arc<Scope> {
        let sidecar = match view.role {
            Role::Sidecar => self
                .sidecars
                .select(&view.namespace, &view.labels, &self.mesh),
            Role::Router => None,
        };
        let key = scopes::ScopeKey {
            namespace: view.namespace.clone(),
            sidecar: sidecar.as_ref().map(|sidecar| sidecar.key.clone()),
            router: view.role == Role::Router,
        };
        let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        scopes
            .entry(key)
            .or_insert_with_key(|key| Arc::new(Scope::build(self, key, sidecar)))
            .clone()
    }

    /// Conditions and problems per object.
    pub fn statuses(&self) -> &Statuses {
        &self.statuses
    }
}

impl Workloads {
    fn build(state: &State) -> Self {
        let mut workloads = Self::default();
        for (key, workload) in &state.workloads {
            workloads.by_key.insert(key.clone(), workload.value.clone());
            for address in &workload.value.addresses {
                workloads
                    .by_address
                    .insert(*address, workload.value.clone());
            }
        }
        workloads
    }
}

/// All objects of one kind, by namespace and name.
pub(crate) fn of_kind(
    state: &State,
    kind: Kind,
) -> impl Iterator<Item = (&ObjectKey, &Versioned<Object>)> {
    let first = ObjectKey {
        kind,
        namespace: String::new(),
        name: String::new(),
    };
    state
        .objects
        .range(first..)
        .take_while(move |(key, _)| key.kind == kind)
}

/// Oldest first, then by name, then by namespace: who wins when several objects compete.
pub(crate) fn age_order(created: Option<i64>, key: &ObjectKey) -> (i64, String, String) {
    (
        created.unwrap_or_default(),
        key.name.clone(),
        key.namespace.clone(),
    )
}
