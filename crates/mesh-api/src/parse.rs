//! From the text of a file to typed objects, with every error at its line, column and field.

pub mod scalar;
pub mod yaml;

mod metadata;
mod schema;

use std::sync::Arc;

use crate::decode::{Decoder, Problem, nearest};
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::kinds::{Kind, Spec};
use crate::node::{Entry, Node, Span, Value};
use crate::object::{Object, ObjectKey, Origin};
use yaml::Limits;

#[derive(Clone, Debug, Default)]
pub struct ParseOptions {
    /// For objects of namespaced kinds that name none; `default` when empty.
    pub default_namespace: String,
}

/// What a file holds. An object with an error is not among the objects.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    pub objects: Vec<Object>,
    pub diagnostics: Vec<Diagnostic>,
}

impl Parsed {
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// Reads YAML (several documents) or JSON. `file` is only a name for messages.
pub fn parse(file: &str, text: &str, options: &ParseOptions) -> Parsed {
    let mut reader = Reader {
        file: file.into(),
        options,
        parsed: Parsed::default(),
    };
    let loaded = yaml::load(text, &Limits::default());
    for error in loaded.errors {
        reader.error(error.span, "", (Reason::Syntax, error.message), None);
    }
    for document in &loaded.documents {
        reader.document(document);
    }
    reader
        .parsed
        .diagnostics
        .sort_by_key(|d| (d.line, d.column));
    reader.parsed
}

/// Reads objects out of a tree that is already there (an API's JSON, a kind of one's own).
pub fn parse_node(file: &str, node: &Node, options: &ParseOptions) -> Parsed {
    let mut reader = Reader {
        file: file.into(),
        options,
        parsed: Parsed::default(),
    };
    reader.document(node);
    reader.parsed
}

struct Reader<'o> {
    file: Arc<str>,
    options: &'o ParseOptions,
    parsed: Parsed,
}

