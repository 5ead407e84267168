//! A mesh of a thousand services: one changed path costs one virtual host, whatever the number
//! of services and proxies.

use std::sync::Arc;
use std::time::Instant;

use envoy_api::ResourceType;
use mesh_api::mesh_config::MeshConfig;
use pilot::model::{
    Endpoint, EndpointAddress, Port, Protocol, Registry, Resolution, Service, ServiceKey,
    TargetPort,
};
use pilot::{Event, ProxyView, Snapshot, generate};
use serde_json::json;

use super::load::{Mesh, view};

const SERVICES: u8 = 250;
const NAMESPACES: u8 = 4;
const PROXIES: usize = 20;

const ALL: [ResourceType; 4] = [
    ResourceType::Cluster,
    ResourceType::Endpoint,
    ResourceType::Listener,
    ResourceType::Route,
];

fn service(namespace: u8, number: u8) -> Service {
    let host = format!("s{number}.ns{namespace}.svc.cluster.local");
    let key = ServiceKey::new(host, format!("ns{namespace}"));
    let mut service = Service::new(key, Registry::Kubernetes, Resolution::ClientSide);
    service.name = format!("s{number}");
    let port = |name: &str, number, protocol| Port {
        name: name.to_owned(),
        number,
        protocol,
        target: TargetPort::Same,
    };
    service.ports = vec![
        port("http", 8080, Protocol::Http),
        port("tcp", 9090, Protocol::Tcp),
    ];
    service.addresses = vec![std::net::IpAddr::from([10, 96, namespace, number]).into()];
    service
}

fn generate_all(snapshot: &Snapshot, views: &[ProxyView]) -> usize {
    let of = |view| {
        ALL.iter()
            .map(move |kind| generate(snapshot, view, *kind, None).len())
    };
    views.iter().flat_map(of).sum()
}

#[test]
fn one_change_costs_one_fragment_in_a_large_mesh() {
    let mut mesh = Mesh::new(MeshConfig::default(), "cluster.local");
    for namespace in 0..NAMESPACES {
        for number in 0..SERVICES {
            let service = service(namespace, number);
            let address = EndpointAddress::Ip([10, 0, namespace, number].into());
            mesh.state.apply(Event::Endpoints {
                service: service.key.clone(),
                shard: "registry".to_owned(),
                endpoints: vec![Endpoint::new(address, 8080, "http")],
            });
            mesh.state.apply(Event::Service(Arc::new(service)));
        }
    }
    let started = Instant::now();
    let snapshot = mesh.snapshot();
    let views: Vec<ProxyView> = (0..PROXIES)
        .map(|index| {
            let namespace = format!("ns{}", index % usize::from(NAMESPACES));
            let ip = format!("10.1.0.{index}");
            view(
                &json!({"name": format!("p{index}"), "namespace": namespace, "ip": ip}),
                &snapshot,
            )
        })
        .collect();
    let resources = generate_all(&snapshot, &views);
    println!(
        "{resources} resources for {PROXIES} proxies: {:?}",
        started.elapsed()
    );
    let before = snapshot.cache.translations();
    mesh.apply(
        "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: s1, \
         namespace: ns1}, spec: {hosts: [s1], http: [{match: [{uri: {prefix: /x}}], route: \
         [{destination: {host: s1}}]}]}}",
    );
    let started = Instant::now();
    let snapshot = mesh.snapshot();
    generate_all(&snapshot, &views);
    println!("the same after one change: {:?}", started.elapsed());
    // On its own port with the domains of two sorts of clients, and on port 80.
    assert!(
        snapshot.cache.translations() - before <= 8,
        "the cost follows the change"
    );
}
