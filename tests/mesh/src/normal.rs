//! What makes two results comparable: header names in lower case and sorted by name (values of one
//! name keep their order), no dates, ids or durations, ports by the name of their owner.

use anyhow::Result;
use regex::Regex;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Header pairs as `{name: [values]}`.
pub fn headers(pairs: &[(String, String)]) -> Value {
    let mut sorted: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (name, value) in pairs {
        let name = name.to_ascii_lowercase();
        if name == "date" {
            continue;
        }
        let value = match name.as_str() {
            "x-envoy-upstream-service-time" => "<ms>".to_owned(),
            // A round figure is a setting; another one is what was left of it at a retry.
            // The default less the moment that a retry took.
            "x-envoy-expected-rq-timeout-ms" if is_default_timeout(value) => "<15000>".to_owned(),
            "x-envoy-expected-rq-timeout-ms" if !value.ends_with("00") => "<left>".to_owned(),
            _ => value.clone(),
        };
        sorted.entry(name).or_default().push(Value::String(value));
    }
    Value::Object(
        sorted
            .into_iter()
            .map(|(name, list)| (name, Value::Array(list)))
            .collect(),
    )
}

fn is_default_timeout(value: &str) -> bool {
    value
        .parse::<u32>()
        .is_ok_and(|millis| (14_000..=15_000).contains(&millis))
}

pub fn pairs_of(map: &http::HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    map.iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect()
}

pub fn header_map(map: &http::HeaderMap) -> Value {
    headers(&pairs_of(map))
}

pub fn map_of(pairs: &[(String, String)]) -> Result<http::HeaderMap> {
    let mut map = http::HeaderMap::new();
    for (name, value) in pairs {
        map.append(
            http::HeaderName::try_from(name)?,
            http::HeaderValue::try_from(value)?,
        );
    }
    Ok(map)
}

static UUID: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
        .expect("BUG: a constant pattern")
});

static LOCAL_PORT: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(127\.0\.0\.\d+):(\d{2,5})").expect("BUG: a constant pattern"));

/// Replaces ids and ports in every text of `value`; `ports` are the ones with names.
pub fn replace(value: &mut Value, ports: &BTreeMap<u16, String>) {
    match value {
        Value::String(text) => *text = replaced(text, ports),
        Value::Array(list) => list.iter_mut().for_each(|item| replace(item, ports)),
        Value::Object(map) => {
            let old = std::mem::take(map);
            *map = old
                .into_iter()
                .map(|(name, mut item)| {
                    replace(&mut item, ports);
                    (replaced(&name, ports), item)
                })
                .collect::<Map<String, Value>>();
        }
        _ => {}
    }
}

fn replaced(text: &str, ports: &BTreeMap<u16, String>) -> String {
    let text = UUID.replace_all(text, "<uuid>");
    let by_name = LOCAL_PORT.replace_all(&text, |found: &regex::Captures<'_>| {
        let port = found[2].parse().unwrap_or(0);
        let name = ports.get(&port).map_or("<port>", String::as_str);
        format!("{}:{name}", &found[1])
    });
    by_name.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ids_and_ports_get_names() {
        let ports = BTreeMap::from([(9001, "a".to_owned())]);
        let mut value = json!({
            "127.0.0.1:9001": ["127.0.0.1:40123", "x 01234567-89ab-cdef-0123-456789abcdef y"],
        });
        replace(&mut value, &ports);
        assert_eq!(
            value,
            json!({"127.0.0.1:a": ["127.0.0.1:<port>", "x <uuid> y"]})
        );
    }

    #[test]
    fn headers_are_sorted_by_name_with_values_in_order() {
        let pairs = [("B", "2"), ("a", "x"), ("b", "1"), ("Date", "now")];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(headers(&pairs), json!({"a": ["x"], "b": ["2", "1"]}));
    }
}
