//! When a certificate is renewed: at half of its life, spread a little so that a fleet does not
//! ask at once.

use std::time::Duration;

use jiff::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Share of the life that is left at renewal (Istio's SECRET_GRACE_PERIOD_RATIO).
    pub grace_ratio: f64,
    /// The ratio is moved by up to this much either way.
    pub jitter: f64,
}

impl Default for Schedule {
    fn default() -> Schedule {
        Schedule {
            grace_ratio: 0.5,
            jitter: 0.01,
        }
    }
}

impl Schedule {
    /// Time from `now` to renewal; zero if it is due. `random` is in 0..1.
    pub fn delay(
        &self,
        not_before: Timestamp,
        not_after: Timestamp,
        now: Timestamp,
        random: f64,
    ) -> Duration {
        let life = not_after.duration_since(not_before).as_secs_f64().max(0.0);
        let spread = self.jitter * (random.clamp(0.0, 1.0) * 2.0 - 1.0);
        let ratio = (self.grace_ratio + spread).clamp(0.0, 1.0);
        let age = now.duration_since(not_before).as_secs_f64();
        Duration::try_from_secs_f64(life * (1.0 - ratio) - age).unwrap_or_default()
    }
}

/// A random number in 0..1 for `delay`; one half if the system has none to give.
pub fn random() -> f64 {
    match crate::key::random::<4>() {
        Ok(bytes) => f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for (life, age, random, want, why) in [
            (1000, 0, 0.5, 500, "half of the life"),
            (1000, 0, 0.0, 510, "latest: ratio 0.49"),
            (1000, 0, 1.0, 490, "earliest: ratio 0.51"),
            (1000, 200, 0.5, 300, "counted from not_before"),
            (1000, 700, 0.5, 0, "overdue"),
            (-5, 0, 0.5, 0, "a certificate that was never valid"),
        ] {
            let delay = Schedule::default().delay(at(0), at(life), at(age), random);
            assert_eq!(delay.as_secs_f64().round(), f64::from(want), "{why}");
        }
        assert!((0.0..1.0).contains(&random()));
    }
}
