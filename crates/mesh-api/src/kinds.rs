//! The table of kinds. A kind is one file under `kinds/` and one row here; everything that
//! depends on the list of kinds (parsing, watches, `get`) is derived from the rows.
// tidy: table

pub mod authorization_policy;
pub mod connection_pool;
pub mod core;
pub mod destination;
pub mod destination_rule;
pub mod envoy_filter;
pub mod gateway;
pub mod load_balancer;
pub mod outlier_detection;
pub mod peer_authentication;
pub mod port;
pub mod proxy_config;
pub mod request_authentication;
pub mod selector;
pub mod service_entry;
pub mod sidecar;
pub mod string_match;
pub mod telemetry;
pub mod tls_settings;
pub mod traffic_extension;
pub mod traffic_policy;
pub mod virtual_service;
pub mod wasm_plugin;
pub mod workload_entry;
pub mod workload_group;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::core::ServiceSpec;
use self::core::{ConfigMap, DeploymentSpec, Namespace, PodSpec, Secret, ServiceAccount};
use crate::decode::{Decode, Decoder, Encode};
use crate::node::Node;
use authorization_policy::AuthorizationPolicy;
use destination_rule::DestinationRule;
use envoy_filter::EnvoyFilter;
use gateway::Gateway;
use peer_authentication::PeerAuthentication;
use proxy_config::ProxyConfig;
use request_authentication::RequestAuthentication;
use service_entry::ServiceEntry;
use sidecar::Sidecar;
use telemetry::Telemetry;
use traffic_extension::TrafficExtension;
use virtual_service::VirtualService;
use wasm_plugin::WasmPlugin;
use workload_entry::WorkloadEntry;
use workload_group::WorkloadGroup;

/// Where an object of the kind lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// Where the kind's own fields stand: under `spec`, or beside `metadata`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Spec,
    Top,
}

macro_rules! kinds {
    ($($kind:ident($type:ident) $group:literal [$first:literal $(, $more:literal)*]
       $plural:literal [$($short:literal),*] $scope:ident $body:ident;)*) => {
        /// The kind of an object.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind { $($kind),* }

        /// The kind's own part of an object.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Spec { $($kind(Box<$type>)),* }

        impl Kind {
            pub const ALL: &'static [Kind] = &[$(Kind::$kind),*];

            /// `VirtualService`.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$kind => stringify!($kind)),* }
            }

            /// `networking.istio.io`; empty for Kubernetes' core group.
            pub fn group(self) -> &'static str {
                match self { $(Kind::$kind => $group),* }
            }

            /// The versions that are read, the preferred one first.
            pub fn versions(self) -> &'static [&'static str] {
                match self { $(Kind::$kind => &[$first $(, $more)*]),* }
            }

            /// `virtualservices`.
            pub fn plural(self) -> &'static str {
                match self { $(Kind::$kind => $plural),* }
            }

            pub fn short_names(self) -> &'static [&'static str] {
                match self { $(Kind::$kind => &[$($short),*]),* }
            }

            pub fn scope(self) -> Scope {
                match self { $(Kind::$kind => Scope::$scope),* }
            }

            fn body(self) -> Body {
                match self { $(Kind::$kind => Body::$body),* }
            }

            /// The names of the fields of the kind's body.
            pub fn field_names(self) -> Vec<String> {
                match self { $(Kind::$kind => $type::field_names()),* }
            }

            /// Reads the kind's body.
            pub(crate) fn decode(self, node: &Node, decoder: &mut Decoder) -> Option<Spec> {
                match self { $(
                    Kind::$kind => <$type>::decode(node, decoder).map(|s| Spec::$kind(Box::new(s)))
                ),* }
            }
        }

        impl Spec {
            pub fn kind(&self) -> Kind {
                match self { $(Spec::$kind(_) => Kind::$kind),* }
            }

            /// The spec (or body) as JSON.
            pub fn to_json(&self) -> serde_json::Value {
                match self { $(Spec::$kind(spec) => spec.encode()),* }
            }
        }

        $(impl From<$type> for Spec {
            fn from(spec: $type) -> Spec {
                Spec::$kind(Box::new(spec))
            }
        })*
    };
}

