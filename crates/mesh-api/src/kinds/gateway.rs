//! Gateway (Istio's): which ports and hosts a gateway workload serves.

use std::collections::BTreeMap;

use super::port::Port;
use super::tls_settings::ServerTlsSettings;

message! {
    pub struct Gateway {
        servers: Vec<Server>,
        selector: BTreeMap<String, String>,
    }
}

message! {
    pub struct Server {
        port: Option<Port>,
        bind: String,
        hosts: Vec<String>,
        tls: Option<ServerTlsSettings>,
        /// Not implemented by Istio either.
        default_endpoint: String,
        name: String,
    }
}
