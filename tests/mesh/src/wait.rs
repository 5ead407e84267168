//! Waiting for something to become true, with a deadline and a reason when it does not.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Asks again and again until `check` gives a value; its last reason is the error.
pub fn wait_until<T>(
    what: &str,
    within: Duration,
    mut check: impl FnMut() -> Result<T>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        match check() {
            Ok(value) => return Ok(value),
            Err(error) if begun.elapsed() > within => {
                bail!("{what}: not within {within:?}: {error:#}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// `ensure!` as the last word of a check.
#[macro_export]
macro_rules! holds {
    ($($condition:tt)*) => {{
        ::anyhow::ensure!($($condition)*);
        Ok(())
    }};
}
