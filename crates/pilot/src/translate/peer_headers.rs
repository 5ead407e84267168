//! Peer metadata for Envoys without Istio's filter: request headers that name the client are
//! added on the way out and taken off before they reach an application (discovery.md 7).

use base64::Engine as _;
use envoy_api::core::header_value_option::HeaderAppendAction;
use envoy_api::core::{HeaderValue, HeaderValueOption};
use envoy_api::envoy::config::common::mutation_rules::v3::{
    HeaderMutation as Mutation, header_mutation::Action,
};
use envoy_api::header_mutation::{HeaderMutation, Mutations};
use prost::Message;
use prost_types::{Struct, Value, value::Kind};

use super::message::text;
use crate::model::ProxyView;

pub const FILTER: &str = "envoy.filters.http.header_mutation";

const ID: &str = "x-envoy-peer-metadata-id";
const METADATA: &str = "x-envoy-peer-metadata";
/// The labels that telemetry shows.
const LABELS: [&str; 4] = [
    "service.istio.io/canonical-name",
    "service.istio.io/canonical-revision",
    "app",
    "version",
];

/// What a proxy tells its peers about itself.
pub struct PeerHeaders {
    id: String,
    metadata: String,
}

impl PeerHeaders {
    pub fn new(view: &ProxyView) -> Self {
        let labels = LABELS
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), text(view.labels.get(*name)?))))
            .collect();
        let labels = Value {
            kind: Some(Kind::StructValue(Struct { fields: labels })),
        };
        let fields = [
            ("NAME", text(&view.name)),
            ("NAMESPACE", text(&view.namespace)),
            ("WORKLOAD_NAME", text(&view.workload_name)),
            ("CLUSTER_ID", text(&view.cluster)),
            ("LABELS", labels),
        ];
        let fields = fields
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        let bytes = Struct { fields }.encode_to_vec();
        Self {
            id: view.id.clone(),
            metadata: base64::engine::general_purpose::STANDARD.encode(bytes),
        }
    }
}

/// Outbound: tells who calls, and takes the answer off. Inbound (`None`): takes it off.
pub fn mutation(own: Option<&PeerHeaders>) -> HeaderMutation {
    let remove = || {
        [ID, METADATA]
            .map(|name| action(Action::Remove(name.to_owned())))
            .to_vec()
    };
    let mutations = match own {
        Some(own) => Mutations {
            request_mutations: vec![set(ID, &own.id), set(METADATA, &own.metadata)],
            response_mutations: remove(),
            ..Default::default()
        },
        None => Mutations {
            request_mutations: remove(),
            ..Default::default()
        },
    };
    HeaderMutation {
        mutations: Some(mutations),
        ..Default::default()
    }
}

fn action(action: Action) -> Mutation {
    Mutation {
        action: Some(action),
    }
}

fn set(name: &str, value: &str) -> Mutation {
    action(Action::Append(HeaderValueOption {
        header: Some(HeaderValue {
            key: name.to_owned(),
            value: value.to_owned(),
            ..Default::default()
        }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
        ..Default::default()
    }))
}
