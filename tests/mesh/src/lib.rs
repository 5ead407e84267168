//! Shared pieces of the whole-mesh tests: cases, controllable upstreams, clients, proxies.

#![allow(clippy::unwrap_used)]

pub mod bootstrap;
pub mod call;
pub mod case;
pub mod certificates;
pub mod client;
pub mod compare;
pub mod http1;
pub mod load;
pub mod mesh;
pub mod normal;
pub mod programs;
pub mod proxy_process;
pub mod run;
pub mod upstream;
pub mod wait;
pub mod web;
pub mod wire;
pub mod yaml;
