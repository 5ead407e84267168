//! Header edits of one level: removals first, then overwrites, then additions.

use envoy_api::core;
use envoy_api::core::header_value_option::HeaderAppendAction;

use crate::access_log::{Format, Input};
use crate::http::headers::Headers;
use crate::parse::Context;
use crate::parse::compat::Message as _;

#[derive(Debug, Clone, Default)]
pub struct HeaderEdits {
    pub remove: Vec<String>,
    pub add: Vec<HeaderEdit>,
}

#[derive(Debug, Clone)]
pub struct HeaderEdit {
    /// Lower case, as Envoy sends it.
    pub name: String,
    pub value: Format,
    pub action: EditAction,
    /// An empty value is still a header.
    pub keep_empty: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EditAction {
    Append,
    AddIfAbsent,
    Overwrite,
    OverwriteIfExists,
}

fields! {
    core::HeaderValueOption { read: header, append, append_action, keep_empty_value; }
}

/// Headers that Envoy keeps in one line: what is added to them comes behind a comma.
const SINGLE_LINE: &[&str] = &[
    "content-length",
    "content-type",
    "date",
    "grpc-message",
    "grpc-status",
    "location",
    "server",
    "user-agent",
    "via",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-request-id",
];

/// Pseudo headers and `host` may not be edited here.
fn is_editable(name: &str) -> bool {
    !name.starts_with(':') && !name.eq_ignore_ascii_case("host")
}

fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 16_384
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

impl HeaderEdit {
    pub fn parse(context: &mut Context, message: &core::HeaderValueOption) -> Option<HeaderEdit> {
        message.check(context);
        let edit = HeaderEdit::parse_any(context, message)?;
        if !is_editable(&edit.name) {
            context.error(":-prefixed or host headers may not be modified");
        }
        Some(edit)
    }

    /// Also for pseudo headers (the header mutation filter).
    pub fn parse_any(
        context: &mut Context,
        message: &core::HeaderValueOption,
    ) -> Option<HeaderEdit> {
        let action = match (
            message.append,
            context.enumeration("append_action", message.append_action)?,
        ) {
            (Some(false), HeaderAppendAction::AppendIfExistsOrAdd) => EditAction::Overwrite,
            (_, HeaderAppendAction::AppendIfExistsOrAdd) => EditAction::Append,
            (_, HeaderAppendAction::AddIfAbsent) => EditAction::AddIfAbsent,
            (_, HeaderAppendAction::OverwriteIfExistsOrAdd) => EditAction::Overwrite,
            (_, HeaderAppendAction::OverwriteIfExists) => EditAction::OverwriteIfExists,
        };
        let header = message.header.as_ref();
        context.required("header", header, |context, header| {
            let name = header.key.strip_prefix(':').unwrap_or(&header.key);
            if !is_header_name(name) {
                context.error_at("key", format!("'{}' is not a header name", header.key));
                return None;
            }
            let text = if header.raw_value.is_empty() {
                header.value.clone()
            } else {
                String::from_utf8_lossy(&header.raw_value).into_owned()
            };
            if text
                .bytes()
                .any(|byte| matches!(byte, b'\0' | b'\r' | b'\n'))
            {
                context.error_at("value", "must not hold line ends or NUL");
            }
            // A missing value adds no header instead of `-`.
            let value = match Format::parse_with(&text, true) {
                Ok(value) => value,
                Err(reason) => {
                    context.error_at("value", reason);
                    return None;
                }
            };
            let keep_empty = message.keep_empty_value;
            Some(HeaderEdit {
                name: header.key.to_ascii_lowercase(),
                value,
                action,
                keep_empty,
            })
        })
    }
}

impl HeaderEdits {
    /// One level's four fields, as (add, remove) with their names.
    pub fn parse(
        context: &mut Context,
        kind: &str,
        add: &[core::HeaderValueOption],
        remove: &[String],
    ) -> HeaderEdits {
        if add.len() > 1000 {
            context.error_at(
                &format!("{kind}_headers_to_add"),
                "must have at most 1000 members",
            );
        }
        let add = context.each(&format!("{kind}_headers_to_add"), add, HeaderEdit::parse);
        let remove = context.each(
            &format!("{kind}_headers_to_remove"),
            remove,
            |context, name| {
                if !is_header_name(name) || !is_editable(name) {
                    context.error(":-prefixed or host headers may not be removed");
                    return None;
                }
                Some(name.to_ascii_lowercase())
            },
        );
        HeaderEdits { remove, add }
    }

    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }

