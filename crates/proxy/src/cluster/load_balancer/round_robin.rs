//! Round robin; hosts with weights come as often as their weights say.

use std::sync::Arc;

use super::weights::Weights;
use crate::cluster::shared::Host;

#[derive(Debug)]
pub struct RoundRobin {
    hosts: Vec<Arc<Host>>,
    next: usize,
    weights: Weights,
}

impl RoundRobin {
    pub fn new(hosts: &[(Arc<Host>, f64)], weights: Weights, seed: u64) -> RoundRobin {
        RoundRobin {
            next: (seed % hosts.len().max(1) as u64) as usize,
            weights,
            hosts: hosts.iter().map(|(host, _)| host.clone()).collect(),
        }
    }

    pub fn choose(&mut self) -> Arc<Host> {
        let at = match self.weights.pick(|_, weight| weight) {
            Some(at) => at,
            None => {
                let at = self.next;
                self.next = (at + 1) % self.hosts.len();
                at
            }
        };
        self.hosts[at].clone()
    }
}
