//! Wall-clock time as a dependency: the system's, or one that a test sets and moves.
//! Timers stay tokio's; this is only for "what time is it", as certificates and logs ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Microseconds since the epoch, for a manual clock.
    manual: Option<Arc<AtomicI64>>,
}

impl Clock {
    pub fn system() -> Clock {
        Clock::default()
    }

    pub fn manual(now: Timestamp) -> Clock {
        Clock {
            manual: Some(Arc::new(AtomicI64::new(now.as_microsecond()))),
        }
    }

    pub fn now(&self) -> Timestamp {
        match &self.manual {
            Some(micros) => Timestamp::from_microsecond(micros.load(Ordering::Acquire))
                .unwrap_or(Timestamp::UNIX_EPOCH),
            None => Timestamp::now(),
        }
    }

    pub fn unix_seconds(&self) -> i64 {
        self.now().as_second()
    }

    /// Moves a manual clock; the system's cannot be moved, which is a mistake of the caller.
    pub fn advance(&self, by: Duration) {
        let Some(micros) = &self.manual else {
            panic!("BUG: advance() on the system clock");
        };
        let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        micros.fetch_add(by, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let start = Timestamp::from_second(1_700_000_000).unwrap();
        let clock = Clock::manual(start);
        let other = clock.clone();
        assert_eq!(clock.now(), start);
        clock.advance(Duration::from_secs(90));
        assert_eq!(other.unix_seconds(), 1_700_000_090, "clones are one clock");
        assert!(Clock::system().now() > start);
    }
}
