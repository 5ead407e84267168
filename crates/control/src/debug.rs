//! `/debug/*`: what the control plane knows, in the shapes of Istio's endpoints (istio.md 8.2).

use std::collections::BTreeMap;

use daemon::admin::{Request, Response, json, text};
use envoy_api::ResourceType;
use envoy_api::core::Node;
use http::StatusCode;
use pilot::Snapshot;
use pilot::model::{Endpoint, ServiceKey};
use prost_types::value::Kind;
use serde_json::{Map, Value, json as value};

use crate::admin::{Surface, error, mesh_json};
use crate::pipeline::Published;
use crate::serve::proxies::Proxy;

type Handler = fn(&Surface, &Published, &Request) -> Value;

/// The table of endpoints.
const ENDPOINTS: &[(&str, &str, Handler)] = &[
    (
        "syncz",
        "what each proxy was sent and has acknowledged",
        syncz,
    ),
    ("configz", "the objects in force", configz),
    ("registryz", "the services", registryz),
    ("endpointz", "the endpoints by service", endpointz),
    ("endpointShardz", "the endpoints by service", endpointz),
    (
        "push_status",
        "problems of objects and refusals by proxies",
        push_status,
    ),
    ("connections", "the connected proxies", connections),
    (
        "adsz",
        "the connected proxies and what they watch",
        connections,
    ),
    ("mesh", "the mesh configuration", |_, published, _| {
        mesh_json(&published.snapshot.mesh)
    }),
    (
        "config_dump",
        "the resources of one proxy (?proxyID=POD.NAMESPACE)",
        config_dump,
    ),
];

pub(crate) fn answer(surface: &Surface, request: &Request) -> Response {
    let name = request.path.strip_prefix("/debug/").unwrap_or_default();
    if name.is_empty() || name == "list" {
        let lines: Vec<String> = ENDPOINTS
            .iter()
            .map(|(name, what, _)| format!("/debug/{name}: {what}\n"))
            .collect();
        return text(StatusCode::OK, lines.concat());
    }
    let Some((_, _, handler)) = ENDPOINTS.iter().find(|(known, _, _)| *known == name) else {
        return error(StatusCode::NOT_FOUND, "no such endpoint; see /debug/list");
    };
    match surface.current() {
        Ok(published) => json(
            StatusCode::OK,
            handler(surface, &published, request).to_string(),
        ),
        Err(response) => *response,
    }
}

