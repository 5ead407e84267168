//! Route tables of gateways: the virtual services bound to each server's gateway, joined per
//! host (istio.md 1.3, 2.6).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use envoy_api::Resource;

use super::gateway::{MergedServer, merge};
use super::route;
use super::route_table::assemble;
use super::virtual_host::{self, Client, Plan};
use crate::cache::Fragment;
use crate::model::ProxyView;
use crate::snapshot::Snapshot;

/// Every route table of a gateway proxy, by name.
pub fn tables(snapshot: &Snapshot, view: &ProxyView) -> Vec<Resource> {
    let scope = snapshot.scope(view);
    let client = Client::new(snapshot, &scope, view);
    let ports = merge(snapshot, view);
    let mut tables: BTreeMap<&str, (u16, Vec<&MergedServer>)> = BTreeMap::new();
    for port in &ports {
        for server in &port.servers {
            if let Some(name) = &server.table {
                tables
                    .entry(name)
                    .or_insert((port.port, Vec::new()))
                    .1
                    .push(server);
            }
        }
    }
    tables
        .into_iter()
        .map(|(name, (port, servers))| table(&client, view, name, port, &servers))
        .collect()
}

fn table(
    client: &Client<'_>,
    view: &ProxyView,
    name: &str,
    port: u16,
    servers: &[&MergedServer],
) -> Resource {
    // In the order in which hosts were met: the first keeps its domain.
    let mut plans: Vec<Plan> = Vec::new();
    for server in servers {
        server_plans(client, view, server, &mut plans);
    }
    let mut taken = BTreeSet::new();
    plans.retain_mut(|plan| {
        plan.domains.retain(|domain| taken.insert(domain.clone()));
        !plan.domains.is_empty()
    });
    if plans.is_empty() {
        plans.push(Plan {
            name: format!("blackhole:{port}"),
            domains: vec!["*".to_owned()],
            port,
            gateway: true,
            ..Plan::default()
        });
    }
    plans.sort_by(|one, other| one.name.cmp(&other.name));
    let hosts: Vec<Arc<Fragment>> = plans
        .iter()
        .filter_map(|plan| virtual_host::fragment(client, plan))
        .collect();
    assemble(name, &hosts)
}

fn server_plans(
    client: &Client<'_>,
    view: &ProxyView,
    server: &MergedServer,
    plans: &mut Vec<Plan>,
) {
    let gateway = server.gateway.name.as_str();
    let gateways = BTreeSet::from([gateway]);
    let redirects = server
        .server
        .tls
        .as_ref()
        .is_some_and(|tls| tls.https_redirect);
    let tls = server.protocol.is_tls();
    let rules = client.snapshot.virtual_services.for_gateway(gateway);
    for rule in rules.filter(|rule| rule.visibility.allows(&view.namespace)) {
        let selection = route::select(rule, view, &gateways, server.number);
        if selection.is_empty() {
            continue;
        }
        for host in server.matching_hosts(rule) {
            let plan = plan(plans, &host, server.number, tls);
            plan.require_tls |= redirects;
            let known = plan.rules.iter().any(|(entry, _)| entry.key == rule.key);
            if !known {
                plan.rules.push((rule.clone(), selection.clone()));
            }
        }
    }
    if redirects {
        for host in &server.hosts {
            plan(plans, &host.host, server.number, tls).require_tls = true;
        }
    }
}

fn plan<'a>(plans: &'a mut Vec<Plan>, host: &str, port: u16, tls: bool) -> &'a mut Plan {
    let name = format!("{host}:{port}");
    let index = plans
        .iter()
        .position(|plan| plan.name == name)
        .unwrap_or_else(|| {
            plans.push(Plan {
                name,
                domains: vec![host.to_ascii_lowercase()],
                port,
                gateway: true,
                tls,
                ..Plan::default()
            });
            plans.len() - 1
        });
    &mut plans[index]
}
