//! From a tree of values to typed messages, collecting every error with its place and path.
//!
//! The rules are those of Go's jsonpb as Istio uses it: camelCase or snake_case names, durations
//! in Go's form, null means unset; beyond that, whatever is unknown is an error.

#[macro_use]
mod macros;
mod duration;
mod scalar;

use std::collections::{BTreeMap, HashSet};

pub use duration::{format_duration, parse_duration};
pub use macros::{json_name, names_field};

use crate::diagnostic::Reason;
use crate::node::{Entry, Node, Span, Value};

/// More problems than this in one document are not collected.
const MAX_PROBLEMS: usize = 100;

/// Fields beyond this have the place of the object in diagnostics.
const MAX_PLACES: usize = 100_000;

/// A type that can be read from a tree. `None` means: reported, and there is no value.
pub trait Decode: Sized {
    /// Whether null may stand for the empty value where a map has a member of this type.
    const NULL_IN_MAP: bool = false;

    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self>;
}

/// A type that can be written as JSON; what is unset does not appear.
pub trait Encode {
    fn encode(&self) -> serde_json::Value;
}

/// A group of members of which at most one may be set, each a variant.
pub trait Oneof: Sized {
    const MEMBERS: &'static [&'static str];
    /// `None`: the entry is not a member of this group.
    fn decode_member(entry: &Entry, decoder: &mut Decoder) -> Option<Option<Self>>;
    fn member(&self) -> &'static str;
}

/// One error found while decoding.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub path: String,
    pub span: Span,
    pub reason: Reason,
    pub message: String,
    pub allowed: Option<String>,
}

/// Keeps the path of what is being read, the problems so far and where each path stands.
#[derive(Debug, Default)]
pub struct Decoder {
    path: String,
    pub problems: Vec<Problem>,
    /// Where each path stands, by its hash: a document may have very many.
    pub places: Vec<(u64, Span)>,
}

impl Decoder {
    pub fn new(path: &str) -> Self {
        Decoder {
            path: path.to_owned(),
            ..Decoder::default()
        }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// Reads the value of a member under its own path.
    pub fn field<T: Decode>(&mut self, entry: &Entry) -> Option<T> {
        self.under(entry, |decoder| T::decode(&entry.value, decoder))
    }

    /// Runs `read` under the path of a member.
    pub fn under<R>(&mut self, entry: &Entry, read: impl FnOnce(&mut Self) -> R) -> R {
        let length = self.path.len();
        push_key(&mut self.path, &entry.key);
        self.place(entry.key_span);
        let result = read(self);
        self.path.truncate(length);
        result
    }

    /// Reads a list item under its own path.
    pub fn item<T: Decode>(&mut self, index: usize, node: &Node) -> Option<T> {
        let length = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        self.place(node.span);
        let value = T::decode(node, self);
        self.path.truncate(length);
        value
    }

    fn place(&mut self, span: Span) {
        if self.places.len() < MAX_PLACES {
            self.places.push((crate::object::hash(&self.path), span));
        }
    }

    /// The members of a message; null is an empty one.
    pub fn members<'n>(&mut self, node: &'n Node) -> Option<&'n [Entry]> {
        match &node.value {
            Value::Map(entries) => {
                self.check_spelled_once(entries);
                Some(entries)
            }
            Value::Null => Some(&[]),
            _ => {
                self.wrong_type(node, "a map");
                None
            }
        }
    }

    fn check_spelled_once(&mut self, entries: &[Entry]) {
        if !entries.iter().any(|entry| entry.key.contains('_')) {
            return;
        }
        let names: HashSet<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
        for entry in entries.iter().filter(|entry| entry.key.contains('_')) {
            let camel = json_name(&entry.key);
            if names.contains(camel.as_str()) {
                let message = format!("`{}` and `{camel}` are the same field", cut(&entry.key));
                self.report(entry.key_span, Reason::Invalid, message, None);
            }
        }
    }

    pub fn wrong_type(&mut self, node: &Node, wanted: &str) {
        let message = format!("expected {wanted}, found {}", node.sort());
        self.report(node.span, Reason::WrongType, message, None);
    }

    /// A value of the right sort that cannot be taken.
    pub fn bad_value(&mut self, node: &Node, message: String, allowed: Option<String>) {
        self.report(node.span, Reason::WrongType, message, allowed);
    }

    pub fn unknown_field(&mut self, entry: &Entry, names: impl FnOnce() -> Vec<String>) {
        if self.problems.len() >= MAX_PROBLEMS {
            return;
        }
        let names = &names();
        let nearest = nearest(&entry.key, names);
        let hint = nearest
            .map(|name| format!(", did you mean `{name}`?"))
            .unwrap_or_default();
        let message = format!("unknown field `{}`{hint}", cut(&entry.key));
        let allowed = (!names.is_empty()).then(|| names.join(", "));
        let length = self.path.len();
        push_key(&mut self.path, &entry.key);
        self.report(entry.key_span, Reason::UnknownField, message, allowed);
        self.path.truncate(length);
    }

    /// Two members of one group are set.
    pub fn both_set(&mut self, entry: &Entry, members: &[&str]) {
        let message = "only one of these may be set".to_owned();
        let length = self.path.len();
        push_key(&mut self.path, &entry.key);
        self.report(
            entry.key_span,
            Reason::Invalid,
            message,
            Some(members.join(" | ")),
        );
        self.path.truncate(length);
    }

    pub fn report(&mut self, span: Span, reason: Reason, message: String, allowed: Option<String>) {
        let path = self.path.clone();
        self.push(Problem {
            path,
            span,
            reason,
            message,
            allowed,
        });
    }

    /// Reports a problem that is elsewhere than the decoder.
    pub fn report_at(&mut self, path: String, span: Span, reason: Reason, message: String) {
        self.push(Problem {
            path,
            span,
            reason,
            message,
            allowed: None,
        });
    }

    fn push(&mut self, problem: Problem) {
        let known = |other: &Problem| other.path == problem.path && other.span == problem.span;
        if self.problems.len() < MAX_PROBLEMS && !self.problems.iter().any(known) {
            self.problems.push(problem);
        }
    }
}

