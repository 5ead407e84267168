//! What a delta stream of the proxy has asked for and holds.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use envoy_api::ResourceType;
use envoy_api::core::Node;
use envoy_api::discovery::DeltaDiscoveryRequest;
use envoy_api::istio::NameTable;
use prost::Message;
use xds::grpc::Status;
use xds::wire;

use super::FromControl;

pub(super) struct Tracker {
    node: Option<Node>,
    wants_names: bool,
    /// In the order of their first request.
    types: Vec<(String, TypeState)>,
    /// Nonces given on the stream that is open now.
    current: BTreeSet<String>,
}

#[derive(Default)]
struct TypeState {
    /// The first request named nothing: that is "all".
    is_wildcard: bool,
    names: BTreeSet<String>,
    /// What the proxy holds, by name.
    versions: BTreeMap<String, String>,
    /// Responses that the proxy has not answered yet, also of earlier streams.
    waiting: BTreeMap<String, Change>,
}

struct Change {
    added: Vec<(String, String)>,
    removed: Vec<String>,
}

impl Tracker {
    pub(super) fn new(wants_names: bool) -> Tracker {
        Tracker {
            node: None,
            wants_names,
            types: Vec::new(),
            current: BTreeSet::new(),
        }
    }

    pub(super) fn request(&mut self, bytes: Bytes) -> Result<Option<Bytes>, Status> {
        let mut request =
            DeltaDiscoveryRequest::decode(bytes.clone()).map_err(Status::invalid_argument)?;
        if let Some(node) = request.node.take() {
            self.node = Some(node);
        }
        let state = self.state(&request.type_url);
        let is_first = state.is_none();
        let state = match state {
            Some(state) => state,
            None => {
                self.types
                    .push((request.type_url.clone(), TypeState::default()));
                &mut self.types.last_mut().expect("BUG: just pushed").1
            }
        };
        state.note(&request, is_first);
        let nonce = &request.response_nonce;
        if nonce.is_empty() || self.current.remove(nonce) {
            return Ok(Some(bytes));
        }
        // An answer to an earlier stream means nothing on this one; changed wishes do.
        if request.resource_names_subscribe.is_empty()
            && request.resource_names_unsubscribe.is_empty()
        {
            return Ok(None);
        }
        request.response_nonce.clear();
        request.error_detail = None;
        Ok(Some(request.encode_to_vec().into()))
    }

    pub(super) fn response(&mut self, bytes: Bytes) -> Result<FromControl, Status> {
        let response = wire::decode_delta(bytes).map_err(Status::internal)?;
        if self.wants_names && response.type_url == ResourceType::NameTable.type_url() {
            let body = response
                .resources
                .first()
                .map(|resource| resource.body.clone());
            let table = body.map(NameTable::decode).transpose();
            let answer = DeltaDiscoveryRequest {
                type_url: response.type_url,
                response_nonce: response.nonce,
                ..Default::default()
            };
            let table = table.map_err(Status::internal)?;
            return Ok(FromControl::Names {
                table,
                answer: answer.encode_to_vec().into(),
            });
        }
        self.current.insert(response.nonce.clone());
        if let Some(state) = self.state(&response.type_url) {
            let added = response.resources.into_iter();
            let change = Change {
                added: added
                    .map(|resource| (resource.name, resource.version))
                    .collect(),
                removed: response.removed,
            };
            state.waiting.insert(response.nonce, change);
        }
        Ok(FromControl::Forward)
    }

    pub(super) fn announce(&mut self) -> Vec<Bytes> {
        self.current.clear();
        let mut requests: Vec<DeltaDiscoveryRequest> = self
            .types
            .iter()
            .map(|(type_url, state)| DeltaDiscoveryRequest {
                type_url: type_url.clone(),
                resource_names_subscribe: state.subscription(),
                initial_resource_versions: state.versions.clone(),
                ..Default::default()
            })
            .collect();
        if self.wants_names {
            requests.push(DeltaDiscoveryRequest {
                type_url: ResourceType::NameTable.type_url().to_string(),
                ..Default::default()
            });
        }
        if let Some(first) = requests.first_mut() {
            first.node = self.node.clone();
        }
        requests
            .iter()
            .map(|request| request.encode_to_vec().into())
            .collect()
    }

    fn state(&mut self, type_url: &str) -> Option<&mut TypeState> {
        self.types
            .iter_mut()
            .find(|(known, _)| known == type_url)
            .map(|(_, state)| state)
    }
}

impl TypeState {
    fn note(&mut self, request: &DeltaDiscoveryRequest, is_first: bool) {
        if is_first {
            self.is_wildcard = request.resource_names_subscribe.is_empty();
            self.versions = request.initial_resource_versions.clone();
        }
        self.names
            .extend(request.resource_names_subscribe.iter().cloned());
        for name in &request.resource_names_unsubscribe {
            self.names.remove(name);
            if name == "*" {
                self.is_wildcard = false;
            }
            if !self.is_wildcard && !self.names.contains("*") {
                self.versions.remove(name);
            }
        }
        let Some(change) = self.waiting.remove(&request.response_nonce) else {
            return;
        };
        if request.error_detail.is_none() {
            for name in change.removed {
                self.versions.remove(&name);
            }
            self.versions.extend(change.added);
        }
    }

