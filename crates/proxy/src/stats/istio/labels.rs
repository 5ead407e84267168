//! The labels of Istio's metrics (istio.md 7.1), in emission order.

use std::sync::Arc;

use envoy_api::core;

use super::{HttpFacts, Reporter};
use crate::parse::metadata;
use crate::stream_info::{Peer, StreamInfo};

pub const LABELS: [&str; 25] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
];

/// Values in the order of `LABELS`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Labels(Vec<Arc<str>>);

impl Labels {
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|value| &**value)
    }

    #[cfg(test)]
    pub fn value(&self, label: &str) -> &str {
        let at = LABELS
            .iter()
            .position(|name| *name == label)
            .expect("a label");
        &self.0[at]
    }
}

/// One end of a call, as labels want it.
#[derive(Debug, Clone)]
struct End {
    workload: Arc<str>,
    namespace: Arc<str>,
    service: Arc<str>,
    revision: Arc<str>,
    app: Arc<str>,
    version: Arc<str>,
    cluster: Arc<str>,
}

/// This proxy, from its node's metadata, verbatim.
#[derive(Debug, Clone)]
pub struct Own {
    end: End,
    unknown: Arc<str>,
    unknown_end: End,
}

const UNKNOWN: &str = "unknown";

impl Own {
    pub fn of(node: &core::Node) -> Own {
        let fields = node.metadata.as_ref();
        let text = |key: &str| -> Arc<str> {
            let value = fields.and_then(|fields| fields.fields.get(key));
            value.and_then(metadata::as_str).unwrap_or_default().into()
        };
        let labels = fields
            .and_then(|fields| fields.fields.get("LABELS"))
            .and_then(metadata::as_struct);
        let label = |key: &str| -> Arc<str> {
            let value = labels.and_then(|labels| labels.fields.get(key));
            value.and_then(metadata::as_str).unwrap_or_default().into()
        };
        let unknown: Arc<str> = UNKNOWN.into();
        let same = || unknown.clone();
        Own {
            end: End {
                workload: text("WORKLOAD_NAME"),
                namespace: text("NAMESPACE"),
                service: label("service.istio.io/canonical-name"),
                revision: label("service.istio.io/canonical-revision"),
                app: label("app"),
                version: label("version"),
                cluster: text("CLUSTER_ID"),
            },
            unknown_end: End {
                workload: same(),
                namespace: same(),
                service: same(),
                revision: "latest".into(),
                app: same(),
                version: same(),
                cluster: same(),
            },
            unknown,
        }
    }

    fn known(&self, value: &str) -> Arc<str> {
        if value.is_empty() {
            self.unknown.clone()
        } else {
            value.into()
        }
    }

    fn peer(&self, peer: Option<&Peer>) -> End {
        let Some(peer) = peer else {
            return self.unknown_end.clone();
        };
        End {
            workload: self.known(&peer.workload),
            namespace: self.known(&peer.namespace),
            service: self.known(&peer.service),
            revision: if peer.revision.is_empty() {
                "latest".into()
            } else {
                peer.revision.as_str().into()
            },
            app: self.known(&peer.app),
            version: self.known(&peer.version),
            cluster: self.known(&peer.cluster),
        }
    }
}

/// The upstream's workload: metadata exchange, else what the control plane wrote on the endpoint
/// (`workload;namespace;canonical name;canonical revision;cluster`).
fn upstream_peer(stream: &StreamInfo) -> Option<Peer> {
    if let Some(peer) = &stream.upstream_peer {
        return Some(Peer::clone(peer));
    }
    let host = stream.upstream.host.as_deref()?;
    let value = metadata::find(host.metadata.as_deref()?, "istio", &["workload"])?;
    let mut parts = metadata::as_str(value)?.split(';').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    let (workload, namespace, service, revision, cluster) =
        (next(), next(), next(), next(), next());
    let (app, version) = (service.clone(), revision.clone());
    Some(Peer {
        workload,
        namespace,
        service,
        revision,
        cluster,
        app,
        version,
        ..Peer::default()
    })
}

/// The host, name and namespace of the destination service.
struct Destination {
    host: Arc<str>,
    name: Arc<str>,
}

