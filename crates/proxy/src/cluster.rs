//! Clusters: hosts, load balancing, breakers, outlier detection, pools and connecting.
pub mod shared;
pub mod load_balancer;
pub mod outlier;
