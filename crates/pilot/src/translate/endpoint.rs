//! Endpoints of one cluster: grouped by place, with priorities, weights and the metadata by
//! which the cluster chooses TLS and telemetry names the workload (istio.md 2.5).

use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_api::core::{HealthStatus, Locality as WireLocality, Metadata};
use envoy_api::endpoint::{
    ClusterLoadAssignment, Endpoint as WireEndpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use mesh_api::kinds::load_balancer::LocalityLbSetting;

use super::cluster::Target;
use super::cluster_policy::Policy;
use super::message::{pipe, socket, text};
use super::{cluster_balancer, locality};
use crate::cache::Fragment;
use crate::keys::{EndpointsKey, FragmentKey};
use crate::model::{
    Endpoint, EndpointAddress, Health, Labels, Locality, ProxyView, Resolution, TlsMode, selects,
};
use crate::snapshot::{MtlsMode, Snapshot};

/// The place from which endpoints are looked at, and what is asked for.
pub fn key(snapshot: &Snapshot, view: &ProxyView, target: &Target<'_>) -> EndpointsKey {
    let service = &target.entry.service;
    let policy = policy(snapshot, target);
    let compares = cluster_balancer::locality(policy.load_balancer.as_ref(), &snapshot.mesh)
        .is_some_and(|setting| !setting.failover_priority.is_empty());
    let name = target.name();
    EndpointsKey {
        cluster: if target.sni_dnat {
            name.sni()
        } else {
            name.to_string()
        },
        service: service.key.clone(),
        service_revision: target.entry.revision,
        endpoints: snapshot.endpoints.read(&service.key).revision,
        rule: target.rule.map(|rule| rule.revision),
        mesh: snapshot.mesh_revision,
        locality: view.locality.clone(),
        network: view.network.clone(),
        labels: if compares {
            view.labels.clone()
        } else {
            Labels::new()
        },
        ipv4: view.supports_ipv4(),
        ipv6: view.supports_ipv6(),
        peers: snapshot.policies.peer_revision(&service.key.namespace),
    }
}

/// The encoded assignment, from the cache where nothing changed.
pub fn fragment(
    snapshot: &Snapshot,
    view: &ProxyView,
    target: &Target<'_>,
) -> Option<Arc<Fragment>> {
    let key = key(snapshot, view, target);
    snapshot
        .cache
        .fragment(FragmentKey::Endpoints(Box::new(key.clone())), || {
            let assignment = translate(snapshot, &key, target);
            Some(Fragment::new(assignment.cluster_name.clone(), &assignment))
        })
}

fn policy(snapshot: &Snapshot, target: &Target<'_>) -> Policy {
    let rule = target.rule.map(|rule| &rule.spec);
    Policy::resolve(rule, target.subset, target.port.number, &snapshot.mesh)
}

pub(super) fn translate(
    snapshot: &Snapshot,
    key: &EndpointsKey,
    target: &Target<'_>,
) -> ClusterLoadAssignment {
    let service = &target.entry.service;
    let set = snapshot.endpoints.read(&service.key);
    let policy = policy(snapshot, target);
    let subset = target.subset.map(|subset| &subset.labels);
    let keeps_unhealthy = policy
        .outlier_detection
        .as_ref()
        .is_none_or(|outlier| outlier.min_health_percent <= 0);
    let by_dns = matches!(
        service.resolution,
        Resolution::Dns | Resolution::DnsRoundRobin
    );
    let mut groups: BTreeMap<Locality, Vec<(LbEndpoint, &Endpoint)>> = BTreeMap::new();
    for endpoint in &set.endpoints {
        let wanted = endpoint.service_port == target.port.name
            && subset.is_none_or(|labels| selects(labels, &endpoint.labels))
            && (keeps_unhealthy || endpoint.health == Health::Healthy)
            && reachable(endpoint, key, by_dns);
        if wanted {
            let wire = wire(snapshot, key, endpoint);
            groups
                .entry(endpoint.locality.clone())
                .or_default()
                .push((wire, endpoint));
        }
    }
    let mut localities: Vec<locality::Group<'_>> = groups
        .into_iter()
        .map(|(place, endpoints)| locality::Group::new(place, endpoints))
        .collect();
    let setting = cluster_balancer::locality(policy.load_balancer.as_ref(), &snapshot.mesh);
    let balances = policy.outlier_detection.is_some() || distributes(setting);
    if let Some(setting) = setting.filter(|_| balances) {
        localities = locality::apply(localities, setting, key);
    }
    ClusterLoadAssignment {
        cluster_name: key.cluster.clone(),
        endpoints: localities.into_iter().map(assignment).collect(),
        ..Default::default()
    }
}

fn distributes(setting: Option<&LocalityLbSetting>) -> bool {
    setting.is_some_and(|setting| !setting.distribute.is_empty())
}

/// An address family the proxy has; names only where they are resolved, sockets only where not:
/// one wrong endpoint would make Envoy refuse all of them.
fn reachable(endpoint: &Endpoint, key: &EndpointsKey, by_dns: bool) -> bool {
    match endpoint.address {
        EndpointAddress::Ip(address) => {
            if address.is_ipv4() {
                key.ipv4
            } else {
                key.ipv6
            }
        }
        EndpointAddress::Hostname(_) => by_dns,
        EndpointAddress::Pipe(_) => !by_dns,
    }
}

fn assignment(group: locality::Group<'_>) -> LocalityLbEndpoints {
    let locality = (!group.place.is_empty()).then(|| WireLocality {
        region: group.place.region.clone(),
        zone: group.place.zone.clone(),
        sub_zone: group.place.subzone.clone(),
    });
    LocalityLbEndpoints {
        locality: Some(locality.unwrap_or_default()),
        load_balancing_weight: (group.weight > 0).then_some(group.weight),
        lb_endpoints: group.endpoints.into_iter().map(|(wire, _)| wire).collect(),
        priority: group.priority,
        ..Default::default()
    }
}

fn wire(snapshot: &Snapshot, key: &EndpointsKey, endpoint: &Endpoint) -> LbEndpoint {
    let address = match &endpoint.address {
        EndpointAddress::Ip(address) => socket(&address.to_string(), endpoint.port),
        EndpointAddress::Hostname(name) => socket(name, endpoint.port),
        EndpointAddress::Pipe(path) => pipe(path),
    };
    let health = match endpoint.health {
        Health::Healthy => HealthStatus::Healthy,
        Health::Unhealthy | Health::Terminating => HealthStatus::Unhealthy,
        Health::Draining => HealthStatus::Draining,
    };
    LbEndpoint {
        health_status: health as i32,
        metadata: metadata(snapshot, key, endpoint),
        load_balancing_weight: Some(endpoint.weight.max(1)),
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(WireEndpoint {
            address: Some(address),
            ..Default::default()
        })),
    }
}

