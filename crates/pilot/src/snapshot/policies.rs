//! Security policies by namespace and workload: which mutual TLS mode and which authorization
//! policies apply to a workload (istio.md 1.10, 1.12).

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::kinds::authorization_policy::AuthorizationPolicy;
use mesh_api::kinds::peer_authentication::{MutualTlsMode, PeerAuthentication};
use mesh_api::{Kind, ObjectKey, Spec};

use super::{age_order, of_kind};
use crate::model::{Labels, selects};
use crate::state::{Revision, State};

/// What a server takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MtlsMode {
    Disable,
    #[default]
    Permissive,
    Strict,
}

/// The modes of one workload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct EffectiveMtls {
    pub mode: MtlsMode,
    pub ports: BTreeMap<u16, MtlsMode>,
}

impl EffectiveMtls {
    pub fn of_port(&self, port: u16) -> MtlsMode {
        self.ports.get(&port).copied().unwrap_or(self.mode)
    }
}

/// An authorization policy that may apply to workloads of its namespace (or of all, when it
/// stands in the root namespace).
#[derive(Debug)]
pub struct AuthorizationEntry {
    pub key: ObjectKey,
    pub revision: Revision,
    pub dry_run: bool,
    pub spec: AuthorizationPolicy,
}

#[derive(Debug)]
struct PeerEntry {
    revision: Revision,
    selector: Option<Labels>,
    spec: PeerAuthentication,
}

#[derive(Debug, Default)]
pub struct Policies {
    root_namespace: String,
    /// Oldest first in each namespace.
    peers: BTreeMap<String, Vec<PeerEntry>>,
    authorization: BTreeMap<String, Vec<Arc<AuthorizationEntry>>>,
}

impl Policies {
    pub(super) fn build(state: &State) -> Self {
        let mut policies = Self {
            root_namespace: state.mesh.value.root_namespace.clone(),
            ..Self::default()
        };
        let mut objects: Vec<_> = of_kind(state, Kind::PeerAuthentication)
            .chain(of_kind(state, Kind::AuthorizationPolicy))
            .collect();
        objects.sort_by_cached_key(|(key, object)| {
            age_order(object.value.meta.creation_timestamp, key)
        });
        for (key, object) in objects {
            match &object.value.spec {
                Spec::PeerAuthentication(spec) => {
                    let selector = spec.selector.as_ref().map(|s| s.match_labels.clone());
                    let entry = PeerEntry {
                        revision: object.revision,
                        selector: selector.filter(|labels| !labels.is_empty()),
                        spec: (**spec).clone(),
                    };
                    policies
                        .peers
                        .entry(key.namespace.clone())
                        .or_default()
                        .push(entry);
                }
                Spec::AuthorizationPolicy(spec) => {
                    let annotations = &object.value.meta.annotations;
                    let entry = Arc::new(AuthorizationEntry {
                        key: key.clone(),
                        revision: object.revision,
                        dry_run: annotations
                            .get("istio.io/dry-run")
                            .is_some_and(|v| v == "true"),
                        spec: (**spec).clone(),
                    });
                    policies
                        .authorization
                        .entry(key.namespace.clone())
                        .or_default()
                        .push(entry);
                }
                _ => {}
            }
        }
        policies
    }

    /// Mesh, namespace, workload and port level, each overriding the one before.
    pub fn mtls(&self, namespace: &str, labels: &Labels) -> EffectiveMtls {
        let mode_below = self.namespace_mode(namespace);
        let mut effective = EffectiveMtls {
            mode: mode_below,
            ports: BTreeMap::new(),
        };
        let own = self
            .peers
            .get(namespace)
            .filter(|_| namespace != self.root_namespace);
        // A selector in the root namespace is not a policy for the workloads of that namespace.
        let workload = own.into_iter().flatten().find(|entry| {
            entry
                .selector
                .as_ref()
                .is_some_and(|selector| selects(selector, labels))
        });
        let Some(workload) = workload else {
            return effective;
        };
        effective.mode = mode(&workload.spec).unwrap_or(effective.mode);
        for (port, mtls) in &workload.spec.port_level_mtls {
            let Ok(port) = u16::try_from(*port) else {
                continue;
            };
            let port_mode = from_written(mtls.mode).unwrap_or(effective.mode);
            effective.ports.insert(port, port_mode);
        }
        effective
    }

    /// Changes whenever a mutual TLS policy of the namespace or of the mesh changes.
    pub fn peer_revision(&self, namespace: &str) -> Revision {
        let of = |name: &str| {
            self.peers
                .get(name)
                .into_iter()
                .flatten()
                .map(|peer| peer.revision)
        };
        Revision::combine(of(namespace).chain(of(&self.root_namespace)))
    }

    /// What clients may assume of a whole namespace.
    pub fn namespace_mode(&self, namespace: &str) -> MtlsMode {
        let level = |name: &str| {
            let entries = self.peers.get(name)?;
            let entry = entries.iter().find(|entry| entry.selector.is_none())?;
            mode(&entry.spec)
        };
        level(namespace)
            .or_else(|| level(&self.root_namespace))
            .unwrap_or_default()
    }

    /// The policies for one workload, root namespace first, oldest first.
    pub fn authorization(&self, namespace: &str, labels: &Labels) -> Vec<Arc<AuthorizationEntry>> {
        let root = self.authorization.get(&self.root_namespace);
        let own = self
            .authorization
            .get(namespace)
            .filter(|_| namespace != self.root_namespace);
        let applies = |entry: &&Arc<AuthorizationEntry>| {
            let spec = &entry.spec;
            spec.target_ref.is_none()
                && spec.target_refs.is_empty()
                && spec
                    .selector
                    .as_ref()
                    .is_none_or(|s| selects(&s.match_labels, labels))
        };
        root.into_iter()
            .chain(own)
            .flatten()
            .filter(applies)
            .cloned()
            .collect()
    }
}

fn mode(spec: &PeerAuthentication) -> Option<MtlsMode> {
    spec.mtls.as_ref().and_then(|mtls| from_written(mtls.mode))
}

fn from_written(mode: MutualTlsMode) -> Option<MtlsMode> {
    match mode {
        MutualTlsMode::Unset => None,
        MutualTlsMode::Disable => Some(MtlsMode::Disable),
        MutualTlsMode::Permissive => Some(MtlsMode::Permissive),
        MutualTlsMode::Strict => Some(MtlsMode::Strict),
    }
}
