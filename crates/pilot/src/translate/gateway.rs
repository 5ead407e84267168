//! All Gateways that select one proxy, merged per port (istio.md 1.5): HTTP servers share a
//! listener and a route table, TLS servers share a listener and are told apart by SNI.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_api::kinds::gateway::Server;
use mesh_api::kinds::tls_settings::ServerTlsMode;

use super::inbound::{self, Instance};
use crate::hostname;
use crate::model::{Protocol, ProxyView};
use crate::snapshot::{GatewayEntry, Snapshot, VirtualServiceEntry};

/// One server of one gateway on the port where the proxy listens.
#[derive(Clone)]
pub struct MergedServer {
    pub gateway: Arc<GatewayEntry>,
    pub server: Server,
    pub protocol: Protocol,
    /// The port as the gateway writes it.
    pub number: u16,
    pub hosts: Vec<GatewayHost>,
    /// For HTTP: the table that its requests use.
    pub table: Option<String>,
}

/// `namespace/host` of a server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GatewayHost {
    /// `None`: virtual services of any namespace.
    pub namespace: Option<String>,
    pub host: String,
}

/// All servers on one address and port.
pub struct MergedPort {
    pub bind: Option<String>,
    pub port: u16,
    pub tls: bool,
    pub http: bool,
    pub servers: Vec<MergedServer>,
}

impl MergedServer {
    pub fn mode(&self) -> ServerTlsMode {
        self.server
            .tls
            .as_ref()
            .map(|tls| tls.mode)
            .unwrap_or_default()
    }

    /// Plain HTTP, or TLS that ends here with HTTP inside.
    pub fn is_http(&self) -> bool {
        self.table.is_some()
    }

    /// The hosts of a virtual service that this server serves.
    pub fn matching_hosts(&self, entry: &VirtualServiceEntry) -> BTreeSet<String> {
        let mut matching = BTreeSet::new();
        for own in &self.hosts {
            let wanted = own
                .namespace
                .as_ref()
                .is_none_or(|ns| *ns == entry.key.namespace);
            for host in entry.spec.hosts.iter().filter(|_| wanted) {
                // The narrower of the two is what both mean.
                if hostname::covers(&own.host, host) {
                    matching.insert(host.clone());
                } else if hostname::covers(host, &own.host) {
                    matching.insert(own.host.clone());
                }
            }
        }
        matching
    }
}

/// Ports on which every gateway listens for itself: admin, agent, readiness, metrics.
pub const OWN_PORTS: [u16; 4] = [15000, 15020, 15021, 15090];

/// Does TLS speak on this server?
fn speaks_tls(protocol: Protocol) -> bool {
    protocol.is_tls()
}

/// The merged ports of a gateway proxy.
pub fn merge(snapshot: &Snapshot, view: &ProxyView) -> Vec<MergedPort> {
    let instances = inbound::instances(snapshot, view);
    let serves = |host: &str| {
        instances
            .iter()
            .any(|instance| instance.entry.service.key.hostname == host)
    };
    let mut ports: BTreeMap<(Option<String>, u16), MergedPort> = BTreeMap::new();
    // TLS host names by bind and port.
    let mut names: BTreeSet<(Option<String>, u16, GatewayHost)> = BTreeSet::new();
    for gateway in snapshot.gateways.selecting(&view.labels, serves) {
        for server in &gateway.spec.servers {
            let Some(written) = &server.port else {
                continue;
            };
            let Ok(number) = u16::try_from(written.number) else {
                continue;
            };
            for port in target_ports(gateway, number, &instances) {
                if (view.unprivileged && port < 1024) || OWN_PORTS.contains(&port) {
                    continue;
                }
                let merged = merged_server(gateway, server, number, port);
                add(&mut ports, &mut names, port, merged);
            }
        }
    }
    ports.into_values().collect()
}

/// Where the proxy listens for a gateway's port: behind the service that exposes it.
fn target_ports(gateway: &GatewayEntry, number: u16, instances: &[Instance]) -> Vec<u16> {
    let of_port = instances
        .iter()
        .filter(|instance| instance.port.number == number);
    if gateway.services.is_empty() {
        let target = of_port.map(|instance| instance.target).next();
        return vec![target.unwrap_or(number)];
    }
    let own = |instance: &&Instance| {
        gateway
            .services
            .contains(&instance.entry.service.key.hostname)
    };
    let mut targets: Vec<u16> = of_port
        .filter(own)
        .map(|instance| instance.target)
        .collect();
    targets.sort_unstable();
    targets.dedup();
    targets
}

fn merged_server(
    gateway: &Arc<GatewayEntry>,
    server: &Server,
    number: u16,
    port: u16,
) -> MergedServer {
    let written = server.port.clone().unwrap_or_default();
    let protocol = Protocol::parse(&written.protocol);
    let mode = server.tls.as_ref().map(|tls| tls.mode).unwrap_or_default();
    let passes = matches!(
        mode,
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough
    );
    let bind = match server.bind.as_str() {
        "" => String::new(),
        bind => format!(".{bind}"),
    };
    let table = if protocol.is_http() {
        Some(format!("http.{port}{bind}"))
    } else if protocol == Protocol::Https && !passes {
        let (name, namespace) = (&gateway.key.name, &gateway.key.namespace);
        Some(format!(
            "https.{port}.{}.{name}.{namespace}{bind}",
            written.name
        ))
    } else {
        None
    };
    let hosts = server.hosts.iter().map(|text| match text.split_once('/') {
        Some(("*", host)) => GatewayHost {
            namespace: None,
            host: host.to_owned(),
        },
        Some((".", host)) => GatewayHost {
            namespace: Some(gateway.key.namespace.clone()),
            host: host.to_owned(),
        },
        Some((namespace, host)) => GatewayHost {
            namespace: Some(namespace.to_owned()),
            host: host.to_owned(),
        },
        None => GatewayHost {
            namespace: None,
            host: text.clone(),
        },
    });
    MergedServer {
        gateway: gateway.clone(),
        server: server.clone(),
        protocol,
        number,
        hosts: hosts.collect(),
        table,
    }
}

/// Older servers win: a later one that cannot share the port is left out.
fn add(
    ports: &mut BTreeMap<(Option<String>, u16), MergedPort>,
    names: &mut BTreeSet<(Option<String>, u16, GatewayHost)>,
    port: u16,
    mut server: MergedServer,
) {
    let bind = Some(server.server.bind.clone()).filter(|bind| !bind.is_empty());
    let tls = speaks_tls(server.protocol);
    let http = server.protocol.is_http();
    if let Some(known) = ports.get(&(bind.clone(), port)) {
        let shares = known.tls == tls && known.http == http;
        if !shares || (!tls && !http) {
            return;
        }
    }
    if tls {
        server.hosts.retain(|host| {
            let bare = GatewayHost {
                namespace: None,
                host: host.host.clone(),
            };
            // Two chains for one name would make Envoy refuse the whole listener.
            names.insert((bind.clone(), port, bare))
        });
        if server.hosts.is_empty() {
            return;
        }
    }
    ports
        .entry((bind.clone(), port))
        .or_insert_with(|| MergedPort {
            bind,
            port,
            tls,
            http,
            servers: Vec::new(),
        })
        .servers
        .push(server);
}