/// By which socket the endpoint is reached, and who it is.
fn metadata(snapshot: &Snapshot, key: &EndpointsKey, endpoint: &Endpoint) -> Option<Metadata> {
    let mut metadata = Metadata::default();
    if endpoint.tls_mode == TlsMode::Istio && accepts_mtls(snapshot, key, endpoint) {
        let fields = [("tlsMode".to_owned(), text("istio"))].into();
        metadata.filter_metadata.insert(
            "envoy.transport_socket_match".to_owned(),
            prost_types::Struct { fields },
        );
    }
    if !endpoint.workload.is_empty() {
        let label = |names: [&str; 2]| {
            names
                .iter()
                .find_map(|name| endpoint.labels.get(*name))
                .cloned()
                .unwrap_or_default()
        };
        let mut name = label(["service.istio.io/canonical-name", "app"]);
        if name.is_empty() {
            name.clone_from(&endpoint.workload);
        }
        let revision = label(["service.istio.io/canonical-revision", "version"]);
        let value = format!(
            "{};{};{name};{revision};Kubernetes",
            endpoint.workload, endpoint.namespace
        );
        let fields = [("workload".to_owned(), text(value))].into();
        metadata
            .filter_metadata
            .insert("istio".to_owned(), prost_types::Struct { fields });
    }
    (!metadata.filter_metadata.is_empty()).then_some(metadata)
}

/// The workload's own policy may switch mutual TLS off for the port.
fn accepts_mtls(snapshot: &Snapshot, key: &EndpointsKey, endpoint: &Endpoint) -> bool {
    let namespace = match endpoint.namespace.as_str() {
        "" => key.service.namespace.as_str(),
        namespace => namespace,
    };
    let effective = snapshot.policies.mtls(namespace, &endpoint.labels);
    effective.of_port(endpoint.port) != MtlsMode::Disable
}

/// LOGICAL_DNS knows exactly one endpoint.
pub(super) fn keep_one(assignment: &mut ClusterLoadAssignment) {
    assignment.endpoints.truncate(1);
    if let Some(group) = assignment.endpoints.first_mut() {
        group.lb_endpoints.truncate(1);
    }
}
