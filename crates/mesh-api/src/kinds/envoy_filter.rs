//! EnvoyFilter: patches of the generated Envoy configuration.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::selector::{LabelSelector, PolicyTargetReference};

message! {
    pub struct EnvoyFilter {
        workload_selector: Option<LabelSelector>,
        target_refs: Vec<PolicyTargetReference>,
        config_patches: Vec<EnvoyConfigObjectPatch>,
        priority: i32,
    }
}

message! {
    pub struct EnvoyConfigObjectPatch {
        apply_to: ApplyTo,
        r#match: Option<EnvoyConfigObjectMatch>,
        patch: Option<Patch>,
    }
}

enumeration! {
    pub enum ApplyTo {
        Invalid = "INVALID",
        Listener = "LISTENER",
        FilterChain = "FILTER_CHAIN",
        NetworkFilter = "NETWORK_FILTER",
        HttpFilter = "HTTP_FILTER",
        RouteConfiguration = "ROUTE_CONFIGURATION",
        VirtualHost = "VIRTUAL_HOST",
        HttpRoute = "HTTP_ROUTE",
        Cluster = "CLUSTER",
        ExtensionConfig = "EXTENSION_CONFIG",
        Bootstrap = "BOOTSTRAP",
        ListenerFilter = "LISTENER_FILTER",
    }
}

message! {
    pub struct EnvoyConfigObjectMatch {
        context: PatchContext,
        proxy: Option<ProxyMatch>,
    } oneof {
        object_types: ObjectTypes,
    }
}

enumeration! {
    pub enum PatchContext {
        Any = "ANY",
        SidecarInbound = "SIDECAR_INBOUND",
        SidecarOutbound = "SIDECAR_OUTBOUND",
        Gateway = "GATEWAY",
        Waypoint = "WAYPOINT",
    }
}

message! {
    pub struct ProxyMatch {
        proxy_version: String,
        metadata: BTreeMap<String, String>,
    }
}

oneof! {
    pub enum ObjectTypes {
        Listener(ListenerMatch) = "listener",
        RouteConfiguration(RouteConfigurationMatch) = "routeConfiguration",
        Cluster(ClusterMatch) = "cluster",
        Waypoint(WaypointMatch) = "waypoint",
    }
}

message! {
    pub struct ListenerMatch {
        port_number: u32,
        port_name: String,
        filter_chain: Option<FilterChainMatch>,
        listener_filter: String,
        name: String,
    }
}

message! {
    pub struct FilterChainMatch {
        name: String,
        sni: String,
        transport_protocol: String,
        transport_socket: String,
        application_protocols: String,
        filter: Option<FilterMatch>,
        destination_port: u32,
    }
}

message! {
    pub struct FilterMatch {
        name: String,
        sub_filter: Option<SubFilterMatch>,
    }
}

message! {
    pub struct SubFilterMatch {
        name: String,
    }
}

message! {
    pub struct RouteConfigurationMatch {
        port_number: u32,
        port_name: String,
        gateway: String,
        vhost: Option<VirtualHostMatch>,
        name: String,
    }
}

message! {
    pub struct VirtualHostMatch {
        name: String,
        domain_name: String,
        route: Option<RouteMatch>,
    }
}

message! {
    pub struct RouteMatch {
        name: String,
        action: RouteAction,
    }
}

enumeration! {
    pub enum RouteAction {
        Any = "ANY",
        Route = "ROUTE",
        Redirect = "REDIRECT",
        DirectResponse = "DIRECT_RESPONSE",
    }
}

message! {
    pub struct ClusterMatch {
        port_number: u32,
        service: String,
        subset: String,
        name: String,
    }
}

message! {
    pub struct WaypointMatch {
        port_number: u32,
        route: Option<WaypointRouteMatch>,
        filter: Option<FilterMatch>,
    }
}

message! {
    pub struct WaypointRouteMatch {
        name: String,
    }
}

message! {
    pub struct Patch {
        operation: PatchOperation,
        /// Envoy's configuration, free-form here.
        value: Option<Json>,
        filter_class: FilterClass,
    }
}

enumeration! {
    pub enum PatchOperation {
        Invalid = "INVALID",
        Merge = "MERGE",
        Add = "ADD",
        Remove = "REMOVE",
        InsertBefore = "INSERT_BEFORE",
        InsertAfter = "INSERT_AFTER",
        InsertFirst = "INSERT_FIRST",
        Replace = "REPLACE",
        MergeAndReplaceList = "MERGE_AND_REPLACE_LIST",
    }
}

enumeration! {
    pub enum FilterClass {
        Unspecified = "UNSPECIFIED",
        Authn = "AUTHN",
        Authz = "AUTHZ",
        Stats = "STATS",
    }
}
