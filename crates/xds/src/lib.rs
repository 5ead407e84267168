//! Both ends of the discovery protocol (xDS v3), state of the world and delta, as sans-IO state
//! machines, and (feature `grpc`) the gRPC transport that drives them.

pub mod client;
#[cfg(feature = "grpc")]
pub mod grpc;
pub mod server;
mod subscription;
pub mod wire;

pub use subscription::Interest;

/// Which of the two protocols a stream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Only what changed travels.
    Delta,
    /// Each response holds the whole type (listeners, clusters) or the names asked for.
    StateOfTheWorld,
}

/// Which discovery service a stream is opened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// All types on one stream (ADS).
    Aggregated,
    /// Secrets only (SDS), as an agent serves them to its proxy.
    Secrets,
}

impl Service {
    /// The gRPC path of a stream.
    pub fn path(self, mode: Mode) -> &'static str {
        match (self, mode) {
            (Service::Aggregated, Mode::Delta) => concat!(
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/",
                "DeltaAggregatedResources"
            ),
            (Service::Aggregated, Mode::StateOfTheWorld) => concat!(
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/",
                "StreamAggregatedResources"
            ),
            (Service::Secrets, Mode::Delta) => {
                "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets"
            }
            (Service::Secrets, Mode::StateOfTheWorld) => {
                "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
            }
        }
    }

    /// The service and mode of a gRPC path, if it is one of ours.
    pub fn from_path(path: &str) -> Option<(Service, Mode)> {
        [Service::Aggregated, Service::Secrets]
            .into_iter()
            .flat_map(|service| {
                [Mode::Delta, Mode::StateOfTheWorld]
                    .into_iter()
                    .map(move |mode| (service, mode))
            })
            .find(|(service, mode)| service.path(*mode) == path)
    }
}
