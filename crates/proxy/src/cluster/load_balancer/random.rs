//! Any host, each as likely as the next; weights do not count, as in Envoy.

use std::sync::Arc;

use crate::cluster::shared::Host;

#[derive(Debug)]
pub struct Random(Vec<Arc<Host>>);

impl Random {
    pub fn new(hosts: &[(Arc<Host>, f64)]) -> Random {
        Random(hosts.iter().map(|(host, _)| host.clone()).collect())
    }

    pub fn choose(&mut self, random: u64) -> Arc<Host> {
        self.0[(random % self.0.len() as u64) as usize].clone()
    }
}
