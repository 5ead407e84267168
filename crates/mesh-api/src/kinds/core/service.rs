//! Service: a name, a virtual address and a selection of pods.

use std::collections::BTreeMap;

use super::{IntOrString, Opaque};

message! {
    pub struct ServiceSpec {
        r#type: ServiceType,
        selector: BTreeMap<String, String>,
        ports: Vec<ServicePort>,
        cluster_ip = "clusterIP": String,
        cluster_ips = "clusterIPs": Vec<String>,
        external_name: String,
        external_ips = "externalIPs": Vec<String>,
        publish_not_ready_addresses: bool,
        session_affinity: String,
        session_affinity_config: Opaque,
        internal_traffic_policy: String,
        external_traffic_policy: String,
        traffic_distribution: String,
        load_balancer_ip = "loadBalancerIP": String,
        load_balancer_class: String,
        load_balancer_source_ranges: Vec<String>,
        allocate_load_balancer_node_ports: Option<bool>,
        health_check_node_port: i32,
        ip_families: Vec<String>,
        ip_family_policy: String,
    }
}

impl ServiceSpec {
    pub fn is_headless(&self) -> bool {
        self.cluster_ip == "None"
    }
}

enumeration! {
    pub enum ServiceType {
        ClusterIp = "ClusterIP",
        NodePort = "NodePort",
        LoadBalancer = "LoadBalancer",
        ExternalName = "ExternalName",
    }
}

message! {
    pub struct ServicePort {
        name: String,
        /// `TCP` (also when empty), `UDP` or `SCTP`.
        protocol: String,
        app_protocol: String,
        port: i32,
        target_port: Option<IntOrString>,
        node_port: i32,
    }
}