/// Reads `json` as `T`; every problem in one text if there is any.
pub fn from_json<T: Decode>(json: serde_json::Value) -> Result<T, String> {
    let mut decoder = Decoder::new("");
    let value = T::decode(&Node::from(json), &mut decoder);
    match (value, decoder.problems.is_empty()) {
        (Some(value), true) => Ok(value),
        _ => {
            let texts = decoder
                .problems
                .iter()
                .map(|p| format!("{}: {}", p.path, p.message));
            Err(texts.collect::<Vec<_>>().join("; "))
        }
    }
}

/// Appends a member to a path: `.name`, or `["na.me"]` when the key is not a plain word.
pub fn push_key(path: &mut String, key: &str) {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !key.is_empty() && key.len() <= MAX_SHOWN && key.chars().all(plain) {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key);
    } else {
        path.push_str(&format!("[{:?}]", cut(key)));
    }
}

/// Longer texts of the user's are cut in messages and paths.
const MAX_SHOWN: usize = 100;

fn cut(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}

/// The name that is likely meant: at most a third of its letters differ.
pub fn nearest<'n>(word: &str, names: &'n [String]) -> Option<&'n str> {
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_ascii_lowercase();
    let distances = names
        .iter()
        .map(|name| (distance(&lower, &name.to_ascii_lowercase()), name));
    let (best, name) = distances.min_by_key(|(distance, _)| *distance)?;
    (best <= 1 + name.len() / 4).then_some(name.as_str())
}

/// Levenshtein's distance over bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

impl<T: Decode> Decode for Option<T> {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        match node.value {
            Value::Null => Some(None),
            _ => T::decode(node, decoder).map(Some),
        }
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self) -> serde_json::Value {
        self.as_ref()
            .map_or(serde_json::Value::Null, Encode::encode)
    }
}

impl<T: Encode> Encode for Box<T> {
    fn encode(&self) -> serde_json::Value {
        (**self).encode()
    }
}

impl<T: Encode> Encode for Vec<T> {
    fn encode(&self) -> serde_json::Value {
        self.iter().map(Encode::encode).collect()
    }
}

impl<K: ToString, T: Encode> Encode for BTreeMap<K, T> {
    fn encode(&self) -> serde_json::Value {
        let members = self
            .iter()
            .map(|(key, value)| (key.to_string(), value.encode()));
        serde_json::Value::Object(members.collect())
    }
}

impl<T: Decode> Decode for Box<T> {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        T::decode(node, decoder).map(Box::new)
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        match &node.value {
            Value::Null => Some(Vec::new()),
            Value::List(items) => {
                let items = items.iter().enumerate();
                Some(
                    items
                        .filter_map(|(index, item)| decoder.item(index, item))
                        .collect(),
                )
            }
            _ => {
                decoder.wrong_type(node, "a list");
                None
            }
        }
    }
}

/// What may be the key of a map: JSON writes all of them as strings.
pub trait MapKey: Ord + Sized {
    const WANTED: &'static str;
    fn from_key(key: &str) -> Option<Self>;
}

impl MapKey for String {
    const WANTED: &'static str = "a string";
    fn from_key(key: &str) -> Option<Self> {
        Some(key.to_owned())
    }
}

impl MapKey for u32 {
    const WANTED: &'static str = "a number";
    fn from_key(key: &str) -> Option<Self> {
        key.parse().ok()
    }
}

impl<K: MapKey, T: Decode> Decode for BTreeMap<K, T> {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null => &[],
            _ => {
                decoder.wrong_type(node, "a map");
                return None;
            }
        };
        let mut map = BTreeMap::new();
        for entry in entries {
            let Some(key) = K::from_key(&entry.key) else {
                let message = format!("the key `{}` is not {}", cut(&entry.key), K::WANTED);
                decoder.report(entry.key_span, Reason::WrongType, message, None);
                continue;
            };
            if entry.value.value == Value::Null && !T::NULL_IN_MAP {
                decoder.under(entry, |d| d.wrong_type(&entry.value, "a value"));
                continue;
            }
            if let Some(value) = decoder.field(entry) {
                map.insert(key, value);
            }
        }
        Some(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_name_is_offered_only_when_near() {
        let names: Vec<String> = ["weight", "destination", "headers"]
            .map(String::from)
            .to_vec();
        for (input, want, why) in [
            ("wieght", Some("weight"), "two letters swapped"),
            ("Headers", Some("headers"), "case"),
            ("header", Some("headers"), "one letter missing"),
            ("timeout", None, "nothing is near"),
        ] {
            assert_eq!(nearest(input, &names), want, "{why}");
        }
    }

    #[test]
    fn path_quotes_keys_that_are_not_words() {
        for (base, key, want) in [
            ("spec", "http", "spec.http"),
            ("", "spec", "spec"),
            (
                "metadata.labels",
                "app.kubernetes.io/name",
                r#"metadata.labels["app.kubernetes.io/name"]"#,
            ),
        ] {
            let mut path = base.to_owned();
            push_key(&mut path, key);
            assert_eq!(path, want);
        }
    }
}
