//! Virtual hosts: the cached fragments of route tables.

use std::sync::Arc;

use envoy_api::route::route_action::{ClusterSpecifier, HashPolicy};
use envoy_api::route::virtual_host::TlsRequirementType;
use envoy_api::route::{DirectResponseAction, Route, RouteAction, VirtualHost, route};

use super::cluster_policy::Policy;
use super::route::{self as routes, Destinations, Place, Selection};
use super::{cluster_balancer, route_match};
use crate::cache::Fragment;
use crate::cluster_name::{self, Outbound};
use crate::keys::{DestinationKey, FragmentKey, VirtualHostKey};
use crate::model::{Labels, ProxyView, Service};
use crate::snapshot::statuses::destinations;
use crate::snapshot::{MergedRule, Scope, ServiceEntryRef, Snapshot, VirtualServiceEntry};

/// Looks services and rules up as one client sees them.
pub struct Client<'a> {
    pub snapshot: &'a Snapshot,
    pub scope: &'a Scope,
    pub namespace: &'a str,
    pub labels: &'a Labels,
}

impl<'a> Client<'a> {
    pub fn new(snapshot: &'a Snapshot, scope: &'a Scope, view: &'a ProxyView) -> Self {
        Self {
            snapshot,
            scope,
            namespace: &view.namespace,
            labels: &view.labels,
        }
    }

    pub fn entry(&self, hostname: &str) -> Option<&Arc<ServiceEntryRef>> {
        self.scope
            .service(hostname)
            .or_else(|| self.snapshot.services.visible(hostname, self.namespace))
    }

    pub fn rule(&self, service: &Service) -> Option<&Arc<MergedRule>> {
        self.snapshot
            .destination_rules
            .find(self.namespace, self.labels, &service.key)
    }

    fn key(&self, hostname: &str) -> DestinationKey {
        let entry = self.entry(hostname);
        DestinationKey {
            hostname: hostname.to_owned(),
            service: entry.map(|entry| entry.revision),
            rule: entry
                .and_then(|entry| self.rule(&entry.service))
                .map(|rule| rule.revision),
        }
    }
}

impl Destinations for Client<'_> {
    fn service(&self, hostname: &str) -> Option<Arc<Service>> {
        self.entry(hostname).map(|entry| entry.service.clone())
    }

    fn hash_policy(&self, destination: &Outbound) -> Option<HashPolicy> {
        let entry = self.entry(&destination.hostname)?;
        let rule = &self.rule(&entry.service)?.spec;
        let subset = rule
            .subsets
            .iter()
            .find(|subset| subset.name == destination.subset);
        let policy = Policy::resolve(Some(rule), subset, destination.port, &self.snapshot.mesh);
        cluster_balancer::hash_policy(policy.load_balancer.as_ref())
    }
}

/// One virtual host to translate.
#[derive(Default)]
pub struct Plan {
    pub name: String,
    pub domains: Vec<String>,
    pub port: u16,
    pub rules: Vec<(Arc<VirtualServiceEntry>, Selection)>,
    /// The service whose own cluster is used when no rule has a route.
    pub service: Option<String>,
    pub gateway: bool,
    pub require_tls: bool,
    pub tls: bool,
}

/// The encoded virtual host, from the cache where its inputs did not change.
pub fn fragment(client: &Client<'_>, plan: &Plan) -> Option<Arc<Fragment>> {
    let mut hosts: Vec<&str> = plan
        .rules
        .iter()
        .flat_map(|(entry, _)| destinations(&entry.spec))
        .chain(plan.service.as_deref())
        .collect();
    hosts.sort_unstable();
    hosts.dedup();
    let key = VirtualHostKey {
        name: plan.name.clone(),
        domains: plan.domains.clone(),
        port: plan.port,
        rules: plan
            .rules
            .iter()
            .map(|(entry, selection)| (entry.revision, selection.clone()))
            .collect(),
        destinations: hosts.into_iter().map(|host| client.key(host)).collect(),
        mesh: client.snapshot.mesh_revision,
        gateway: plan.gateway,
        require_tls: plan.require_tls,
        tls: plan.tls,
    };
    client
        .snapshot
        .cache
        .fragment(FragmentKey::VirtualHost(Box::new(key)), || {
            Some(Fragment::new(plan.name.clone(), &translate(client, plan)))
        })
}

fn translate(client: &Client<'_>, plan: &Plan) -> VirtualHost {
    let place = Place {
        port: plan.port,
        mesh: &client.snapshot.mesh,
        destinations: client,
        tls: plan.tls,
    };
    let mut list: Vec<Route> = plan
        .rules
        .iter()
        .flat_map(|(entry, selection)| routes::translate(entry, selection, &place))
        .collect();
    if plan.gateway {
        // Several virtual services share the host: what catches all goes last.
        let catches = |route: &Route| {
            route
                .r#match
                .as_ref()
                .is_some_and(route_match::is_catch_all)
        };
        list.sort_by_key(catches);
    }
    if list.is_empty()
        && let Some(host) = &plan.service
    {
        let cluster = Outbound::new(plan.port, "", host);
        list.push(routes::default_route(&cluster, &place));
    }
    let requirement = if plan.require_tls {
        TlsRequirementType::All
    } else {
        TlsRequirementType::None
    };
    VirtualHost {
        name: plan.name.clone(),
        domains: plan.domains.clone(),
        routes: list,
        require_tls: requirement as i32,
        include_request_attempt_count: true,
        ..Default::default()
    }
}

/// Where requests for unknown hosts go: `cluster`, or nowhere (502).
pub fn catch_all(cluster: Option<&str>) -> Fragment {
    let (name, action) = match cluster {
        Some(cluster) => ("allow_any", pass(cluster)),
        None => ("block_all", refuse()),
    };
    let route = Route {
        name: name.to_owned(),
        r#match: Some(route_match::all()),
        action: Some(action),
        ..Default::default()
    };
    let host = VirtualHost {
        name: name.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        include_request_attempt_count: true,
        ..Default::default()
    };
    Fragment::new(name.to_owned(), &host)
}

fn pass(cluster: &str) -> route::Action {
    debug_assert_ne!(cluster, cluster_name::BLACK_HOLE);
    route::Action::Route(RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        ..routes::timeouts(None)
    })
}

fn refuse() -> route::Action {
    route::Action::DirectResponse(DirectResponseAction {
        status: 502,
        ..Default::default()
    })
}
