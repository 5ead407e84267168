//! YAML in (through the product's own reader) and out (block style, keys in order).

use mesh_api::parse::yaml::{Limits, load};
use serde_json::Value;

/// All documents of a text.
pub fn read(text: &str) -> Vec<Value> {
    let loaded = load(text, &Limits::default());
    assert!(
        loaded.errors.is_empty(),
        "test data is not YAML: {:?}",
        loaded.errors
    );
    loaded
        .documents
        .iter()
        .map(|document| document.to_json())
        .collect()
}

/// Block style YAML of one value.
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    put(value, 0, &mut out);
    out
}

fn put(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(fields) if fields.is_empty() => out.push_str("{}\n"),
        Value::Array(items) if items.is_empty() => out.push_str("[]\n"),
        Value::Object(fields) => {
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort();
            for (index, key) in keys.into_iter().enumerate() {
                if index > 0 {
                    indent(depth, out);
                }
                out.push_str(&scalar(key));
                out.push(':');
                nested(&fields[key], depth + 1, out);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    indent(depth, out);
                }
                out.push_str("- ");
                put(item, depth + 1, out);
            }
        }
        Value::String(text) => {
            out.push_str(&scalar(text));
            out.push('\n');
        }
        other => {
            out.push_str(&other.to_string());
            out.push('\n');
        }
    }
}

fn nested(value: &Value, depth: usize, out: &mut String) {
    let block = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if block {
        out.push('\n');
        indent(depth, out);
    } else {
        out.push(' ');
    }
    put(value, depth, out);
}

fn indent(depth: usize, out: &mut String) {
    out.push_str(&"  ".repeat(depth));
}

fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./|@-".contains(c);
    let first = text.chars().next();
    let starts = first.is_some_and(|c| c.is_ascii_alphabetic());
    let word = matches!(
        text,
        "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
    );
    if starts && !word && text.chars().all(plain) {
        return text.to_owned();
    }
    Value::String(text.to_owned()).to_string()
}
