//! Istio's peer metadata in headers: who we are goes out, who the peer is comes in, and neither
//! reaches the application.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use base64::Engine as _;
use envoy_api::core;
use envoy_api::istio::peer_metadata::{self as wire, config};
use prost::Message as _;
use prost_types::{Any, Struct, Value, value::Kind};

use super::{Flow, Hooks, RequestCall, ResponseCall};
use crate::http::headers::Headers;
use crate::parse::Context;
use crate::parse::cluster::Cluster;
use crate::parse::compat::Message as _;
use crate::parse::metadata::{as_str, as_struct, find};
use crate::parse::network_filter::open_either;
use crate::stream_info::Peer;

const METADATA: &str = "x-envoy-peer-metadata";
const ID: &str = "x-envoy-peer-metadata-id";
/// Longer values are not looked at.
const MAX_HEADER: usize = 64 << 10;

#[derive(Debug)]
pub struct Config {
    downstream_discovery: bool,
    upstream_discovery: bool,
    downstream_propagation: bool,
    /// `Some(skip_external)`.
    upstream_propagation: Option<bool>,
    own: Own,
}

/// What we say of ourselves.
#[derive(Debug, Clone, Default)]
pub struct Own {
    pub id: String,
    /// Base64 of the encoded struct.
    pub metadata: String,
    pub fields: Struct,
}

fields! {
    wire::Config {
        read: downstream_discovery, upstream_discovery, downstream_propagation,
            upstream_propagation, additional_labels;
        ignore: shared_with_upstream = "internal listeners do not exist";
    }
}

impl Config {
    pub fn parse(context: &mut Context, any: &Any) -> Option<Config> {
        use config::discovery_method::MethodSpecifier as Discovery;
        use config::propagation_method::MethodSpecifier as Propagation;
        let message = open_either::<wire::Config>(context, any)?;
        message.check(context);
        let mut by_headers = |name: &str, methods: &[config::DiscoveryMethod]| {
            methods.iter().any(|method| match &method.method_specifier {
                Some(Discovery::IstioHeaders(_)) => true,
                // Peers that send nothing are described by their endpoint.
                Some(Discovery::WorkloadDiscovery(_)) | None => false,
                Some(Discovery::Baggage(_)) => {
                    context.error_at(name, "baggage is not supported");
                    false
                }
            })
        };
        let downstream_discovery =
            by_headers("downstream_discovery", &message.downstream_discovery);
        let upstream_discovery = by_headers("upstream_discovery", &message.upstream_discovery);
        let propagation = |methods: &[config::PropagationMethod]| {
            methods
                .iter()
                .filter_map(|method| method.method_specifier.as_ref())
                .map(|Propagation::IstioHeaders(one)| one.skip_external_clusters)
                .next()
        };
        Some(Config {
            downstream_discovery,
            upstream_discovery,
            downstream_propagation: propagation(&message.downstream_propagation).is_some(),
            upstream_propagation: propagation(&message.upstream_propagation),
            own: Own::of(&context.environment().node, &message.additional_labels),
        })
    }
}

const KEYS: [&str; 5] = ["NAME", "NAMESPACE", "WORKLOAD_NAME", "CLUSTER_ID", "OWNER"];
const LABELS: [&str; 4] = [
    "service.istio.io/canonical-name",
    "service.istio.io/canonical-revision",
    "app",
    "version",
];

impl Own {
    /// The keys that peers use, from the node's metadata.
    pub fn of(node: &core::Node, additional_labels: &[String]) -> Own {
        let mut fields = Struct::default();
        let Some(metadata) = &node.metadata else {
            return Own::default();
        };
        for key in KEYS {
            if let Some(value) = metadata.fields.get(key) {
                fields.fields.insert(key.to_owned(), value.clone());
            }
        }
        if let Some(labels) = metadata.fields.get("LABELS").and_then(as_struct) {
            let wanted = LABELS
                .iter()
                .copied()
                .chain(additional_labels.iter().map(String::as_str));
            let kept = wanted.filter_map(|key| {
                labels
                    .fields
                    .get(key)
                    .map(|value| (key.to_owned(), value.clone()))
            });
            let kept: BTreeMap<String, Value> = kept.collect();
            let labels = Value {
                kind: Some(Kind::StructValue(Struct { fields: kept })),
            };
            fields.fields.insert("LABELS".to_owned(), labels);
        }
        let metadata = base64::engine::general_purpose::STANDARD.encode(fields.encode_to_vec());
        Own {
            id: node.id.clone(),
            metadata,
            fields,
        }
    }
}