pub(super) fn build(
    own: &Own,
    stream: &StreamInfo,
    http: Option<&HttpFacts<'_>>,
    mode: (Reporter, bool),
) -> Labels {
    let (reporter, fallback) = mode;
    let inbound = reporter == Reporter::Destination;
    let upstream = upstream_peer(stream);
    let source = match reporter {
        Reporter::Source => own.end.clone(),
        Reporter::Destination | Reporter::Waypoint => own.peer(stream.downstream_peer.as_deref()),
    };
    let mut destination = match reporter {
        Reporter::Destination => own.end.clone(),
        Reporter::Source | Reporter::Waypoint => own.peer(upstream.as_ref()),
    };
    let (source_principal, destination_principal, secure) = principals(own, stream, inbound);
    if !inbound && let Some(namespace) = namespace_of(&destination_principal) {
        destination.namespace = namespace.into();
    }
    let service = destination_of(own, stream, http.filter(|_| fallback), inbound);
    let policy = match (inbound, secure) {
        (true, true) => "mutual_tls",
        (true, false) => "none",
        (false, _) => UNKNOWN,
    };
    let (protocol, code, grpc) = protocol(stream, http);
    Labels(vec![
        match reporter {
            Reporter::Source => "source",
            Reporter::Destination => "destination",
            Reporter::Waypoint => "waypoint",
        }
        .into(),
        source.workload,
        source.service,
        source.revision,
        source.namespace,
        source_principal,
        source.app,
        source.version,
        source.cluster,
        destination.workload,
        destination.namespace.clone(),
        destination_principal,
        destination.app,
        destination.version,
        service.host,
        destination.service,
        destination.revision,
        service.name,
        destination.namespace,
        destination.cluster,
        protocol.into(),
        code,
        grpc,
        stream.response_flags.short().as_ref().into(),
        policy.into(),
    ])
}

fn protocol(
    stream: &StreamInfo,
    http: Option<&HttpFacts<'_>>,
) -> (&'static str, Arc<str>, Arc<str>) {
    let Some(http) = http else {
        return ("tcp", "".into(), "".into());
    };
    let code = stream.response_code.unwrap_or(0).to_string().into();
    if !http.grpc {
        return ("http", code, "".into());
    }
    let status = stream
        .grpc_status
        .map(|status| status.to_string())
        .unwrap_or_default();
    ("grpc", code, status.into())
}

/// Source and destination principal, and whether both ends showed a certificate.
fn principals(own: &Own, stream: &StreamInfo, inbound: bool) -> (Arc<str>, Arc<str>, bool) {
    let tls = if inbound {
        stream.downstream.tls.as_deref()
    } else {
        stream.upstream.tls.as_deref()
    };
    let first = |names: &[String]| names.first().cloned().unwrap_or_default();
    let (peer, local) = match tls {
        Some(tls) => (first(&tls.uri_sans), first(&tls.local_uri_sans)),
        None => Default::default(),
    };
    let secure = !peer.is_empty() && !local.is_empty();
    let (source, destination) = if inbound {
        (peer, local)
    } else {
        (local, peer)
    };
    (own.known(&source), own.known(&destination), secure)
}

/// `spiffe://td/ns/NAMESPACE/sa/…`.
fn namespace_of(principal: &str) -> Option<&str> {
    let rest = principal.strip_prefix("spiffe://")?;
    let mut parts = rest.split('/').skip_while(|part| *part != "ns");
    parts.next()?;
    parts.next().filter(|namespace| !namespace.is_empty())
}

fn destination_of(
    own: &Own,
    stream: &StreamInfo,
    http: Option<&HttpFacts<'_>>,
    inbound: bool,
) -> Destination {
    let mut host: Arc<str> = match http {
        Some(http) if !http.authority.is_empty() => {
            String::from_utf8_lossy(http.authority).into_owned().into()
        }
        _ => own.unknown.clone(),
    };
    let cluster = stream.upstream.cluster.as_deref().unwrap_or_default();
    let route = stream.route_name.as_deref().unwrap_or_default();
    // Destinations that are no service carry the name of what took the call.
    let special = match (route, cluster) {
        ("block_all", _) | (_, "BlackHoleCluster") => Some("BlackHoleCluster"),
        ("allow_any", _) | (_, "PassthroughCluster") => Some("PassthroughCluster"),
        (_, name) if name.starts_with("InboundPassthroughCluster") => {
            Some("InboundPassthroughCluster")
        }
        _ => None,
    };
    if let Some(name) = special {
        return Destination {
            host,
            name: name.into(),
        };
    }
    if let Some((service, name)) = service_of(stream) {
        host = service.into();
        let name = if name.is_empty() {
            service.split('.').next().unwrap_or(service)
        } else {
            name
        };
        return Destination {
            host,
            name: name.into(),
        };
    }
    let name = if inbound {
        own.end.service.clone()
    } else {
        own.unknown.clone()
    };
    Destination {
        host,
        name: if name.is_empty() {
            own.unknown.clone()
        } else {
            name
        },
    }
}

