//! Round robin; hosts with weights come as often as their weights say.

use std::sync::Arc;

use super::edf::Edf;
use crate::cluster::shared::Host;

#[derive(Debug)]
pub struct RoundRobin {
    hosts: Vec<Arc<Host>>,
    next: usize,
    weighted: Option<Edf>,
}

/// Whether all weights are the same.
pub fn equal(hosts: &[(Arc<Host>, f64)]) -> bool {
    hosts.windows(2).all(|pair| pair[0].1 == pair[1].1)
}

impl RoundRobin {
    pub fn new(hosts: &[(Arc<Host>, f64)], seed: u64) -> RoundRobin {
        let weights: Vec<f64> = hosts.iter().map(|(_, weight)| *weight).collect();
        RoundRobin {
            next: (seed % hosts.len().max(1) as u64) as usize,
            weighted: (!equal(hosts)).then(|| Edf::new(&weights, seed)),
            hosts: hosts.iter().map(|(host, _)| host.clone()).collect(),
        }
    }

    pub fn choose(&mut self) -> Arc<Host> {
        let at = match &mut self.weighted {
            Some(edf) => edf.pick(|_, weight| weight).unwrap_or(0),
            None => {
                let at = self.next;
                self.next = (at + 1) % self.hosts.len();
                at
            }
        };
        self.hosts[at].clone()
    }
}
