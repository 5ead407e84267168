//! From a load assignment (and what DNS said) to the endpoint set that workers balance over.
//! The block of an address that stays is the same block.
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::shared::{Address, Endpoints, Host, HostBlock, LocalityHosts, PriorityHosts};
use crate::parse::address;
use crate::parse::endpoint::{Endpoint, LoadAssignment};

/// Addresses of the host names of a DNS cluster.
pub type Resolved = HashMap<(String, u16), Vec<SocketAddr>>;

/// Builds the set; `previous` gives blocks to addresses that were there before.
pub fn build(assignment: &LoadAssignment, resolved: &Resolved, previous: &Endpoints) -> Endpoints {
    let mut blocks: HashMap<Address, Arc<HostBlock>> = previous
        .hosts()
        .map(|host| (host.address.clone(), host.block.clone()))
        .collect();
    let mut priorities: Vec<PriorityHosts> = Vec::new();
    for locality in &assignment.localities {
        let at = locality.priority as usize;
        while priorities.len() <= at {
            priorities.push(PriorityHosts::default());
        }
        let mut hosts = Vec::with_capacity(locality.endpoints.len());
        for endpoint in &locality.endpoints {
            for address in addresses(endpoint, resolved) {
                let block = blocks.entry(address.clone()).or_default().clone();
                hosts.push(Arc::new(Host {
                    hostname: hostname(endpoint),
                    address,
                    weight: endpoint.weight,
                    priority: locality.priority,
                    health: endpoint.health,
                    locality: locality.locality.clone(),
                    metadata: endpoint.metadata.clone(),
                    block,
                }));
            }
        }
        priorities[at].hosts.extend(hosts.iter().cloned());
        priorities[at].localities.push(LocalityHosts {
            locality: locality.locality.clone(),
            weight: locality.weight,
            hosts,
        });
    }
    Endpoints {
        priorities,
        overprovisioning_factor: assignment.overprovisioning_factor,
    }
}

/// The host names that must be resolved first.
pub fn names(assignment: &LoadAssignment) -> Vec<(String, u16)> {
    let endpoints = assignment
        .localities
        .iter()
        .flat_map(|locality| &locality.endpoints);
    let mut names: Vec<_> = endpoints
        .filter_map(|endpoint| match &endpoint.address {
            address::Address::Name { host, port } => Some((host.clone(), *port)),
            _ => None,
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

fn addresses(endpoint: &Endpoint, resolved: &Resolved) -> Vec<Address> {
    match &endpoint.address {
        address::Address::Socket(address) => vec![Address::Socket(*address)],
        address::Address::Pipe { path, .. } => vec![Address::Pipe(path.clone())],
        address::Address::Name { host, port } => resolved
            .get(&(host.clone(), *port))
            .into_iter()
            .flatten()
            .map(|address| Address::Socket(*address))
            .collect(),
    }
}

fn hostname(endpoint: &Endpoint) -> Arc<str> {
    match &endpoint.address {
        address::Address::Name { host, .. } if endpoint.hostname.is_empty() => {
            Arc::from(host.as_str())
        }
        _ => endpoint.hostname.clone(),
    }
}
