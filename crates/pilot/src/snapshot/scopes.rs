//! What a proxy may see: the Sidecar that applies to it, the services and virtual services of
//! each of its egress listeners, and what happens to unknown destinations (istio.md 1.7).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_api::kinds::destination::Destination;
use mesh_api::kinds::sidecar::{CaptureMode, OutboundTrafficPolicyMode, Sidecar};
use mesh_api::mesh_config::{MeshConfig, MeshOutboundMode};
use mesh_api::{Kind, ObjectKey, Spec};

use super::statuses::destinations;
use super::{ServiceEntryRef, Snapshot, VirtualServiceEntry, age_order, of_kind};
use crate::hostname;
use crate::model::{Labels, Protocol, selects};
use crate::state::{Revision, State};

/// What a sidecar does with destinations it does not know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum OutboundPolicy {
    AllowAny,
    RegistryOnly,
    /// To this service, complete name.
    Egress(Destination),
}

#[derive(Debug)]
pub struct SidecarEntry {
    pub key: ObjectKey,
    pub revision: Revision,
    pub spec: Sidecar,
}

/// All Sidecar objects by namespace, oldest first.
#[derive(Debug, Default)]
pub struct Sidecars {
    by_namespace: BTreeMap<String, Vec<Arc<SidecarEntry>>>,
}

impl Sidecars {
    pub(super) fn build(state: &State) -> Self {
        let mut objects: Vec<_> = of_kind(state, Kind::Sidecar).collect();
        objects.sort_by_cached_key(|(key, object)| {
            age_order(object.value.meta.creation_timestamp, key)
        });
        let mut sidecars = Self::default();
        for (key, object) in objects {
            let Spec::Sidecar(spec) = &object.value.spec else {
                continue;
            };
            let entry = SidecarEntry {
                key: key.clone(),
                revision: object.revision,
                spec: (**spec).clone(),
            };
            let list = sidecars
                .by_namespace
                .entry(key.namespace.clone())
                .or_default();
            list.push(Arc::new(entry));
        }
        sidecars
    }

