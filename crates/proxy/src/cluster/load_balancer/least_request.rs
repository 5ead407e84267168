//! Least requests: the better of a few random hosts; with different weights, the weights lowered
//! by the active requests.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::mix;
use super::weights::Weights;
use crate::cluster::shared::Host;

#[derive(Debug)]
pub struct LeastRequest {
    hosts: Vec<Arc<Host>>,
    choices: u32,
    bias: f64,
    weights: Weights,
}

/// More looks than this are not worth their time.
const MAX_CHOICES: u32 = 64;

impl LeastRequest {
    pub fn new(
        hosts: &[(Arc<Host>, f64)],
        (choices, bias): (u32, f64),
        weights: Weights,
    ) -> LeastRequest {
        LeastRequest {
            weights,
            hosts: hosts.iter().map(|(host, _)| host.clone()).collect(),
            choices: choices.clamp(2, MAX_CHOICES),
            bias,
        }
    }

    pub fn choose(&mut self, mut random: u64) -> Arc<Host> {
        let hosts = &self.hosts;
        let active = |at: usize| hosts[at].block.active_requests.load(Ordering::Relaxed);
        let bias = self.bias;
        let lowered = |at: usize, weight: f64| match bias {
            0.0 => weight,
            1.0 => weight / (f64::from(active(at)) + 1.0),
            bias => weight / (f64::from(active(at)) + 1.0).powf(bias),
        };
        if let Some(at) = self.weights.pick(lowered) {
            return hosts[at].clone();
        }
        let mut best = (random % hosts.len() as u64) as usize;
        for _ in 1..self.choices {
            random = mix(random);
            let other = (random % hosts.len() as u64) as usize;
            if active(other) < active(best) {
                best = other;
            }
        }
        hosts[best].clone()
    }
}
