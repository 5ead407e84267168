//! The resource types of the discovery protocol, one table in push order.

macro_rules! resource_types {
    ($($variant:ident $short:literal $message:literal,)*) => {
        /// A type of resource. The order is the order of a push: make before break.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ResourceType {
            $(#[doc = $message] $variant,)*
        }

        impl ResourceType {
            /// All types in push order.
            pub const ALL: &'static [ResourceType] = &[$(ResourceType::$variant,)*];

            /// The name of the protobuf message.
            pub fn message_name(self) -> &'static str {
                match self { $(ResourceType::$variant => $message,)* }
            }

            /// `type.googleapis.com/` and the message's name.
            pub fn type_url(self) -> &'static str {
                match self {
                    $(ResourceType::$variant => concat!("type.googleapis.com/", $message),)*
                }
            }

            /// The short name used in tables and logs, such as `CDS`.
            pub fn short_name(self) -> &'static str {
                match self { $(ResourceType::$variant => $short,)* }
            }

            /// The type of a type URL, if it is one of ours.
            pub fn from_type_url(type_url: &str) -> Option<ResourceType> {
                match type_url.strip_prefix("type.googleapis.com/")? {
                    $($message => Some(ResourceType::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

resource_types! {
    Cluster "CDS" "envoy.config.cluster.v3.Cluster",
    Endpoint "EDS" "envoy.config.endpoint.v3.ClusterLoadAssignment",
    Listener "LDS" "envoy.config.listener.v3.Listener",
    Route "RDS" "envoy.config.route.v3.RouteConfiguration",
    VirtualHost "VHDS" "envoy.config.route.v3.VirtualHost",
    Secret "SDS" "envoy.extensions.transport_sockets.tls.v3.Secret",
    ExtensionConfig "ECDS" "envoy.config.core.v3.TypedExtensionConfig",
    NameTable "NDS" "istio.networking.nds.v1.NameTable",
}

impl ResourceType {
    /// Whether a subscription without names means "all": listeners, clusters, and Istio's own.
    pub fn is_wildcard(self) -> bool {
        matches!(
            self,
            ResourceType::Cluster | ResourceType::Listener | ResourceType::NameTable
        )
    }
}

impl std::fmt::Display for ResourceType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.short_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_url_reads_back() {
        for kind in ResourceType::ALL {
            assert_eq!(
                ResourceType::from_type_url(kind.type_url()),
                Some(*kind),
                "{kind}"
            );
        }
        for url in [
            "",
            "envoy.config.cluster.v3.Cluster",
            "type.googleapis.com/x",
        ] {
            assert_eq!(
                ResourceType::from_type_url(url),
                None,
                "{url} is none of ours"
            );
        }
    }
}
