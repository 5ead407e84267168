//! Times as Envoy writes them: strftime with `%f` and `%1f`…`%9f` for fractions, `%s` for seconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Debug, Clone)]
pub struct TimeFormat {
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    /// strftime by the library.
    Format(String),
    /// Digits of the fraction.
    Fraction(usize),
    Seconds,
    /// Seconds with this many digits of the fraction (`%3s` in Envoy).
    Epoch(usize),
}

const DEFAULT: &str = "%Y-%m-%dT%H:%M:%E3SZ";

impl TimeFormat {
    /// An empty text is Envoy's default: ISO 8601 with milliseconds.
    pub fn parse(text: &str) -> TimeFormat {
        let text = if text.is_empty() { DEFAULT } else { text };
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text.chars().peekable();
        let flush = |plain: &mut String, parts: &mut Vec<Part>, part: Part| {
            if !plain.is_empty() {
                parts.push(Part::Format(std::mem::take(plain)));
            }
            parts.push(part);
        };
        while let Some(one) = rest.next() {
            if one != '%' {
                plain.push(one);
                continue;
            }
            let mut spec = String::new();
            while let Some(digit) = rest.peek().filter(|one| one.is_ascii_digit()) {
                spec.push(*digit);
                rest.next();
            }
            let digits: usize = spec.parse().unwrap_or(9).clamp(1, 9);
            match rest.next() {
                Some('f') => flush(&mut plain, &mut parts, Part::Fraction(digits)),
                Some('s') if spec.is_empty() => flush(&mut plain, &mut parts, Part::Seconds),
                Some('s') => flush(&mut plain, &mut parts, Part::Epoch(digits)),
                Some('E') => {
                    // Abseil: %E3S seconds with fraction, %E*S too, %E3f fraction, %Ez offset.
                    let count = rest.next().and_then(|one| one.to_digit(10)).unwrap_or(9);
                    let count = (count as usize).clamp(1, 9);
                    if rest.next() == Some('S') {
                        plain.push_str("%S.");
                    }
                    flush(&mut plain, &mut parts, Part::Fraction(count));
                }
                Some('z') => plain.push_str("%z"),
                Some(other) => {
                    plain.push('%');
                    plain.push(other);
                }
                None => plain.push_str("%%"),
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Format(plain));
        }
        TimeFormat { parts }
    }

    /// In UTC.
    pub fn render(&self, time: SystemTime) -> String {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let zoned = jiff::Timestamp::try_from(time)
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
            .to_zoned(jiff::tz::TimeZone::UTC);
        let fraction = |digits: usize| {
            let nanos = format!("{:09}", since.subsec_nanos());
            nanos[..digits].to_owned()
        };
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Format(format) => {
                    match jiff::fmt::strtime::format(format, &zoned) {
                        Ok(text) => out.push_str(&text),
                        // A specifier that the library does not know stays as it is.
                        Err(_) => out.push_str(format),
                    }
                }
                Part::Fraction(digits) => out.push_str(&fraction(*digits)),
                Part::Seconds => out.push_str(&since.as_secs().to_string()),
                Part::Epoch(digits) => {
                    out.push_str(&since.as_secs().to_string());
                    out.push_str(&fraction(*digits));
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_as_envoy() {
        let time = UNIX_EPOCH + Duration::new(1_522_280_158, 123_456_789);
        for (format, want, why) in [
            ("", "2018-03-28T23:35:58.123Z", "default"),
            ("%Y/%m/%d %H:%M:%S", "2018/03/28 23:35:58", "strftime"),
            ("%s", "1522280158", "seconds"),
            ("%s.%3f", "1522280158.123", "seconds and milliseconds"),
            ("%f", "123456789", "nanoseconds"),
            ("%6f", "123456", "microseconds"),
            ("%3s", "1522280158123", "milliseconds since the epoch"),
            ("%E4S", "58.1234", "abseil's seconds"),
            ("%", "%", "a lonely percent"),
        ] {
            assert_eq!(TimeFormat::parse(format).render(time), want, "{why}");
        }
    }
}
