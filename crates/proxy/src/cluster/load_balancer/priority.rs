//! How traffic is spread over priorities: by health, with Envoy's overprovisioning and panic.

use crate::cluster::shared::Endpoints;

/// Which hosts of a priority take the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    Healthy,
    Degraded,
    /// Too few are healthy: all of them.
    Panic,
}

/// Percent of the traffic for each priority.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loads {
    healthy: Vec<u32>,
    degraded: Vec<u32>,
    panic: Vec<bool>,
}

/// What is known of a priority.
struct Health {
    healthy: u32,
    degraded: u32,
    total: u32,
}

impl Health {
    /// Percent that can be served, overprovisioned.
    fn available(&self, count: u32, factor: u32) -> u32 {
        if self.total == 0 {
            return 0;
        }
        let percent = u64::from(factor) * u64::from(count) / u64::from(self.total);
        u32::try_from(percent.min(100)).unwrap_or(100)
    }
}

impl Loads {
    pub fn of(endpoints: &Endpoints, panic_threshold: f64) -> Loads {
        Loads::over(endpoints, panic_threshold, &[])
    }

    /// Loads where some priorities count as having no hosts.
    pub fn without(&self, excluded: &[u32], endpoints: &Endpoints) -> Loads {
        Loads::over(endpoints, 0.0, excluded)
    }

    /// Of each priority; the excluded have no hosts.
    fn health(endpoints: &Endpoints, excluded: &[u32]) -> Vec<Health> {
        endpoints
            .priorities
            .iter()
            .enumerate()
            .map(|(at, priority)| {
                if excluded.contains(&(at as u32)) {
                    return Health {
                        healthy: 0,
                        degraded: 0,
                        total: 0,
                    };
                }
                let count = |wanted: &dyn Fn(&crate::cluster::shared::Host) -> bool| {
                    priority.hosts.iter().filter(|host| wanted(host)).count() as u32
                };
                Health {
                    healthy: count(&|host| host.is_healthy()),
                    degraded: count(&|host| host.is_degraded()),
                    total: priority.hosts.len() as u32,
                }
            })
            .collect()
    }

    fn over(endpoints: &Endpoints, panic_threshold: f64, excluded: &[u32]) -> Loads {
        let factor = endpoints.overprovisioning_factor;
        let health = Loads::health(endpoints, excluded);
        let healthy: Vec<u32> = health
            .iter()
            .map(|h| h.available(h.healthy, factor))
            .collect();
        let degraded: Vec<u32> = health
            .iter()
            .map(|h| h.available(h.degraded, factor))
            .collect();
        let total = healthy.iter().chain(&degraded).sum::<u32>().min(100);
        let in_panic = |h: &Health| {
            let usable = f64::from(h.healthy + h.degraded);
            h.total == 0 || usable * 100.0 / f64::from(h.total) < panic_threshold.min(100.0)
        };
        if total == 0 && panic_threshold == 0.0 && excluded.is_empty() {
            // Panic is switched off: the first priority answers for all, with nobody.
            let mut healthy = vec![0; health.len()];
            healthy.iter_mut().take(1).for_each(|load| *load = 100);
            return Loads {
                healthy,
                degraded: vec![0; health.len()],
                panic: vec![false; health.len()],
            };
        }
        if total == 0 {
            return Loads::total_panic(&health);
        }
        // Where all traffic can be served somewhere, nothing panics.
        let panic = health.iter().map(|h| total != 100 && in_panic(h)).collect();
        let mut left = 100;
        let mut share = |available: &[u32]| -> Vec<u32> {
            available
                .iter()
                .map(|available| {
                    let load = (available * 100 / total).min(left);
                    left -= load;
                    load
                })
                .collect()
        };
        let mut loads = Loads {
            healthy: share(&healthy),
            degraded: share(&degraded),
            panic,
        };
        // What rounding left goes to the first that has any.
        let first_healthy = loads
            .healthy
            .iter_mut()
            .zip(&healthy)
            .find(|(_, a)| **a > 0);
        let first = match first_healthy {
            Some((load, _)) => Some(load),
            None => {
                let first = loads
                    .degraded
                    .iter_mut()
                    .zip(&degraded)
                    .find(|(_, a)| **a > 0);
                first.map(|(load, _)| load)
            }
        };
        if let Some(load) = first {
            *load += left;
        }
        loads
    }

    /// Nobody is healthy: by the number of hosts.
    fn total_panic(health: &[Health]) -> Loads {
        let hosts: u64 = health.iter().map(|h| u64::from(h.total)).sum();
        let mut loads = Loads {
            healthy: vec![0; health.len()],
            degraded: vec![0; health.len()],
            panic: vec![true; health.len()],
        };
        if hosts == 0 {
            return loads;
        }
        let mut left = 100;
        for (load, h) in loads.healthy.iter_mut().zip(health) {
            *load = u32::try_from(u64::from(h.total) * 100 / hosts).unwrap_or(100);
            left -= *load;
        }
        if let Some((load, _)) = loads
            .healthy
            .iter_mut()
            .zip(health)
            .find(|(_, h)| h.total > 0)
        {
            *load += left;
        }
        loads
    }

    pub fn is_empty(&self) -> bool {
        self.healthy
            .iter()
            .chain(&self.degraded)
            .all(|load| *load == 0)
    }

    /// The priority for this random number, and whose turn it is there.
    pub fn pick(&self, random: u64) -> Option<(usize, Pool)> {
        let point = (random % 100) as u32;
        let mut sum = 0;
        for (pool, loads) in [
            (Pool::Healthy, &self.healthy),
            (Pool::Degraded, &self.degraded),
        ] {
            for (at, load) in loads.iter().enumerate() {
                sum += load;
                if point < sum {
                    let panics = self.panic.get(at).copied().unwrap_or(false);
                    return Some((at, if panics { Pool::Panic } else { pool }));
                }
            }
        }
        None
    }
}
