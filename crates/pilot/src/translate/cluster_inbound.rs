//! The sidecar's own clusters: the application behind each port, and the fixed ones for what no
//! rule knows (istio.md 2.5).

use std::time::Duration;

use envoy_api::cluster::Cluster;
use envoy_api::cluster::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};
use envoy_api::core::{BindConfig, SocketAddress, socket_address};
use envoy_api::endpoint::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};

use mesh_api::kinds::connection_pool::{ConnectionPoolSettings, HttpSettings};

use super::cluster_pool::{self, Upstream};
use super::inbound::{Backend, Served};
use super::message::{duration, list, object, pipe, socket, text};
use crate::cache::Fragment;
use crate::cluster_name;
use crate::model::ProxyView;
use crate::snapshot::Snapshot;

/// By this source address capture rules let traffic from the sidecar to its application pass.
const INBOUND_SOURCE: &str = "127.0.0.6";
const INBOUND_SOURCE_V6: &str = "::6";
/// Original-destination hosts are never swept: the set is the pod's own addresses.
const NEVER: Duration = Duration::from_secs(9_223_372_035);
const PASSTHROUGH_IDLE_S: u64 = 300;

/// The inbound clusters of a sidecar.
pub fn served(snapshot: &Snapshot, view: &ProxyView, served: &Served) -> Fragment {
    let mesh = &snapshot.mesh;
    let name = cluster_name::inbound(served.port);
    let mut cluster = Cluster {
        alt_stat_name: stat_name(&mesh.inbound_cluster_stat_name, &name, served),
        name: name.clone(),
        circuit_breakers: Some(cluster_pool::circuit_breakers(served.pool.as_ref(), None)),
        ..Default::default()
    };
    cluster_pool::apply_pool(&mut cluster, served.pool.as_ref(), mesh);
    match &served.backend {
        Backend::Original => {
            original_destination(&mut cluster);
            bind_source(&mut cluster, view);
        }
        Backend::Address(host, port) => fixed(&mut cluster, socket(host, *port)),
        Backend::Pipe(path) => fixed(&mut cluster, pipe(path)),
    }
    let upstream = if served.protocol.is_http2() {
        Upstream::Http2
    } else if served.protocol.is_auto() {
        Upstream::Downstream
    } else {
        Upstream::Http1
    };
    cluster_pool::apply_http(&mut cluster, upstream, served.pool.as_ref(), None);
    if !served.services.is_empty() {
        let services = served.services.iter().map(|service| {
            object([
                ("host", text(&service.key.hostname)),
                ("name", text(&service.name)),
                ("namespace", text(&service.key.namespace)),
            ])
        });
        let services = list(services.collect());
        cluster.metadata = Some(super::message::metadata("istio", [("services", services)]));
    }
    Fragment::new(name, &cluster)
}

fn stat_name(pattern: &str, name: &str, served: &Served) -> String {
    let Some(service) = served.services.first().filter(|_| !pattern.is_empty()) else {
        return format!("{name};");
    };
    let short = format!("{}.{}", service.name, service.key.namespace);
    let filled = pattern
        .replace("%SERVICE%", &short)
        .replace("%SERVICE_NAME%", &service.name)
        .replace("%SERVICE_FQDN%", &service.key.hostname)
        .replace("%SERVICE_PORT%", &served.service_port.to_string())
        .replace("%TARGET_PORT%", &served.port.to_string())
        .replace("%SERVICE_PORT_NAME%", &served.service_port_name);
    format!("{filled};")
}

fn original_destination(cluster: &mut Cluster) {
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(
        DiscoveryType::OriginalDst as i32,
    ));
    cluster.lb_policy = LbPolicy::ClusterProvided as i32;
}

fn bind_source(cluster: &mut Cluster, view: &ProxyView) {
    let source = if view.supports_ipv4() {
        INBOUND_SOURCE
    } else {
        INBOUND_SOURCE_V6
    };
    cluster.cleanup_interval = Some(duration(NEVER));
    cluster.upstream_bind_config = Some(BindConfig {
        source_address: Some(SocketAddress {
            address: source.to_owned(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(0)),
            ..Default::default()
        }),
        ..Default::default()
    });
}

fn fixed(cluster: &mut Cluster, address: envoy_api::core::Address) {
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32));
    let endpoint = Endpoint {
        address: Some(address),
        ..Default::default()
    };
    let endpoint = LbEndpoint {
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)),
        ..Default::default()
    };
    cluster.load_assignment = Some(ClusterLoadAssignment {
        cluster_name: cluster.name.clone(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![endpoint],
            ..Default::default()
        }],
        ..Default::default()
    });
}

/// Nothing is behind it.
pub fn black_hole(snapshot: &Snapshot) -> Fragment {
    let mut cluster = Cluster {
        name: cluster_name::BLACK_HOLE.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        ..Default::default()
    };
    cluster_pool::apply_pool(&mut cluster, None, &snapshot.mesh);
    Fragment::new(cluster.name.clone(), &cluster)
}

/// Unknown destinations, as the application dialled them.
pub fn passthrough(snapshot: &Snapshot) -> Fragment {
    let mut cluster = plain(cluster_name::PASSTHROUGH, snapshot);
    use_client_protocol(&mut cluster);
    Fragment::new(cluster.name.clone(), &cluster)
}

/// Ports of the pod that no service names.
pub fn inbound_passthrough(snapshot: &Snapshot, view: &ProxyView) -> Fragment {
    let mut cluster = plain(cluster_name::INBOUND_PASSTHROUGH, snapshot);
    use_client_protocol(&mut cluster);
    bind_source(&mut cluster, view);
    cluster.cleanup_interval = None;
    Fragment::new(cluster.name.clone(), &cluster)
}

fn plain(name: &str, snapshot: &Snapshot) -> Cluster {
    let mut cluster = Cluster {
        name: name.to_owned(),
        alt_stat_name: format!("{name};"),
        circuit_breakers: Some(cluster_pool::circuit_breakers(None, None)),
        ..Default::default()
    };
    original_destination(&mut cluster);
    cluster_pool::apply_pool(&mut cluster, None, &snapshot.mesh);
    cluster
}

fn use_client_protocol(cluster: &mut Cluster) {
    let idle = HttpSettings {
        idle_timeout: Some(Duration::from_secs(PASSTHROUGH_IDLE_S)),
        ..Default::default()
    };
    let pool = ConnectionPoolSettings {
        http: Some(idle),
        tcp: None,
    };
    cluster_pool::apply_http(cluster, Upstream::Downstream, Some(&pool), None);
}