/// A string of a node's metadata.
pub(crate) fn metadata_text(node: &Node, name: &str) -> Option<String> {
    let field = node.metadata.as_ref()?.fields.get(name)?;
    match field.kind.as_ref()? {
        Kind::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

fn selected(surface: &Surface, request: &Request) -> Vec<Proxy> {
    let wanted = request.query("proxyID");
    let mut proxies = surface.proxies.list();
    proxies.retain(|proxy| {
        wanted
            .as_ref()
            .is_none_or(|id| proxy.id == *id || proxy.node.id == *id)
    });
    proxies
}

fn syncz(surface: &Surface, _: &Published, request: &Request) -> Value {
    let items = selected(surface, request).into_iter().map(|proxy| {
        let mut item = Map::new();
        let cluster = metadata_text(&proxy.node, "CLUSTER_ID").unwrap_or("Kubernetes".to_owned());
        item.insert("cluster_id".into(), value!(cluster));
        item.insert("proxy".into(), value!(proxy.id));
        let role = if proxy.view.is_router() {
            "router"
        } else {
            "sidecar"
        };
        item.insert("proxy_type".into(), value!(role));
        let version = metadata_text(&proxy.node, "ISTIO_VERSION").unwrap_or_default();
        item.insert("proxy_version".into(), value!(version));
        item.insert("istio_version".into(), value!(version));
        for (kind, name) in [
            (ResourceType::Cluster, "cluster"),
            (ResourceType::Listener, "listener"),
            (ResourceType::Route, "route"),
            (ResourceType::Endpoint, "endpoint"),
            (ResourceType::ExtensionConfig, "extensionconfig"),
        ] {
            if let Some((sent, acknowledged)) = proxy.types.get(&kind) {
                item.insert(format!("{name}_sent"), value!(sent.to_string()));
                item.insert(format!("{name}_acked"), value!(acknowledged.to_string()));
            }
        }
        Value::Object(item)
    });
    Value::Array(items.collect())
}

fn configz(_: &Surface, published: &Published, _: &Request) -> Value {
    Value::Array(
        published
            .objects
            .values()
            .map(|(object, _)| object.to_json())
            .collect(),
    )
}

fn registryz(_: &Surface, published: &Published, _: &Request) -> Value {
    let services = published.snapshot.services.iter().map(|entry| {
        let service = &entry.service;
        let port = |port: &pilot::model::Port| {
            value!({
                "name": port.name, "port": port.number, "protocol": port.protocol.to_string(),
            })
        };
        value!({
            "Attributes": {
                "ServiceRegistry": format!("{:?}", service.registry),
                "Name": service.name,
                "Namespace": service.key.namespace,
                "Labels": service.labels,
                "ExportTo": service.export_to,
                "LabelSelectors": service.selector,
            },
            "hostname": service.key.hostname,
            "ports": service.ports.iter().map(port).collect::<Vec<_>>(),
            "defaultAddress": service.virtual_addresses().first().map(|net| net.addr()),
            "addresses": service.virtual_addresses().iter().map(|net| net.to_string())
                .collect::<Vec<_>>(),
            "Resolution": format!("{:?}", service.resolution),
            "MeshExternal": service.external,
            "creationTime": service.created,
        })
    });
    Value::Array(services.collect())
}

fn endpointz(_: &Surface, published: &Published, _: &Request) -> Value {
    let snapshot: &Snapshot = &published.snapshot;
    let mut hosts: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for entry in snapshot.services.iter() {
        let key: &ServiceKey = &entry.service.key;
        let set = snapshot.endpoints.read(key);
        let endpoints: Vec<Value> = set.endpoints.iter().map(endpoint).collect();
        let shards = value!({
            "Shards": {"Stolos/Kubernetes": endpoints},
            "ServiceAccounts": set.identities.iter().collect::<Vec<_>>(),
        });
        hosts
            .entry(&key.hostname)
            .or_default()
            .insert(key.namespace.clone(), shards);
    }
    value!(hosts)
}

fn endpoint(endpoint: &Endpoint) -> Value {
    value!({
        "Addresses": [endpoint.address.to_string()],
        "EndpointPort": endpoint.port,
        "ServicePortName": endpoint.service_port,
        "Labels": *endpoint.labels,
        "ServiceAccount": endpoint.identity,
        "Network": endpoint.network,
        "Locality": endpoint.locality.to_string(),
        "LbWeight": endpoint.weight,
        "TLSMode": match endpoint.tls_mode {
            pilot::model::TlsMode::Istio => "istio",
            pilot::model::TlsMode::Disabled => "disabled",
        },
        "WorkloadName": endpoint.workload,
        "Namespace": endpoint.namespace,
        "HealthStatus": format!("{:?}", endpoint.health),
    })
}

fn push_status(surface: &Surface, published: &Published, _: &Request) -> Value {
    let problems: Vec<Value> = published
        .snapshot
        .statuses()
        .problems()
        .map(|(key, problem)| {
            let reason = format!("{:?}", problem.reason);
            value!({"object": key.to_string(), "reason": reason, "message": problem.message})
        })
        .collect();
    let proxies = surface.proxies.list();
    let refused: Vec<Value> = proxies
        .iter()
        .flat_map(|proxy| {
            proxy.rejections.iter().map(|rejected| {
                value!({
                    "proxy": proxy.id, "type": rejected.kind.short_name(),
                    "resource": rejected.name, "message": rejected.message,
                })
            })
        })
        .collect();
    let files: Vec<String> = surface
        .directory
        .list()
        .iter()
        .map(ToString::to_string)
        .collect();
    value!({
        "generation": published.generation(),
        "objects": problems,
        "rejected": refused,
        "files": files,
    })
}

fn connections(surface: &Surface, _: &Published, request: &Request) -> Value {
    let proxies = selected(surface, request);
    let clients: Vec<Value> = proxies
        .iter()
        .map(|proxy| {
            let watches = proxy
                .types
                .keys()
                .map(|kind| kind.type_url())
                .collect::<Vec<_>>();
            value!({
                "connectionId": proxy.connection,
                "connectedAt": proxy.connected_at.to_string(),
                "address": proxy.address.to_string(),
                "labels": proxy.view.labels,
                "locality": proxy.view.locality.to_string(),
                "watches": watches,
            })
        })
        .collect();
    value!({"totalClients": clients.len(), "clients": clients})
}

/// What would be sent to a proxy that asked now.
fn config_dump(surface: &Surface, published: &Published, request: &Request) -> Value {
    let wanted = request.query("proxyID");
    let Some(proxy) = selected(surface, request)
        .into_iter()
        .next()
        .filter(|_| wanted.is_some())
    else {
        return value!({"error": "proxyID must name a connected proxy"});
    };
    let mut dump = Map::new();
    for kind in ResourceType::ALL {
        let resources = pilot::generate(&published.snapshot, &proxy.view, *kind, None);
        let resources = resources.iter().filter(|_| *kind != ResourceType::Secret);
        let resources: Vec<Value> = resources.map(resource).collect();
        dump.insert(
            kind.short_name().to_ascii_lowercase(),
            Value::Array(resources),
        );
    }
    Value::Object(dump)
}

fn resource(resource: &envoy_api::Resource) -> Value {
    use envoy_api::json::to_json;
    use prost::Message;
    let body = resource.body.clone();
    let message = match resource.kind {
        ResourceType::Cluster => envoy_api::cluster::Cluster::decode(body)
            .ok()
            .map(|message| to_json(&message)),
        ResourceType::Endpoint => envoy_api::endpoint::ClusterLoadAssignment::decode(body)
            .ok()
            .map(|message| to_json(&message)),
        ResourceType::Listener => envoy_api::listener::Listener::decode(body)
            .ok()
            .map(|message| to_json(&message)),
        ResourceType::Route => envoy_api::route::RouteConfiguration::decode(body)
            .ok()
            .map(|message| to_json(&message)),
        _ => None,
    };
    let message = message.and_then(Result::ok).unwrap_or_default();
    value!({"name": resource.name, "version": resource.version, "resource": message})
}
