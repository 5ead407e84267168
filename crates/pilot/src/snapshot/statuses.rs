//! What every object's author should know: conflicts, references to nothing, what is not
//! performed, and versions that were refused.

use std::collections::BTreeMap;

use mesh_api::kinds::virtual_service::VirtualService;
use mesh_api::{Kind, Object, ObjectKey, Spec};

use super::{Gateways, Services, VirtualServices, of_kind};
use crate::hostname;
use crate::state::{Revision, State, Versioned};

/// The sort of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The newest version is not valid; the last good one stays in force.
    Invalid,
    /// Another object won.
    Conflict,
    /// It names something that does not exist.
    MissingReference,
    /// Valid, but this part has no effect yet.
    NotPerformed,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub reason: Reason,
    pub message: String,
}

impl Problem {
    pub fn invalid(message: impl Into<String>) -> Self {
        Self {
            reason: Reason::Invalid,
            message: message.into(),
        }
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self {
            reason: Reason::Conflict,
            message: message.into(),
        }
    }

    pub fn missing(message: impl Into<String>) -> Self {
        Self {
            reason: Reason::MissingReference,
            message: message.into(),
        }
    }

    pub fn not_performed(message: impl Into<String>) -> Self {
        Self {
            reason: Reason::NotPerformed,
            message: message.into(),
        }
    }
}

/// The state of one object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Some version of it is in force.
    pub in_force: bool,
    /// The revision of the version in force.
    pub revision: Revision,
    pub problems: Vec<Problem>,
}

/// By object.
#[derive(Debug, Clone, Default)]
pub struct Statuses {
    by_key: BTreeMap<ObjectKey, Status>,
}

impl Statuses {
    pub(super) fn new(
        objects: &BTreeMap<ObjectKey, Versioned<Object>>,
        known: [&BTreeMap<ObjectKey, Vec<Problem>>; 2],
    ) -> Self {
        let mut by_key: BTreeMap<ObjectKey, Status> = BTreeMap::new();
        for (key, object) in objects {
            let status = Status {
                in_force: true,
                revision: object.revision,
                problems: Vec::new(),
            };
            by_key.insert(key.clone(), status);
        }
        for (key, problems) in known.into_iter().flatten() {
            by_key
                .entry(key.clone())
                .or_default()
                .problems
                .extend(problems.iter().cloned());
        }
        Self { by_key }
    }

    pub(super) fn add(&mut self, key: &ObjectKey, problem: Problem) {
        let problems = &mut self.by_key.entry(key.clone()).or_default().problems;
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    pub fn get(&self, key: &ObjectKey) -> Option<&Status> {
        self.by_key.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &Status)> {
        self.by_key.iter()
    }

    /// Objects about which there is something to say.
    pub fn problems(&self) -> impl Iterator<Item = (&ObjectKey, &Problem)> {
        self.by_key
            .iter()
            .flat_map(|(key, status)| status.problems.iter().map(move |problem| (key, problem)))
    }
}

/// References to nothing and conflicts between virtual services and gateways.
pub(super) fn check_references(
    state: &State,
    services: &Services,
    virtual_services: &VirtualServices,
    gateways: &Gateways,
    statuses: &mut Statuses,
) {
    for entry in virtual_services.iter() {
        for gateway in entry.spec.gateways.iter().filter(|name| *name != "mesh") {
            if gateways.get(gateway).is_none() {
                let message = format!("gateway `{gateway}` does not exist");
                statuses.add(&entry.key, Problem::missing(message));
            }
        }
        for host in destinations(&entry.spec) {
            if !services.has_host(host) {
                let message = format!("destination host `{host}` is not a known service");
                statuses.add(&entry.key, Problem::missing(message));
            }
        }
    }
    for (key, problem) in virtual_services.conflicts() {
        statuses.add(&key, problem);
    }
    for (key, problem) in gateways.conflicts() {
        statuses.add(&key, problem);
    }
    for (key, object) in of_kind(state, Kind::DestinationRule) {
        let Spec::DestinationRule(rule) = &object.value.spec else {
            continue;
        };
        let host = hostname::resolve(&rule.host, &key.namespace, &state.domain);
        let known = if host.starts_with('*') {
            services
                .iter()
                .any(|entry| hostname::covers(&host, &entry.service.key.hostname))
        } else {
            services.has_host(&host)
        };
        if !known {
            let message = format!("host `{host}` is not a known service");
            statuses.add(key, Problem::missing(message));
        }
    }
}

/// The hosts to which a virtual service sends traffic.
pub fn destinations(spec: &VirtualService) -> impl Iterator<Item = &str> {
    let http = spec.http.iter().flat_map(|route| {
        let mirrors = route
            .mirrors
            .iter()
            .filter_map(|mirror| mirror.destination.as_ref());
        let routes = route
            .route
            .iter()
            .filter_map(|route| route.destination.as_ref());
        routes.chain(route.mirror.as_ref()).chain(mirrors)
    });
    let tls = spec.tls.iter().flat_map(|route| &route.route);
    let tcp = spec.tcp.iter().flat_map(|route| &route.route);
    let layer4 = tls
        .chain(tcp)
        .filter_map(|route| route.destination.as_ref());
    http.chain(layer4)
        .map(|destination| destination.host.as_str())
}
