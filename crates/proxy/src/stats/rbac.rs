//! Counters of the RBAC filters.

use std::sync::Arc;

use super::{Single, Stats};

#[derive(Debug)]
pub struct RbacCounters {
    allowed: Arc<Single>,
    denied: Arc<Single>,
    shadow_allowed: Arc<Single>,
    shadow_denied: Arc<Single>,
}

impl RbacCounters {
    /// `prefix` ends with a dot; the shadow prefix is Envoy's free text before the shadow names.
    pub fn new(stats: &Stats, prefix: &str, shadow_prefix: &str) -> RbacCounters {
        let counter = |name: &str| stats.counter(&format!("{prefix}{name}"));
        RbacCounters {
            allowed: counter("allowed"),
            denied: counter("denied"),
            shadow_allowed: counter(&format!("{shadow_prefix}shadow_allowed")),
            shadow_denied: counter(&format!("{shadow_prefix}shadow_denied")),
        }
    }

    pub fn enforced(&self, allowed: bool) {
        if allowed {
            self.allowed.add(1)
        } else {
            self.denied.add(1)
        }
    }

    pub fn shadow(&self, allowed: bool) {
        if allowed {
            self.shadow_allowed.add(1)
        } else {
            self.shadow_denied.add(1)
        }
    }
}
