//! What a result must contain, how two results differ, and which differences are known.

use crate::yaml;
use anyhow::Result;
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether `actual` holds everything in `want`: maps by key, lists element by element, `~x` as a
/// pattern, null as absent.
pub fn contains(actual: &Value, want: &Value) -> bool {
    match want {
        Value::Null => actual.is_null(),
        Value::Object(map) => map
            .iter()
            .all(|(key, value)| contains(actual.get(key).unwrap_or(&Value::Null), value)),
        Value::Array(list) => actual.as_array().is_some_and(|actual| {
            actual.len() == list.len() && actual.iter().zip(list).all(|(a, w)| contains(a, w))
        }),
        Value::String(text) if text.starts_with('~') => {
            let shown = actual
                .as_str()
                .map_or_else(|| actual.to_string(), str::to_owned);
            Regex::new(text[1..].trim()).is_ok_and(|pattern| pattern.is_match(&shown))
        }
        other => actual == other,
    }
}

/// One place where two results differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    pub at: String,
    pub envoy: Value,
    pub ours: Value,
}

pub fn differences(envoy: &Value, ours: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    walk("", envoy, ours, &mut found);
    found
}

fn walk(at: &str, envoy: &Value, ours: &Value, found: &mut Vec<Difference>) {
    match (envoy, ours) {
        (Value::Object(left), Value::Object(right)) => {
            let mut keys: Vec<&String> = left.keys().chain(right.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let (left, right) = (left.get(key), right.get(key));
                let null = &Value::Null;
                walk(
                    &format!("{at}/{key}"),
                    left.unwrap_or(null),
                    right.unwrap_or(null),
                    found,
                );
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                walk(&format!("{at}/{index}"), left, right, found);
            }
        }
        _ if envoy == ours => {}
        _ => found.push(Difference {
            at: if at.is_empty() {
                "/".to_owned()
            } else {
                at.to_owned()
            },
            envoy: envoy.clone(),
            ours: ours.clone(),
        }),
    }
}

/// `*` matches within a segment, a trailing `/**` everything below.
pub fn matches(pattern: &str, text: &str) -> bool {
    let escaped = regex::escape(pattern)
        .replace(r"\*\*", ".*")
        .replace(r"\*", "[^/]*");
    Regex::new(&format!("^{escaped}$")).is_ok_and(|pattern| pattern.is_match(text))
}

/// A known difference; one that no longer occurs fails the run, so that the list only shrinks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deviation {
    pub case: String,
    #[serde(default)]
    pub call: Option<String>,
    /// JSON pointer pattern; absent: the whole case.
    #[serde(default)]
    pub at: Option<String>,
    pub reason: String,
    #[serde(skip)]
    used: AtomicBool,
}

pub struct Deviations(Vec<Deviation>);

impl Deviations {
    pub fn load(path: &Path) -> Result<Deviations> {
        let value = yaml::read(path)?;
        let list = if value.is_null() {
            Vec::new()
        } else {
            serde_json::from_value(value)?
        };
        Ok(Deviations(list))
    }

    /// Whether the difference is known; marks its entry as used.
    pub fn covers(&self, case: &str, call: &str, at: &str) -> bool {
        let parts = self
            .0
            .iter()
            .filter(|known| known.call.is_some() || known.at.is_some());
        let known = parts.filter(|deviation| {
            matches(&deviation.case, case)
                && deviation
                    .call
                    .as_deref()
                    .is_none_or(|pattern| matches(pattern, call))
                && deviation
                    .at
                    .as_deref()
                    .is_none_or(|pattern| matches(pattern, at))
        });
        known.fold(false, |_, deviation| {
            deviation.used.store(true, Ordering::Relaxed);
            true
        })
    }

    /// A case that is not run on ours at all.
    pub fn covers_case(&self, case: &str) -> bool {
        let mut whole = self
            .0
            .iter()
            .filter(|known| known.call.is_none() && known.at.is_none());
        let found = whole.find(|known| matches(&known.case, case));
        found
            .inspect(|known| known.used.store(true, Ordering::Relaxed))
            .is_some()
    }

    pub fn unused(&self) -> Vec<&Deviation> {
        self.0
            .iter()
            .filter(|deviation| !deviation.used.load(Ordering::Relaxed))
            .collect()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How often each text occurs.
pub fn counts<'a>(texts: impl Iterator<Item = &'a str>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for text in texts {
        *counts.entry(text.to_owned()).or_insert(0) += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn containment() {
        let actual = json!({"status": 200, "headers": {"a": ["1"]}, "log": [{"x": "abc"}]});
        for (want, holds, why) in [
            (json!({"status": 200}), true, "a part"),
            (json!({"status": 201}), false, "another number"),
            (json!({"headers": {"b": null}}), true, "null is absent"),
            (json!({"headers": {"a": null}}), false, "present"),
            (json!({"log": [{"x": "~^ab"}]}), true, "a pattern"),
            (json!({"log": []}), false, "lists have one length"),
        ] {
            assert_eq!(contains(&actual, &want), holds, "{why}");
        }
    }

    #[test]
    fn differences_have_pointers() {
        let found = differences(
            &json!({"a": {"b": [1, 2]}}),
            &json!({"a": {"b": [1, 3]}, "c": 1}),
        );
        let at: Vec<&str> = found
            .iter()
            .map(|difference| difference.at.as_str())
            .collect();
        assert_eq!(at, ["/a/b/1", "/c"]);
    }

    #[test]
    fn patterns() {
        for (pattern, text, want) in [
            ("/log/*/flags", "/log/0/flags", true),
            ("/log/*", "/log/0/flags", false),
            ("/upstream/**", "/upstream/0/headers", true),
            ("retry_*", "retry_on", true),
        ] {
            assert_eq!(matches(pattern, text), want, "{pattern} {text}");
        }
    }
}
