//! Ports as the networking kinds write them.

message! {
    /// A port by number.
    #[derive(Eq, Hash, PartialOrd, Ord)]
    pub struct PortSelector {
        number: u32,
    }
}

message! {
    /// A port of a Gateway's server or of a Sidecar's listener.
    #[derive(Eq, Hash, PartialOrd, Ord)]
    pub struct Port {
        number: u32,
        protocol: String,
        name: String,
        /// Deprecated, without effect.
        target_port: u32,
    }
}

message! {
    /// A port of a ServiceEntry.
    #[derive(Eq, Hash, PartialOrd, Ord)]
    pub struct ServicePort {
        number: u32,
        protocol: String,
        name: String,
        /// 0: the same as `number`.
        target_port: u32,
    }
}
