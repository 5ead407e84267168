//! Readiness as a set of named gates: ready means every gate is open.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

#[derive(Clone, Debug)]
pub struct Readiness {
    gates: Arc<watch::Sender<BTreeMap<&'static str, bool>>>,
}

/// One condition of readiness, closed at first.
#[derive(Clone, Debug)]
pub struct Gate {
    name: &'static str,
    readiness: Readiness,
}

impl Default for Readiness {
    fn default() -> Readiness {
        Readiness {
            gates: Arc::new(watch::channel(BTreeMap::new()).0),
        }
    }
}

impl Readiness {
    pub fn new() -> Readiness {
        Readiness::default()
    }

    /// Adds a closed gate; the same name gives the same gate.
    pub fn gate(&self, name: &'static str) -> Gate {
        self.gates.send_modify(|gates| {
            gates.entry(name).or_insert(false);
        });
        Gate {
            name,
            readiness: self.clone(),
        }
    }

    pub fn is_ready(&self) -> bool {
        self.gates.borrow().values().all(|open| *open)
    }

    pub fn waiting_for(&self) -> Vec<&'static str> {
        let gates = self.gates.borrow();
        gates
            .iter()
            .filter(|(_, open)| !**open)
            .map(|(name, _)| *name)
            .collect()
    }

    /// Returns once every gate is open.
    pub async fn ready(&self) {
        let mut receiver = self.gates.subscribe();
        // The sender lives in self, so this cannot fail.
        let _ = receiver
            .wait_for(|gates| gates.values().all(|open| *open))
            .await;
    }
}

impl Gate {
    pub fn open(&self) {
        self.set(true);
    }

    pub fn close(&self) {
        self.set(false);
    }

    pub fn is_open(&self) -> bool {
        self.readiness
            .gates
            .borrow()
            .get(self.name)
            .copied()
            .unwrap_or(false)
    }

    fn set(&self, open: bool) {
        self.readiness.gates.send_if_modified(|gates| {
            let before = gates.insert(self.name, open);
            before != Some(open)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_when_all_gates_are_open() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready(), "nothing to wait for");
        let (xds, dns) = (readiness.gate("xds"), readiness.gate("dns"));
        assert_eq!(readiness.waiting_for(), ["dns", "xds"]);
        xds.open();
        assert!(!readiness.is_ready());
        let waiter = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        dns.open();
        waiter.await.unwrap();
        xds.close();
        assert!(!readiness.is_ready() && !xds.is_open());
    }
}
