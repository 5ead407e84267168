//! Durations as Go writes them (`1h30m`, `1.5s`, `250ms`), which is what Istio's parser takes.

use std::time::Duration;

/// Reads a duration; the error says what is wrong with it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let shown: String = text.chars().take(40).collect();
    let bad = |why: &str| Err(format!("{shown:?} {why}"));
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.starts_with('-') {
        return bad("is negative");
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return bad("is empty");
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let scale: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => return bad("has no unit"),
            _ => return bad("has an unknown unit"),
        };
        match amount(number, scale) {
            Some(part) => nanos += part,
            None => return bad("has a malformed number"),
        }
        rest = tail;
    }
    match u64::try_from(nanos) {
        Ok(nanos) if i64::try_from(nanos).is_ok() => Ok(Duration::from_nanos(nanos)),
        _ => bad("is too long"),
    }
}

/// `12.5` times `scale`, in whole nanoseconds.
fn amount(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || whole.len() > 19 || fraction.len() > 19 {
        return None;
    }
    let whole: u128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut nanos = whole * scale;
    if !fraction.is_empty() {
        let parts: u128 = fraction.parse().ok()?;
        nanos += parts * scale / 10u128.pow(u32::try_from(fraction.len()).ok()?);
    }
    Some(nanos)
}

/// The form protobuf's JSON uses: seconds with 0, 3, 6 or 9 decimals.
pub fn format_duration(duration: Duration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    if nanos == 0 {
        format!("{seconds}s")
    } else if nanos % 1_000_000 == 0 {
        format!("{seconds}.{:03}s", nanos / 1_000_000)
    } else if nanos % 1_000 == 0 {
        format!("{seconds}.{:06}s", nanos / 1_000)
    } else {
        format!("{seconds}.{nanos:09}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (input, want, why) in [
            ("1s", Some(1_000), "seconds"),
            ("1.5s", Some(1_500), "a fraction"),
            ("1h30m", Some(5_400_000), "two units"),
            ("100ms", Some(100), "milliseconds"),
            (".5s", Some(500), "no whole part"),
            ("0", Some(0), "zero needs no unit"),
            ("1", None, "no unit"),
            ("", None, "empty"),
            ("-1s", None, "negative"),
            ("1 s", None, "a space"),
            ("s", None, "no number"),
            ("1.2.3s", None, "two points"),
            ("99999999999h", None, "too long"),
        ] {
            let got = parse_duration(input).ok().map(|d| d.as_millis());
            assert_eq!(got, want, "{input:?}: {why}");
        }
    }

    #[test]
    fn durations_are_written_as_protobuf_writes_them() {
        for (millis, want) in [(1_000, "1s"), (1_500, "1.500s"), (0, "0s"), (25, "0.025s")] {
            assert_eq!(format_duration(Duration::from_millis(millis)), want);
        }
    }
}
