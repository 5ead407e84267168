//! The table of names that the agent's DNS answers from (istio.md 2.12).

use std::collections::BTreeMap;

use envoy_api::istio::{NameTable, name_table::NameInfo};
use envoy_api::{Resource, ResourceType};

use super::message::is_single;
use crate::cache::Fragment;
use crate::model::{EndpointAddress, Health, ProxyView, Registry, Resolution, Service};
use crate::snapshot::Snapshot;

/// The one resource of this type.
pub fn generate(snapshot: &Snapshot, view: &ProxyView) -> Resource {
    let scope = snapshot.scope(view);
    let mut table: BTreeMap<String, NameInfo> = BTreeMap::new();
    for entry in &scope.services {
        let service = &entry.service;
        if service.resolution == Resolution::Alias {
            continue;
        }
        let mut addresses: Vec<String> = service
            .virtual_addresses()
            .iter()
            .filter(|net| is_single(net) && !net.addr().is_unspecified())
            .map(|net| net.addr().to_string())
            .collect();
        if service.is_headless() {
            addresses = headless(snapshot, service, &mut table);
        }
        if !addresses.is_empty() {
            insert(&mut table, service, addresses);
        }
    }
    let table = NameTable { table };
    Fragment::new("nametable".to_owned(), &table).resource(ResourceType::NameTable)
}

fn insert(table: &mut BTreeMap<String, NameInfo>, service: &Service, mut addresses: Vec<String>) {
    let platform = service.registry == Registry::Kubernetes;
    let host = service.key.hostname.clone();
    match table.get_mut(&host) {
        // The platform's own service hides a written one of the same name.
        Some(known) if platform == (known.registry == "Kubernetes") => {
            known.ips.append(&mut addresses);
            known.ips.dedup();
        }
        Some(_) if !platform => {}
        _ => {
            table.insert(host, record(service, addresses));
        }
    }
}

fn record(service: &Service, ips: Vec<String>) -> NameInfo {
    let platform = service.registry == Registry::Kubernetes;
    NameInfo {
        ips,
        registry: if platform { "Kubernetes" } else { "External" }.to_owned(),
        shortname: if platform {
            service.name.clone()
        } else {
            String::new()
        },
        namespace: if platform {
            service.key.namespace.clone()
        } else {
            String::new()
        },
    }
}

/// All ready endpoints of a headless service; pods with a host name get one of their own.
fn headless(
    snapshot: &Snapshot,
    service: &Service,
    table: &mut BTreeMap<String, NameInfo>,
) -> Vec<String> {
    let set = snapshot.endpoints.read(&service.key);
    let mut all = Vec::new();
    for endpoint in &set.endpoints {
        let EndpointAddress::Ip(address) = endpoint.address else {
            continue;
        };
        if endpoint.health != Health::Healthy && !service.publish_not_ready {
            continue;
        }
        let address = address.to_string();
        if !all.contains(&address) {
            all.push(address.clone());
        }
        let Some(hostname) = &endpoint.hostname else {
            continue;
        };
        let mine = endpoint.subdomain.as_deref() == Some(service.name.as_str());
        if mine && !hostname.is_empty() {
            let host = format!("{hostname}.{}", service.key.hostname);
            let entry = table.entry(host).or_insert_with(|| NameInfo {
                shortname: format!("{hostname}.{}", service.name),
                ..record(service, Vec::new())
            });
            if !entry.ips.contains(&address) {
                entry.ips.push(address);
            }
        }
    }
    all
}