impl Reader<'_> {
    fn document(&mut self, node: &Node) {
        let entries = match &node.value {
            Value::Null => return,
            Value::Map(entries) => entries,
            _ => {
                let message = format!("expected an object, found {}", node.sort());
                return self.error(node.span, "", (Reason::WrongType, message), None);
            }
        };
        let version = self.word(node, "apiVersion");
        let kind = self.word(node, "kind");
        let (Some(version), Some(kind)) = (version, kind) else {
            return;
        };
        if version == "v1" && kind == "List" {
            return self.list(entries);
        }
        if let Some(kind) = self.known_kind(node, version, kind) {
            self.object(node, entries, kind, version);
        }
    }

    /// A required string at the top of an object.
    fn word<'n>(&mut self, node: &'n Node, key: &str) -> Option<&'n str> {
        match node.member(key) {
            Some(Node {
                value: Value::String(text),
                ..
            }) => return Some(text),
            Some(other) => {
                let message = format!("expected a string, found {}", other.sort());
                self.error(other.span, key, (Reason::WrongType, message), None);
            }
            None => {
                let message = format!("`{key}` is missing");
                self.error(node.span, key, (Reason::UnknownKind, message), None);
            }
        }
        None
    }

    fn list(&mut self, entries: &[Entry]) {
        for entry in entries {
            match (entry.key.as_str(), &entry.value.value) {
                ("items", Value::List(items)) => {
                    for item in items {
                        // A list inside of a list is bounded by the depth of the document.
                        self.document(item);
                    }
                }
                ("items", Value::Null) | ("apiVersion" | "kind" | "metadata", _) => {}
                ("items", _) => {
                    let message = format!("expected a list, found {}", entry.value.sort());
                    self.error(
                        entry.value.span,
                        "items",
                        (Reason::WrongType, message),
                        None,
                    );
                }
                (key, _) => {
                    let message = format!("unknown field `{}`", short(key));
                    let allowed = Some("apiVersion, kind, metadata, items".to_owned());
                    self.error(
                        entry.key_span,
                        key,
                        (Reason::UnknownField, message),
                        allowed,
                    );
                }
            }
        }
    }

    fn known_kind(&mut self, node: &Node, version: &str, kind: &str) -> Option<Kind> {
        let (group, bare_version) = version.rsplit_once('/').unwrap_or(("", version));
        let span_of = |key: &str| node.member(key).map_or(node.span, |member| member.span);
        let Some(found) = Kind::from_group_kind(group, kind) else {
            let names: Vec<String> = Kind::ALL
                .iter()
                .map(|kind| format!("{} {kind}", kind.api_version()))
                .collect();
            let kinds: Vec<String> = Kind::ALL.iter().map(|kind| kind.to_string()).collect();
            let hint = match nearest(kind, &kinds) {
                Some(near) if near != kind => format!(", did you mean `{near}`?"),
                _ => String::new(),
            };
            let message = format!(
                "the kind {} of {} is not supported{hint}",
                short(kind),
                short(version),
            );
            let allowed = Some(names.join(", "));
            self.error(
                span_of("kind"),
                "kind",
                (Reason::UnknownKind, message),
                allowed,
            );
            return None;
        };
        if !found.versions().contains(&bare_version) {
            let message = format!("{found} has no version {}", short(bare_version));
            let allowed = Some(found.versions().join(", "));
            let reason = (Reason::UnknownKind, message);
            self.error(span_of("apiVersion"), "apiVersion", reason, allowed);
            return None;
        }
        Some(found)
    }

    fn object(&mut self, node: &Node, entries: &[Entry], kind: Kind, version: &str) {
        let mut decoder = Decoder::new("");
        let meta = metadata::read(node, kind, version, self.options, &mut decoder);
        let spec = read_body(node, entries, kind, &mut decoder);
        schema::check(node, kind, &mut decoder);
        let key = meta.as_ref().map(|meta| ObjectKey {
            kind,
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
        });
        let Decoder {
            problems, places, ..
        } = decoder;
        let clean = problems.is_empty();
        for problem in problems {
            self.problem(problem, key.clone());
        }
        if let (true, Some(meta), Some(spec)) = (clean, meta, spec) {
            let mut origin = Origin::shared(self.file.clone(), node.span.line);
            if node.span.line > 0 {
                origin = origin.with_places(places);
            }
            self.parsed.objects.push(Object { meta, spec, origin });
        }
    }

    fn problem(&mut self, problem: Problem, object: Option<ObjectKey>) {
        self.parsed.diagnostics.push(Diagnostic {
            severity: Severity::Error,
            reason: problem.reason,
            file: self.file.clone(),
            line: problem.span.line,
            column: problem.span.column,
            path: problem.path,
            object,
            message: problem.message,
            allowed: problem.allowed,
        });
    }

    fn error(
        &mut self,
        span: Span,
        path: &str,
        (reason, message): (Reason, String),
        allowed: Option<String>,
    ) {
        let path = short(path);
        self.problem(
            Problem {
                path,
                span,
                reason,
                message,
                allowed,
            },
            None,
        );
    }
}

/// Text of the user's in a message, cut to a bearable length.
fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

/// The kind's own fields: under `spec`, or at the top beside metadata.
fn read_body(node: &Node, entries: &[Entry], kind: Kind, decoder: &mut Decoder) -> Option<Spec> {
    const TOP: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];
    let own = |entry: &&Entry| !TOP.contains(&entry.key.as_str());
    if !kind.has_spec() {
        let body: Vec<Entry> = entries.iter().filter(own).cloned().collect();
        let body = Node {
            value: Value::Map(body),
            span: node.span,
        };
        return kind.decode(&body, decoder);
    }
    for entry in entries
        .iter()
        .filter(own)
        .filter(|entry| entry.key != "spec")
    {
        let names = || {
            ["apiVersion", "kind", "metadata", "spec"]
                .map(str::to_owned)
                .to_vec()
        };
        decoder.unknown_field(entry, names);
    }
    let empty = Node {
        value: Value::Null,
        span: node.span,
    };
    match entries.iter().find(|entry| entry.key == "spec") {
        Some(entry) => decoder.under(entry, |decoder| kind.decode(&entry.value, decoder)),
        None => kind.decode(&empty, decoder),
    }
}
