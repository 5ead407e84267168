//! JSON values as block YAML, in the shape kubectl prints.

use serde_json::Value;

/// The whole document.
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => write_value(value, 0, &mut out),
        Value::Array(items) if !items.is_empty() => write_value(value, 0, &mut out),
        other => out.push_str(&format!("{}\n", scalar(other))),
    }
    out
}

fn write_value(value: &Value, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                out.push_str(&format!("{pad}{}:", text(key)));
                write_after_key(value, indent, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                write_item(item, indent, out);
            }
        }
        other => out.push_str(&format!("{pad}{}\n", scalar(other))),
    }
}

fn write_after_key(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            write_value(value, indent + 2, out);
        }
        // kubectl keeps a list at the indentation of its key
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            write_value(value, indent, out);
        }
        Value::String(text) if is_block(text) => {
            let chomp = if text.ends_with('\n') { "|" } else { "|-" };
            out.push_str(&format!(" {chomp}\n"));
            for line in text.trim_end_matches('\n').split('\n') {
                let pad = if line.is_empty() {
                    String::new()
                } else {
                    " ".repeat(indent + 2)
                };
                out.push_str(&format!("{pad}{line}\n"));
            }
        }
        other => out.push_str(&format!(" {}\n", scalar(other))),
    }
}

fn write_item(item: &Value, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    let mut inner = String::new();
    match item {
        Value::Object(map) if !map.is_empty() => write_value(item, indent + 2, &mut inner),
        Value::Array(items) if !items.is_empty() => write_value(item, indent + 2, &mut inner),
        other => inner.push_str(&format!("{pad}  {}\n", scalar(other))),
    }
    out.push_str(&format!("{pad}- {}", &inner[indent + 2..]));
}

/// Several lines that a block can hold without losing anything.
fn is_block(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    body.contains('\n')
        && !body.ends_with('\n')
        && !body.starts_with([' ', '\n'])
        && !body.chars().any(|one| one.is_control() && one != '\n')
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        Value::String(string) => text(string),
        other => other.to_string(),
    }
}

/// Plain where YAML would read the same text back as a string, else double-quoted (as JSON).
fn text(string: &str) -> String {
    if is_plain(string) {
        string.to_owned()
    } else {
        Value::from(string).to_string()
    }
}

fn is_plain(string: &str) -> bool {
    let reserved = [
        "null", "true", "false", "yes", "no", "on", "off", "y", "n", "~",
    ];
    let first_is_fine = string.starts_with(|one: char| {
        one.is_ascii_alphanumeric() || one == '/' || one == '.' || one == '_'
    });
    let rest_is_fine = string.chars().all(|one| {
        one.is_ascii_alphanumeric() || matches!(one, '/' | '.' | '_' | '-' | ' ' | '=' | '+' | ':')
    });
    let looks_like_number = string.starts_with(|one: char| one.is_ascii_digit() || one == '.')
        && string.chars().all(|one| {
            one.is_ascii_hexdigit() || matches!(one, '.' | '-' | '+' | ':' | '_' | 'x' | 'o')
        });
    first_is_fine
        && rest_is_fine
        && !looks_like_number
        && !string.contains(": ")
        && !string.ends_with([':', ' '])
        && !reserved.contains(&string.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shapes() {
        let value = json!({
            "kind": "VirtualService",
            "spec": {"hosts": ["reviews", "*.a"], "http": [{"name": "x", "route": [{"w": 1}]}]},
            "empty": {}, "none": [], "text": "a\nb\n", "number": "15", "yes": "yes", "e": "",
        });
        let want = "\
kind: VirtualService
spec:
  hosts:
  - reviews
  - \"*.a\"
  http:
  - name: x
    route:
    - w: 1
empty: {}
none: []
text: |
  a
  b
number: \"15\"
\"yes\": \"yes\"
e: \"\"
";
        assert_eq!(write(&value), want, "block style, quoted only where needed");
    }

    #[test]
    fn what_would_read_back_as_something_else_is_quoted() {
        for string in [
            "-x", "# c", "a: b", "1e3", "0x1f", "x\u{7f}", "a\tb", "", "No", "5s:",
        ] {
            let line = scalar(&Value::from(string));
            assert!(line.starts_with('"'), "{line}");
        }
        for string in [
            "reviews",
            "v1",
            "spiffe://a/ns/b",
            "istio-system",
            "10s",
            "a.b.c",
        ] {
            assert_eq!(scalar(&Value::from(string)), string, "plain");
        }
    }
}
