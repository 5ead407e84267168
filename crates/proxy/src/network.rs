//! Network level: transports (sockets, TLS), the TCP proxy, the entry into HTTP.
pub mod transport;
pub mod rbac;