    /// The one for these workloads, else the namespace's, else the root namespace's.
    pub fn select(
        &self,
        namespace: &str,
        labels: &Labels,
        mesh: &MeshConfig,
    ) -> Option<Arc<SidecarEntry>> {
        let own = self
            .by_namespace
            .get(namespace)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let selector = |entry: &SidecarEntry| {
            entry
                .spec
                .workload_selector
                .as_ref()
                .map(|s| s.labels.clone())
        };
        let chosen = own
            .iter()
            .find(|entry| selector(entry).is_some_and(|s| !s.is_empty() && selects(&s, labels)));
        let open =
            |entries: &&Arc<SidecarEntry>| selector(entries).is_none_or(|labels| labels.is_empty());
        let root = self.by_namespace.get(&mesh.root_namespace);
        chosen
            .or_else(|| own.iter().find(open))
            .or_else(|| root.into_iter().flatten().find(open))
            .cloned()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ScopeKey {
    pub namespace: String,
    pub sidecar: Option<ObjectKey>,
    pub router: bool,
}

/// The services and virtual services of one egress listener.
#[derive(Debug)]
pub struct EgressListener {
    /// `None`: every port that is not taken by another listener.
    pub port: Option<(u16, Protocol)>,
    pub bind: String,
    pub captured: bool,
    pub services: Vec<Arc<ServiceEntryRef>>,
    pub virtual_services: Vec<Arc<VirtualServiceEntry>>,
}

#[derive(Debug)]
pub struct Scope {
    pub sidecar: Option<Arc<SidecarEntry>>,
    pub egress: Vec<EgressListener>,
    /// All services of all listeners, each host once.
    pub services: Vec<Arc<ServiceEntryRef>>,
    pub outbound: OutboundPolicy,
    by_host: BTreeMap<String, usize>,
}

impl Scope {
    pub fn service(&self, hostname: &str) -> Option<&Arc<ServiceEntryRef>> {
        self.by_host
            .get(hostname)
            .map(|index| &self.services[*index])
    }

    pub(super) fn build(
        snapshot: &Snapshot,
        key: &ScopeKey,
        sidecar: Option<Arc<SidecarEntry>>,
    ) -> Self {
        let namespace = key.namespace.as_str();
        let virtual_services = if key.router {
            Vec::new()
        } else {
            snapshot.virtual_services.for_mesh(namespace)
        };
        let egress = match sidecar.as_ref().filter(|s| !s.spec.egress.is_empty()) {
            Some(sidecar) => listeners(snapshot, namespace, &sidecar.spec, &virtual_services),
            None => vec![everything(snapshot, namespace, virtual_services)],
        };
        let mut scope = Self {
            outbound: outbound(
                &snapshot.mesh,
                sidecar.as_deref(),
                namespace,
                &snapshot.domain,
            ),
            sidecar,
            egress: Vec::new(),
            services: Vec::new(),
            by_host: BTreeMap::new(),
        };
        for listener in &egress {
            for service in &listener.services {
                scope.add(service);
            }
        }
        // Destinations of imported virtual services are needed even where they are not imported.
        for listener in &egress {
            for rule in &listener.virtual_services {
                for host in destinations(&rule.spec) {
                    if let Some(service) = snapshot.services.visible(host, namespace) {
                        scope.add(service);
                    }
                }
            }
        }
        if let OutboundPolicy::Egress(destination) = scope.outbound.clone()
            && let Some(service) = snapshot.services.visible(&destination.host, namespace)
        {
            scope.add(service);
        }
        scope.egress = egress;
        scope
    }

    fn add(&mut self, service: &Arc<ServiceEntryRef>) {
        let index = self.services.len();
        let host = service.service.key.hostname.clone();
        self.by_host.entry(host).or_insert_with(|| {
            self.services.push(service.clone());
            index
        });
    }
}

/// Without a Sidecar: every service that is exported to the namespace, each host once.
fn everything(
    snapshot: &Snapshot,
    namespace: &str,
    virtual_services: Vec<Arc<VirtualServiceEntry>>,
) -> EgressListener {
    EgressListener {
        port: None,
        bind: String::new(),
        captured: true,
        services: visible_services(snapshot, namespace),
        virtual_services,
    }
}

fn visible_services(snapshot: &Snapshot, namespace: &str) -> Vec<Arc<ServiceEntryRef>> {
    let mut seen = BTreeSet::new();
    let mut services = Vec::new();
    for entry in snapshot.services.iter() {
        let host = &entry.service.key.hostname;
        let own = entry.service.key.namespace == namespace;
        if !(own || entry.visibility.allows(namespace)) || !seen.insert(host.as_str()) {
            continue;
        }
        if let Some(best) = snapshot.services.visible(host, namespace) {
            services.push(best.clone());
        }
    }
    services
}

fn listeners(
    snapshot: &Snapshot,
    namespace: &str,
    sidecar: &Sidecar,
    virtual_services: &[Arc<VirtualServiceEntry>],
) -> Vec<EgressListener> {
    let mut listeners = Vec::new();
    for written in &sidecar.egress {
        let port = written.port.as_ref().and_then(|port| {
            let number = u16::try_from(port.number).ok()?;
            Some((number, Protocol::parse(&port.protocol)))
        });
        let imports = Imports::parse(&written.hosts, namespace);
        let rules: Vec<_> = virtual_services
            .iter()
            .filter(|rule| {
                rule.spec
                    .hosts
                    .iter()
                    .any(|host| imports.allows(&rule.key.namespace, host, true))
            })
            .cloned()
            .collect();
        let mut services = imported_services(snapshot, namespace, &imports);
        if let Some((number, _)) = port {
            services.retain(|entry| {
                entry.service.port(number).is_some() || entry.service.ports.len() == 1
            });
        }
        listeners.push(EgressListener {
            port,
            bind: written.bind.clone(),
            captured: written.capture_mode != CaptureMode::None,
            services,
            virtual_services: rules,
        });
    }
    listeners
}

fn imported_services(
    snapshot: &Snapshot,
    namespace: &str,
    imports: &Imports,
) -> Vec<Arc<ServiceEntryRef>> {
    let mut chosen: BTreeMap<String, usize> = BTreeMap::new();
    let mut services: Vec<Arc<ServiceEntryRef>> = Vec::new();
    for entry in snapshot.services.iter() {
        let key = &entry.service.key;
        let seen = key.namespace == namespace || entry.visibility.allows(namespace);
        if !seen || !imports.allows(&key.namespace, &key.hostname, false) {
            continue;
        }
        match chosen.get(&key.hostname) {
            // The own namespace's service of that host wins over one that came earlier.
            Some(index) if key.namespace == namespace => services[*index] = entry.clone(),
            Some(_) => {}
            None => {
                chosen.insert(key.hostname.clone(), services.len());
                services.push(entry.clone());
            }
        }
    }
    services
}

/// `namespace/host` entries of one egress listener.
struct Imports {
    allowed: Vec<(String, String)>,
    excluded: Vec<(String, String)>,
}

impl Imports {
    fn parse(hosts: &[String], namespace: &str) -> Self {
        let mut imports = Self {
            allowed: Vec::new(),
            excluded: Vec::new(),
        };
        for text in hosts {
            let (from, host) = text.split_once('/').unwrap_or(("*", text));
            if from == "~" {
                // `~/host` hides the host of every namespace, `~/*` hides everything.
                imports.excluded.push(("*".to_owned(), host.to_owned()));
                continue;
            }
            let own = |name: &str| {
                if name == "." {
                    namespace.to_owned()
                } else {
                    name.to_owned()
                }
            };
            match from.strip_prefix('~') {
                Some(from) => imports.excluded.push((own(from), host.to_owned())),
                None => imports.allowed.push((own(from), host.to_owned())),
            }
        }
        imports
    }

    /// `rule`: a host of a virtual service may be wider than what is imported.
    fn allows(&self, namespace: &str, host: &str, rule: bool) -> bool {
        let matches = |(from, pattern): &(String, String)| {
            (from == "*" || from == namespace)
                && (hostname::covers(pattern, host) || rule && hostname::covers(host, pattern))
        };
        self.allowed.iter().any(matches) && !self.excluded.iter().any(matches)
    }
}

fn outbound(
    mesh: &MeshConfig,
    sidecar: Option<&SidecarEntry>,
    namespace: &str,
    domain: &str,
) -> OutboundPolicy {
    match sidecar.and_then(|sidecar| sidecar.spec.outbound_traffic_policy.as_ref()) {
        Some(policy) => match (&policy.egress_proxy, policy.mode) {
            (Some(proxy), _) => {
                let mut proxy = proxy.clone();
                proxy.host = hostname::resolve(&proxy.host, namespace, domain);
                OutboundPolicy::Egress(proxy)
            }
            (None, OutboundTrafficPolicyMode::AllowAny) => OutboundPolicy::AllowAny,
            (None, OutboundTrafficPolicyMode::RegistryOnly) => OutboundPolicy::RegistryOnly,
        },
        None if mesh.outbound_traffic_policy.mode == MeshOutboundMode::RegistryOnly => {
            OutboundPolicy::RegistryOnly
        }
        None => OutboundPolicy::AllowAny,
    }
}
