//! Hosts by weight, where weights differ or where new hosts take less than their share at first
//! (slow start).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::edf::Edf;
use crate::cluster::shared::Host;
use crate::parse::cluster::SlowStart;

/// The order of weighted hosts; nothing where all weights are the same.
#[derive(Debug)]
pub struct Weights {
    edf: Option<Edf>,
    warming: Option<Warming>,
}

/// Some host is new.
#[derive(Debug)]
struct Warming {
    config: SlowStart,
    /// Each host's own weight, and when it came.
    hosts: Vec<(f64, Instant)>,
    until: Instant,
}

impl Warming {
    fn of(hosts: &[(Arc<Host>, f64)], config: &SlowStart, now: Instant) -> Option<Warming> {
        let hosts: Vec<(f64, Instant)> = hosts
            .iter()
            .map(|(host, weight)| (*weight, host.block.since.0))
            .collect();
        let newest = hosts.iter().map(|(_, since)| *since).max()?;
        let until = newest + config.window;
        (until > now).then(|| Warming {
            config: config.clone(),
            hosts,
            until,
        })
    }

    fn weight(&self, at: usize, now: Instant) -> f64 {
        let (weight, since) = self.hosts[at];
        weight * share(&self.config, now.duration_since(since))
    }
}

/// Envoy's share of its weight for a host of this age.
fn share(config: &SlowStart, age: Duration) -> f64 {
    if age >= config.window {
        return 1.0;
    }
    let age = age.max(Duration::from_millis(1)).as_secs_f64();
    let time = (age / config.window.as_secs_f64()).min(1.0);
    let grown = if config.aggression == 1.0 || config.aggression <= 0.0 {
        time
    } else {
        time.powf(1.0 / config.aggression)
    };
    grown.max(config.min_weight / 100.0)
}

impl Weights {
    pub fn new(hosts: &[(Arc<Host>, f64)], slow_start: Option<&SlowStart>, seed: u64) -> Weights {
        let now = Instant::now();
        let warming = slow_start.and_then(|config| Warming::of(hosts, config, now));
        let weights: Vec<f64> = match &warming {
            Some(warming) => (0..hosts.len()).map(|at| warming.weight(at, now)).collect(),
            None => hosts.iter().map(|(_, weight)| *weight).collect(),
        };
        let edf = warming.is_some() || !equal(&weights);
        Weights {
            edf: edf.then(|| Edf::new(&weights, seed)),
            warming,
        }
    }

    /// The next host; `lowered` may change the weight with which it comes back.
    pub fn pick(&mut self, lowered: impl Fn(usize, f64) -> f64) -> Option<usize> {
        if self.warming.is_some() {
            self.end_of_warming();
        }
        let edf = self.edf.as_mut()?;
        match &self.warming {
            None => edf.pick(lowered),
            Some(warming) => {
                let now = Instant::now();
                edf.pick(|at, _| lowered(at, warming.weight(at, now)))
            }
        }
    }

    fn end_of_warming(&mut self) {
        let over = |warming: &mut Warming| warming.until <= Instant::now();
        if let Some(warming) = self.warming.take_if(over) {
            let weights: Vec<f64> = warming.hosts.iter().map(|(weight, _)| *weight).collect();
            self.edf = (!equal(&weights)).then(|| Edf::new(&weights, 0));
        }
    }
}

fn equal(weights: &[f64]) -> bool {
    weights.windows(2).all(|pair| pair[0] == pair[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_into_its_weight() {
        let config = |aggression| SlowStart {
            window: Duration::from_secs(10),
            aggression,
            min_weight: 10.0,
        };
        for (aggression, age, want, why) in [
            (1.0, 0, 0.1, "the least share"),
            (1.0, 5_000, 0.5, "linear"),
            (2.0, 2_500, 0.5, "faster at first"),
            (0.5, 5_000, 0.25, "slower at first"),
            (1.0, 10_000, 1.0, "over"),
            (1.0, 60_000, 1.0, "long over"),
        ] {
            let got = share(&config(aggression), Duration::from_millis(age));
            assert!((got - want).abs() < 1e-9, "{why}: {got}");
        }
    }
}
