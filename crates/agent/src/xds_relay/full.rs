//! What a state-of-the-world stream of the proxy has asked for and accepted.

use std::collections::BTreeSet;

use bytes::Bytes;
use envoy_api::ResourceType;
use envoy_api::core::Node;
use envoy_api::discovery::DiscoveryRequest;
use envoy_api::istio::NameTable;
use prost::Message;
use xds::grpc::Status;
use xds::wire;

use super::FromControl;

pub(super) struct Tracker {
    node: Option<Node>,
    wants_names: bool,
    /// The newest request of each type, in the order of their first; without nonce and error.
    types: Vec<DiscoveryRequest>,
    current: BTreeSet<String>,
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
            DiscoveryRequest::decode(bytes.clone()).map_err(Status::invalid_argument)?;
        if let Some(node) = request.node.take() {
            self.node = Some(node);
        }
        let nonce = std::mem::take(&mut request.response_nonce);
        request.error_detail = None;
        let known = self
            .types
            .iter_mut()
            .find(|known| known.type_url == request.type_url);
        let is_changed = match known {
            Some(known) => {
                let is_changed = known.resource_names != request.resource_names;
                *known = request.clone();
                is_changed
            }
            None => {
                self.types.push(request.clone());
                true
            }
        };
        if nonce.is_empty() || self.current.remove(&nonce) {
            return Ok(Some(bytes));
        }
        // An answer to an earlier stream means nothing on this one; changed names do.
        Ok(is_changed.then(|| request.encode_to_vec().into()))
    }

    pub(super) fn response(&mut self, bytes: Bytes) -> Result<FromControl, Status> {
        let response = wire::decode_full(bytes).map_err(Status::internal)?;
        if self.wants_names && response.type_url == ResourceType::NameTable.type_url() {
            let body = response
                .resources
                .first()
                .map(|resource| resource.body.clone());
            let table = body
                .map(NameTable::decode)
                .transpose()
                .map_err(Status::internal)?;
            let answer = DiscoveryRequest {
                type_url: response.type_url,
                version_info: response.version,
                response_nonce: response.nonce,
                ..Default::default()
            };
            return Ok(FromControl::Names {
                table,
                answer: answer.encode_to_vec().into(),
            });
        }
        self.current.insert(response.nonce);
        Ok(FromControl::Forward)
    }

    pub(super) fn announce(&mut self) -> Vec<Bytes> {
        self.current.clear();
        let mut requests = self.types.clone();
        if self.wants_names {
            requests.push(DiscoveryRequest {
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
}

#[cfg(test)]
mod tests {
    use envoy_api::discovery::DiscoveryResponse;

    use super::*;

    const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";

    fn request(names: &[&str], version: &str, nonce: &str) -> Bytes {
        let request = DiscoveryRequest {
            type_url: ROUTES.into(),
            resource_names: names.iter().map(|name| name.to_string()).collect(),
            version_info: version.into(),
            response_nonce: nonce.into(),
            ..Default::default()
        };
        request.encode_to_vec().into()
    }

    #[test]
    fn a_new_stream_is_told_everything() {
        let mut tracker = Tracker::new(false);
        assert!(tracker.request(request(&["80"], "", "")).unwrap().is_some());
        tracker.announce();
        let response = DiscoveryResponse {
            type_url: ROUTES.into(),
            version_info: "7".into(),
            nonce: "n".into(),
            ..Default::default()
        };
        tracker.response(response.encode_to_vec().into()).unwrap();
        assert!(
            tracker
                .request(request(&["80"], "7", "n"))
                .unwrap()
                .is_some()
        );
        assert_eq!(
            tracker.request(request(&["80"], "7", "n")).unwrap(),
            None,
            "answered twice"
        );
        let changed = tracker.request(request(&["80", "81"], "7", "n")).unwrap();
        let changed = DiscoveryRequest::decode(changed.expect("new names")).unwrap();
        assert_eq!(changed.response_nonce, "", "without the old nonce");
        let again = tracker.announce().remove(0);
        let again = DiscoveryRequest::decode(again).unwrap();
        assert_eq!(
            (again.version_info.as_str(), again.resource_names.len()),
            ("7", 2)
        );
    }
}