/// `filter_metadata.istio.services[0]` of the cluster: host and name.
fn service_of(stream: &StreamInfo) -> Option<(&str, &str)> {
    use prost_types::value::Kind;
    let value = metadata::find(
        stream.upstream.cluster_metadata.as_deref()?,
        "istio",
        &["services"],
    )?;
    let Some(Kind::ListValue(list)) = &value.kind else {
        return None;
    };
    let first = metadata::as_struct(list.values.first()?)?;
    let text = |key: &str| {
        first
            .fields
            .get(key)
            .and_then(metadata::as_str)
            .unwrap_or_default()
    };
    let host = text("host");
    (!host.is_empty()).then(|| (host, text("name")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream_info::{Connection, TlsPeer};
    use std::rc::Rc;

    fn own() -> Own {
        let node = envoy_api::json::from_json::<core::Node>(serde_json::json!({
            "metadata": {
                "WORKLOAD_NAME": "reviews-v1", "NAMESPACE": "default",
                "CLUSTER_ID": "Kubernetes",
                "LABELS": {"app": "reviews", "version": "v1",
                    "service.istio.io/canonical-name": "reviews",
                    "service.istio.io/canonical-revision": "v1"}
            }
        }));
        Own::of(&node.expect("node"))
    }

    fn stream(tls: Option<TlsPeer>) -> StreamInfo {
        let any = ([127, 0, 0, 1], 1).into();
        let mut connection = Connection::plain(1, any, any);
        connection.tls = tls.map(Arc::new);
        StreamInfo::new(Rc::new(connection), None)
    }

    #[test]
    fn labels_of_a_server() {
        let tls = TlsPeer {
            verified: true,
            uri_sans: vec!["spiffe://cluster.local/ns/x/sa/a".into()],
            local_uri_sans: vec!["spiffe://cluster.local/ns/default/sa/reviews".into()],
            ..TlsPeer::default()
        };
        let mut stream = stream(Some(tls));
        stream.response_code = Some(200);
        let facts = HttpFacts {
            inbound: true,
            authority: b"reviews:9080",
            ..Default::default()
        };
        let labels = build(
            &own(),
            &stream,
            Some(&facts),
            (Reporter::Destination, false),
        );
        for (label, want) in [
            ("reporter", "destination"),
            ("source_workload", "unknown"),
            ("source_canonical_revision", "latest"),
            ("source_principal", "spiffe://cluster.local/ns/x/sa/a"),
            ("destination_workload", "reviews-v1"),
            ("destination_app", "reviews"),
            ("destination_service", "unknown"),
            ("destination_service_name", "reviews"),
            ("request_protocol", "http"),
            ("response_code", "200"),
            ("grpc_response_status", ""),
            ("response_flags", "-"),
            ("connection_security_policy", "mutual_tls"),
        ] {
            assert_eq!(labels.value(label), want, "{label}");
        }
    }

    #[test]
    fn labels_of_a_client() {
        let mut stream = stream(None);
        stream.upstream.cluster = Some("outbound|9080||ratings".into());
        let metadata = serde_json::json!({"filterMetadata": {"istio": {"services": [
            {"host": "ratings.default.svc.cluster.local", "name": "ratings"}]}}});
        stream.upstream.cluster_metadata = Some(Arc::new(
            envoy_api::json::from_json(metadata).expect("metadata"),
        ));
        let facts = HttpFacts {
            authority: b"ratings:9080",
            ..Default::default()
        };
        let labels = build(&own(), &stream, Some(&facts), (Reporter::Source, true));
        for (label, want) in [
            ("reporter", "source"),
            ("source_workload", "reviews-v1"),
            ("destination_service", "ratings.default.svc.cluster.local"),
            ("destination_service_name", "ratings"),
            ("destination_workload", "unknown"),
            ("connection_security_policy", "unknown"),
        ] {
            assert_eq!(labels.value(label), want, "{label}");
        }
    }
}
