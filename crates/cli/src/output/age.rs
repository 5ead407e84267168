//! Ages as kubectl prints them: `5s`, `3m`, `2h`, `4d`.

use jiff::Timestamp;
use serde_json::Value;

/// The age of a Kubernetes timestamp in `metadata`, `<unknown>` without one.
pub fn of(metadata: &Value) -> String {
    let text = metadata
        .get("creationTimestamp")
        .and_then(Value::as_str)
        .unwrap_or_default();
    match text.parse::<Timestamp>() {
        Ok(created) => since(created.as_second()),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// The time since a second of the Unix epoch.
pub fn since(created: i64) -> String {
    short(Timestamp::now().as_second().saturating_sub(created).max(0))
}

fn short(seconds: i64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        for (seconds, want) in [(0, "0s"), (119, "119s"), (120, "2m"), (7_200, "2h")] {
            assert_eq!(short(seconds), want, "{seconds} seconds");
        }
        assert_eq!(short(3 * 86_400), "3d", "days");
    }
}
