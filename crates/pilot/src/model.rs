//! The mesh as pilot sees it: services, workloads, endpoints and the proxies that ask.
//! Sources translate their own objects into these types; nothing here knows Envoy.

pub mod endpoint;
pub mod locality;
pub mod port;
pub mod proxy;
pub mod service;
pub mod workload;

pub use endpoint::{Endpoint, EndpointAddress, Health, TlsMode};
pub use locality::Locality;
pub use port::{Port, Protocol, TargetPort};
pub use proxy::{Capabilities, Interception, NodeError, ProxyView, Role};
pub use service::{Registry, Resolution, Service, ServiceKey};
pub use workload::{Workload, WorkloadKey};

use std::collections::BTreeMap;

/// Labels of a workload, an endpoint or a service.
pub type Labels = BTreeMap<String, String>;

/// Whether `labels` carry every pair of `selector`; an empty selector selects everything.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect()
    }

    #[test]
    fn selectors_are_subsets() {
        for (selector, want, why) in [
            (labels(&[]), true, "an empty selector selects everything"),
            (labels(&[("app", "a")]), true, "a subset selects"),
            (labels(&[("app", "b")]), false, "another value does not"),
            (
                labels(&[("app", "a"), ("version", "v2")]),
                false,
                "all pairs are needed",
            ),
        ] {
            let target = labels(&[("app", "a"), ("version", "v1")]);
            assert_eq!(selects(&selector, &target), want, "{why}");
        }
    }
}
