//! Clusters: hosts, load balancing, breakers, outlier detection, pools and connecting.
pub mod shared;