    fn subscription(&self) -> Vec<String> {
        let mut names: Vec<String> = self.names.iter().cloned().collect();
        if self.is_wildcard && !names.is_empty() && !self.names.contains("*") {
            names.insert(0, "*".to_string());
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use envoy_api::discovery::{DeltaDiscoveryResponse, Resource};

    use super::*;

    const CLUSTERS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

    fn request(type_url: &str, subscribe: &[&str], nonce: &str) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: type_url.into(),
            resource_names_subscribe: subscribe.iter().map(|name| name.to_string()).collect(),
            response_nonce: nonce.into(),
            ..Default::default()
        }
    }

    fn response(type_url: &str, names: &[(&str, &str)], nonce: &str) -> Bytes {
        let resources = names.iter().map(|(name, version)| Resource {
            name: name.to_string(),
            version: version.to_string(),
            ..Default::default()
        });
        let response = DeltaDiscoveryResponse {
            type_url: type_url.into(),
            nonce: nonce.into(),
            resources: resources.collect(),
            ..Default::default()
        };
        response.encode_to_vec().into()
    }

    fn send(tracker: &mut Tracker, request: &DeltaDiscoveryRequest) -> Option<Bytes> {
        tracker.request(request.encode_to_vec().into()).unwrap()
    }

    fn announced(tracker: &mut Tracker) -> Vec<DeltaDiscoveryRequest> {
        let decode = |bytes| DeltaDiscoveryRequest::decode(bytes).unwrap();
        tracker.announce().into_iter().map(decode).collect()
    }

    #[test]
    fn a_new_stream_is_told_everything() {
        let mut tracker = Tracker::new(true);
        let node = Some(Node {
            id: "me".into(),
            ..Default::default()
        });
        send(
            &mut tracker,
            &DeltaDiscoveryRequest {
                node,
                ..request(CLUSTERS, &[], "")
            },
        );
        send(&mut tracker, &request(ENDPOINTS, &["a", "b"], ""));
        let first = announced(&mut tracker);
        assert_eq!(
            first.len(),
            3,
            "two types of the proxy's, and the name table"
        );
        assert_eq!(
            first[0].node.as_ref().map(|node| node.id.as_str()),
            Some("me")
        );
        assert_eq!(
            (&first[1].node, &first[2].node),
            (&None, &None),
            "the node comes once"
        );
        for (type_url, nonce) in [(CLUSTERS, "1"), (ENDPOINTS, "2")] {
            let bytes = response(type_url, &[("a", "v1"), ("b", "v1")], nonce);
            assert_eq!(tracker.response(bytes).unwrap(), FromControl::Forward);
        }
        assert!(
            send(&mut tracker, &request(CLUSTERS, &[], "1")).is_some(),
            "an answer goes on"
        );
        let refused = DeltaDiscoveryRequest {
            error_detail: Some(Default::default()),
            resource_names_unsubscribe: vec!["a".into()],
            ..request(ENDPOINTS, &["c"], "2")
        };
        send(&mut tracker, &refused);
        let again = announced(&mut tracker);
        assert_eq!(
            again[0].resource_names_subscribe, [""; 0],
            "clusters: still all"
        );
        let versions: Vec<_> = again[0].initial_resource_versions.keys().collect();
        assert_eq!(versions, ["a", "b"], "what was accepted is held");
        assert_eq!(again[1].resource_names_subscribe, ["b", "c"]);
        assert!(
            again[1].initial_resource_versions.is_empty(),
            "what was refused is not"
        );
    }

    #[test]
    fn answers_to_an_earlier_stream_stay_here() {
        let mut tracker = Tracker::new(false);
        send(&mut tracker, &request(CLUSTERS, &[], ""));
        tracker.announce();
        tracker
            .response(response(CLUSTERS, &[("a", "v1")], "old"))
            .unwrap();
        tracker.announce();
        assert_eq!(send(&mut tracker, &request(CLUSTERS, &[], "old")), None);
        tracker
            .response(response(CLUSTERS, &[("b", "v1")], "older"))
            .unwrap();
        tracker.announce();
        let sent = send(&mut tracker, &request(CLUSTERS, &["x"], "older")).expect("a new wish");
        let sent = DeltaDiscoveryRequest::decode(sent).unwrap();
        assert_eq!(
            (
                sent.response_nonce.as_str(),
                sent.resource_names_subscribe.len()
            ),
            ("", 1)
        );
        let held = announced(&mut tracker);
        assert_eq!(
            held[0].initial_resource_versions.len(),
            2,
            "both were accepted"
        );
        assert_eq!(held[0].resource_names_subscribe, ["*", "x"], "all, and x");
    }

    #[test]
    fn the_name_table_is_ours() {
        let mut tracker = Tracker::new(true);
        let table = NameTable {
            table: [("a".to_string(), Default::default())].into(),
        };
        let any = prost_types::Any {
            type_url: ResourceType::NameTable.type_url().into(),
            value: table.encode_to_vec(),
        };
        let response = DeltaDiscoveryResponse {
            type_url: any.type_url.clone(),
            nonce: "n".into(),
            resources: vec![Resource {
                resource: Some(any),
                ..Default::default()
            }],
            ..Default::default()
        };
        let got = tracker.response(response.encode_to_vec().into()).unwrap();
        let FromControl::Names {
            table: Some(got),
            answer,
        } = got
        else {
            panic!("{got:?}")
        };
        assert_eq!(got, table);
        assert_eq!(
            DeltaDiscoveryRequest::decode(answer)
                .unwrap()
                .response_nonce,
            "n"
        );
        assert!(
            tracker.response(Bytes::from_static(b"\xff\xff")).is_err(),
            "no message"
        );
    }
}