    /// Values are made before anything is added, so that a level does not see its own edits.
    pub fn apply(&self, headers: &mut Headers, values: &[Vec<u8>]) {
        for name in &self.remove {
            headers.remove(name);
        }
        let mut additions: Vec<(&str, &[u8])> = Vec::new();
        let mut overwrites: Vec<(&str, &[u8])> = Vec::new();
        for (edit, value) in self.add.iter().zip(values) {
            if value.is_empty() && !edit.keep_empty {
                continue;
            }
            let pair = (edit.name.as_str(), value.as_slice());
            match edit.action {
                EditAction::Append => additions.push(pair),
                EditAction::AddIfAbsent if !headers.contains(&edit.name) => additions.push(pair),
                EditAction::OverwriteIfExists if headers.contains(&edit.name) => {
                    overwrites.push(pair);
                }
                EditAction::Overwrite => overwrites.push(pair),
                EditAction::AddIfAbsent | EditAction::OverwriteIfExists => {}
            }
        }
        for (name, value) in overwrites {
            headers.set(name, value);
        }
        for (name, value) in additions {
            match headers.get(name) {
                Some(old) if SINGLE_LINE.contains(&name) => {
                    let joined = [old, b",", value].concat();
                    headers.set(name, &joined);
                }
                _ => headers.append(name, value),
            }
        }
    }

    pub fn values(&self, input: &Input<'_>) -> Vec<Vec<u8>> {
        self.add
            .iter()
            .map(|edit| edit.value.render(input))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applies_in_envoys_order() {
        let option =
            |name: &str, value: &str, action: HeaderAppendAction| core::HeaderValueOption {
                header: Some(core::HeaderValue {
                    key: name.into(),
                    value: value.into(),
                    ..Default::default()
                }),
                append_action: action as i32,
                ..Default::default()
            };
        use HeaderAppendAction as A;
        let add = [
            option("x-a", "2", A::AppendIfExistsOrAdd),
            option("X-B", "over", A::OverwriteIfExistsOrAdd),
            option("x-c", "absent", A::AddIfAbsent),
            option("x-d", "no", A::OverwriteIfExists),
            option("x-gone", "again", A::AppendIfExistsOrAdd),
            option("x-empty", "", A::AppendIfExistsOrAdd),
        ];
        let mut context = Context::new();
        let edits = HeaderEdits::parse(&mut context, "request", &add, &["x-gone".to_owned()]);
        assert!(!context.has_problems());
        let mut headers = Headers::new();
        for (name, value) in [
            ("x-a", "1"),
            ("x-b", "old"),
            ("x-c", "there"),
            ("x-gone", "x"),
        ] {
            headers.append(name, value.as_bytes());
        }
        let values: Vec<Vec<u8>> = edits
            .add
            .iter()
            .map(|edit| edit.value.as_plain().unwrap_or(b"").to_vec())
            .collect();
        edits.apply(&mut headers, &values);
        let text: Vec<String> = headers
            .iter()
            .map(|(name, value)| {
                format!(
                    "{}={}",
                    String::from_utf8_lossy(name),
                    String::from_utf8_lossy(value)
                )
            })
            .collect();
        assert_eq!(
            text,
            ["x-a=1", "x-b=over", "x-c=there", "x-a=2", "x-gone=again"]
        );
    }

    #[test]
    fn refuses_pseudo_headers() {
        for (add, remove) in [
            (Some(":path"), None),
            (Some("Host"), None),
            (None, Some(":path")),
        ] {
            let add = add.map(|name| core::HeaderValueOption {
                header: Some(core::HeaderValue {
                    key: name.into(),
                    ..Default::default()
                }),
                ..Default::default()
            });
            let mut context = Context::new();
            let remove: Vec<String> = remove.map(str::to_owned).into_iter().collect();
            HeaderEdits::parse(&mut context, "request", add.as_slice(), &remove);
            assert!(context.has_problems(), "{add:?} {remove:?}");
        }
    }
}