/// A peer from its struct.
pub fn peer_of(id: &str, fields: &Struct) -> Peer {
    let text = |fields: &Struct, key: &str| {
        fields
            .fields
            .get(key)
            .and_then(as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let empty = Struct::default();
    let labels = fields
        .fields
        .get("LABELS")
        .and_then(as_struct)
        .unwrap_or(&empty);
    let list = labels.fields.iter();
    Peer {
        id: id.to_owned(),
        name: text(fields, "NAME"),
        namespace: text(fields, "NAMESPACE"),
        workload: text(fields, "WORKLOAD_NAME"),
        cluster: text(fields, "CLUSTER_ID"),
        owner: text(fields, "OWNER"),
        service: text(labels, "service.istio.io/canonical-name"),
        revision: text(labels, "service.istio.io/canonical-revision"),
        app: text(labels, "app"),
        version: text(labels, "version"),
        identity: text(fields, "IDENTITY"),
        region: text(fields, "REGION"),
        availability_zone: text(fields, "AVAILABILITY_ZONE"),
        labels: list
            .filter_map(|(key, value)| Some((key.clone(), as_str(value)?.to_owned())))
            .collect(),
    }
}

/// The peer in the headers, which are removed. The second says that there were some.
fn take_peer(headers: &mut Headers) -> (Option<Peer>, bool) {
    let id = headers.get_str(ID).map(str::to_owned);
    let metadata = headers
        .get_str(METADATA)
        .filter(|text| text.len() <= MAX_HEADER);
    let decoder = base64::engine::GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        base64::engine::GeneralPurposeConfig::new()
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
    );
    let fields = metadata
        .and_then(|text| decoder.decode(text).ok())
        .and_then(|bytes| Struct::decode(bytes.as_slice()).ok());
    let asked = headers.remove(ID) | headers.remove(METADATA);
    (
        fields.map(|fields| peer_of(id.as_deref().unwrap_or_default(), &fields)),
        asked,
    )
}

#[derive(Debug)]
pub struct Filter {
    config: Arc<Config>,
    answer: bool,
}

impl Filter {
    pub fn new(config: &Arc<Config>) -> Filter {
        Filter {
            config: config.clone(),
            answer: false,
        }
    }

    fn say(&self, headers: &mut Headers) {
        let own = &self.config.own;
        if !own.id.is_empty() {
            headers.set(ID, own.id.as_bytes());
        }
        if !own.metadata.is_empty() {
            headers.set(METADATA, own.metadata.as_bytes());
        }
    }
}

/// Clusters outside the mesh are not told who we are.
fn is_told(cluster: Option<&Cluster>, skip_external: bool) -> bool {
    let Some(cluster) = cluster else { return true };
    let flag = |key: &str| {
        find(&cluster.metadata, "istio", &[key])
            .is_some_and(|value| matches!(value.kind, Some(Kind::BoolValue(true))))
    };
    if flag("disable_mx") {
        return false;
    }
    !skip_external || (&*cluster.name != "PassthroughCluster" && !flag("external"))
}

impl Hooks for Filter {
    fn request_headers(&mut self, _name: &str, call: &mut RequestCall<'_, '_>) -> Flow {
        if self.config.downstream_discovery {
            let (peer, asked) = take_peer(&mut call.head.headers);
            if let Some(peer) = peer {
                call.stream.downstream_peer = Some(Rc::new(peer));
            }
            self.answer = asked && self.config.downstream_propagation;
        }
        if let Some(skip_external) = self.config.upstream_propagation
            && is_told(call.context.cluster, skip_external)
        {
            self.say(&mut call.head.headers);
        }
        Flow::Continue
    }

    fn response_headers(&mut self, call: &mut ResponseCall<'_, '_>) {
        if self.config.upstream_discovery {
            let (peer, _) = take_peer(&mut call.head.headers);
            if let Some(peer) = peer {
                call.stream.upstream_peer = Some(Rc::new(peer));
            }
        }
        if self.answer {
            self.say(&mut call.head.headers);
        }
    }
}
