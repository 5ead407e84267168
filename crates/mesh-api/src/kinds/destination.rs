//! Where traffic is sent to, and the share of it.

use super::port::PortSelector;

message! {
    #[derive(Eq, Hash, PartialOrd, Ord)]
    pub struct Destination {
        host: String,
        subset: String,
        port: Option<PortSelector>,
    }
}

message! {
    /// A destination of TCP or TLS traffic.
    #[derive(Eq)]
    pub struct RouteDestination {
        destination: Option<Destination>,
        weight: i32,
    }
}

message! {
    /// 0 to 100.
    pub struct Percent {
        value: f64,
    }
}