kinds! {
    VirtualService(VirtualService) "networking.istio.io" ["v1", "v1beta1", "v1alpha3"]
        "virtualservices" ["vs"] Namespaced Spec;
    DestinationRule(DestinationRule) "networking.istio.io" ["v1", "v1beta1", "v1alpha3"]
        "destinationrules" ["dr"] Namespaced Spec;
    Gateway(Gateway) "networking.istio.io" ["v1", "v1beta1", "v1alpha3"]
        "gateways" ["gw"] Namespaced Spec;
    ServiceEntry(ServiceEntry) "networking.istio.io" ["v1", "v1beta1", "v1alpha3"]
        "serviceentries" ["se"] Namespaced Spec;
    WorkloadEntry(WorkloadEntry) "networking.istio.io" ["v1", "v1beta1", "v1alpha3"]
        "workloadentries" ["we"] Namespaced Spec;
    WorkloadGroup(WorkloadGroup) "networking.istio.io" ["v1", "v1beta1", "v1alpha3"]
        "workloadgroups" ["wg"] Namespaced Spec;
    Sidecar(Sidecar) "networking.istio.io" ["v1", "v1beta1", "v1alpha3"]
        "sidecars" [] Namespaced Spec;
    EnvoyFilter(EnvoyFilter) "networking.istio.io" ["v1alpha3"]
        "envoyfilters" [] Namespaced Spec;
    ProxyConfig(ProxyConfig) "networking.istio.io" ["v1beta1"]
        "proxyconfigs" [] Namespaced Spec;
    PeerAuthentication(PeerAuthentication) "security.istio.io" ["v1", "v1beta1"]
        "peerauthentications" ["pa"] Namespaced Spec;
    RequestAuthentication(RequestAuthentication) "security.istio.io" ["v1", "v1beta1"]
        "requestauthentications" ["ra"] Namespaced Spec;
    AuthorizationPolicy(AuthorizationPolicy) "security.istio.io" ["v1", "v1beta1"]
        "authorizationpolicies" ["ap"] Namespaced Spec;
    Telemetry(Telemetry) "telemetry.istio.io" ["v1alpha1", "v1"]
        "telemetries" ["telemetry"] Namespaced Spec;
    WasmPlugin(WasmPlugin) "extensions.istio.io" ["v1alpha1"]
        "wasmplugins" [] Namespaced Spec;
    TrafficExtension(TrafficExtension) "extensions.istio.io" ["v1alpha1"]
        "trafficextensions" [] Namespaced Spec;
    Namespace(Namespace) "" ["v1"] "namespaces" ["ns"] Cluster Spec;
    ServiceAccount(ServiceAccount) "" ["v1"] "serviceaccounts" ["sa"] Namespaced Top;
    Service(ServiceSpec) "" ["v1"] "services" ["svc"] Namespaced Spec;
    Deployment(DeploymentSpec) "apps" ["v1"] "deployments" ["deploy"] Namespaced Spec;
    Pod(PodSpec) "" ["v1"] "pods" ["po"] Namespaced Spec;
    ConfigMap(ConfigMap) "" ["v1"] "configmaps" ["cm"] Namespaced Top;
    Secret(Secret) "" ["v1"] "secrets" [] Namespaced Top;
}

impl Kind {
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// What a user types after `get`: kind, plural or short name, in any case.
    pub fn from_word(word: &str) -> Option<Kind> {
        let word = word.to_ascii_lowercase();
        let word = word
            .split_once('.')
            .map_or(word.as_str(), |(plural, _)| plural);
        Kind::ALL.iter().copied().find(|kind| {
            kind.plural() == word
                || kind.name().eq_ignore_ascii_case(word)
                || kind.short_names().contains(&word)
        })
    }

    /// The kind with this group (empty for core) and name, in any version.
    pub fn from_group_kind(group: &str, name: &str) -> Option<Kind> {
        Kind::from_name(name).filter(|kind| kind.group() == group)
    }

    /// Group and preferred version: `networking.istio.io/v1`, `v1`.
    pub fn api_version(self) -> String {
        let version = self.versions().first().copied().unwrap_or("v1");
        match self.group() {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        }
    }

    pub fn namespaced(self) -> bool {
        self.scope() == Scope::Namespaced
    }

    /// Whether the kind's fields stand under `spec`.
    pub fn has_spec(self) -> bool {
        self.body() == Body::Spec
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Kind::from_name(&name)
            .ok_or_else(|| serde::de::Error::custom(format!("unknown kind {name:?}")))
    }
}
