//! How long a container that ended waits for its next start.

use std::time::Duration;

/// The first restart comes at once: one kill is not a loop.
const FIRST: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// Having run this long, a container starts from the beginning.
const HEALTHY: Duration = Duration::from_secs(60);

/// Grows with each quick end.
#[derive(Debug, Default)]
pub struct Backoff {
    ends: u32,
}

impl Backoff {
    /// The wait before the next start of a container that ran for `ran`.
    pub fn next(&mut self, ran: Duration) -> Duration {
        if ran >= HEALTHY {
            self.ends = 0;
        }
        self.ends += 1;
        match self.ends {
            1 => FIRST,
            ends => (SECOND * 2u32.pow((ends - 2).min(6))).min(LONGEST),
        }
    }

    /// Whether Kubernetes would call it CrashLoopBackOff.
    pub fn is_looping(&self) -> bool {
        self.ends > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_a_limit_and_forgets() {
        let mut backoff = Backoff::default();
        let quick = Duration::from_secs(1);
        let waits: Vec<u128> = (0..10).map(|_| backoff.next(quick).as_millis()).collect();
        assert_eq!(
            waits,
            [
                100, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000, 60000
            ]
        );
        assert!(backoff.is_looping());
        assert_eq!(backoff.next(HEALTHY), FIRST, "a long run clears the count");
        assert!(!backoff.is_looping());
    }
}
