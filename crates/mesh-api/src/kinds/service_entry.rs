//! ServiceEntry: a service that no platform's registry knows.

use super::port::ServicePort;
use super::selector::LabelSelector;
use super::workload_entry::WorkloadEntry;

message! {
    pub struct ServiceEntry {
        hosts: Vec<String>,
        addresses: Vec<String>,
        ports: Vec<ServicePort>,
        location: Location,
        resolution: Resolution,
        endpoints: Vec<WorkloadEntry>,
        workload_selector: Option<LabelSelector>,
        export_to: Vec<String>,
        subject_alt_names: Vec<String>,
    }
}

enumeration! {
    pub enum Location {
        MeshExternal = "MESH_EXTERNAL",
        MeshInternal = "MESH_INTERNAL",
    }
}

enumeration! {
    pub enum Resolution {
        None = "NONE",
        Static = "STATIC",
        Dns = "DNS",
        DnsRoundRobin = "DNS_ROUND_ROBIN",
        DynamicDns = "DYNAMIC_DNS",
    }
}
