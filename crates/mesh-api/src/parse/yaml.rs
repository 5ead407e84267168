//! From text to trees: YAML (and with it JSON), several documents, anchors, merge keys; each
//! step is bounded, because the text may come from anyone.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::scalar;
use crate::node::{Entry, Node, Span, Value};

/// What one file may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub bytes: usize,
    pub nodes: usize,
    pub depth: usize,
    /// Bytes that aliases may add by repetition, in the whole file.
    pub alias_bytes: usize,
    pub errors: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            bytes: 32 << 20,
            nodes: 2_000_000,
            depth: 64,
            alias_bytes: 8 << 20,
            errors: 100,
        }
    }
}

/// The text is not YAML, or it is beyond a limit.
#[derive(Clone, Debug, PartialEq)]
pub struct SyntaxError {
    pub span: Span,
    pub message: String,
}

/// The documents that could be read, and the errors of the others.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    pub documents: Vec<Node>,
    pub errors: Vec<SyntaxError>,
}

/// Reads every document of `text`; an error costs one document, a limit the rest of the file.
pub fn load(text: &str, limits: &Limits) -> Loaded {
    let mut loaded = Loaded::default();
    if text.len() > limits.bytes {
        let message = format!("more than {} MiB in one file", limits.bytes >> 20);
        loaded.errors.push(SyntaxError {
            span: Span { line: 1, column: 1 },
            message,
        });
        return loaded;
    }
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: limits.depth,
        block_nesting_limit: limits.depth,
    };
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder::new(text, limits);
    while let Some(next) = parser.next_event() {
        let outcome = match next {
            Ok((Event::StreamEnd, _)) => break,
            Ok((event, span)) => {
                builder.offset = span.start.byte_offset().unwrap_or(0);
                builder.event(event, place(&span.start))
            }
            Err(error) => Err(Failure::Document(
                place(error.marker()),
                scanner_message(&error.to_string()),
            )),
        };
        loaded.documents.extend(builder.finished.take());
        loaded.errors.append(&mut builder.errors);
        let Err(failure) = outcome else { continue };
        let (span, message, goes_on) = failure.into_parts();
        loaded.errors.push(SyntaxError { span, message });
        builder.reset();
        let room = loaded.errors.len() < limits.errors;
        if !goes_on || !room || !matches!(parser.proceed_next_document(), Ok(true)) {
            break;
        }
    }
    loaded.errors.truncate(limits.errors);
    loaded
}

/// The scanner repeats the place in its text; the diagnostic has it already.
fn scanner_message(text: &str) -> String {
    let end = text
        .find(" at char ")
        .or_else(|| text.find(" at byte "))
        .unwrap_or(text.len());
    text[..end].to_owned()
}

fn place(marker: &Marker) -> Span {
    let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Span {
        line: narrow(marker.line()),
        column: narrow(marker.col()).saturating_add(1),
    }
}

enum Failure {
    /// The document cannot be read; the next one may be.
    Document(Span, String),
    /// A limit of the whole file.
    File(Span, String),
}

impl Failure {
    fn into_parts(self) -> (Span, String, bool) {
        match self {
            Failure::Document(span, message) => (span, message, true),
            Failure::File(span, message) => (span, message, false),
        }
    }
}

enum Open {
    List {
        items: Vec<Node>,
        span: Span,
        anchor: usize,
    },
    Map(OpenMap),
}

#[derive(Default)]
struct OpenMap {
    entries: Vec<Entry>,
    keys: HashSet<String>,
    key: Option<(String, Span)>,
    /// Values of `<<`, applied when the map closes.
    merges: Vec<Node>,
    span: Span,
    anchor: usize,
    /// An item of a list that is written without braces.
    pair: bool,
    /// Where the last key starts.
    key_offset: usize,
}

struct Builder<'l> {
    text: &'l str,
    limits: &'l Limits,
    /// Where the event at hand starts.
    offset: usize,
    stack: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    alias_bytes: usize,
    finished: Option<Node>,
    errors: Vec<SyntaxError>,
}

impl<'l> Builder<'l> {
    fn new(text: &'l str, limits: &'l Limits) -> Self {
        Builder {
            text,
            offset: 0,
            limits,
            stack: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            alias_bytes: 0,
            finished: None,
            errors: Vec::new(),
        }
    }

    fn reset(&mut self) {
        self.stack.clear();
        self.anchors.clear();
        self.finished = None;
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Failure> {
        self.nodes += 1;
        if self.nodes > self.limits.nodes {
            let message = format!("more than {} values in one file", self.limits.nodes);
            return Err(Failure::File(span, message));
        }
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = typed(text, style, tag.as_deref())
                    .map_err(|message| Failure::Document(span, message))?;
                self.place_node(Node { value, span }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.open(
                Open::List {
                    items: Vec::new(),
                    span,
                    anchor,
                },
                span,
            ),
            Event::MappingStart(_, anchor, _) => {
                let in_list = matches!(self.stack.last(), Some(Open::List { .. }));
                let braced = self.text.as_bytes().get(self.offset) == Some(&b'{');
                let pair = in_list && !braced;
                let map = OpenMap {
                    span,
                    anchor,
                    pair,
                    ..OpenMap::default()
                };
                self.open(Open::Map(map), span)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(id) => self.alias(id, span),
            Event::DocumentStart(..) | Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, open: Open, span: Span) -> Result<(), Failure> {
        if self.stack.len() >= self.limits.depth {
            let message = format!("nested deeper than {} levels", self.limits.depth);
            return Err(Failure::Document(span, message));
        }
        if let Some(Open::Map(map)) = self.stack.last()
            && map.key.is_none()
        {
            return Err(Failure::Document(span, "a key must be a scalar".to_owned()));
        }
        self.stack.push(open);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Failure> {
        match self.stack.pop() {
            Some(Open::List {
                items,
                span,
                anchor,
            }) => self.place_node(
                Node {
                    value: Value::List(items),
                    span,
                },
                anchor,
            ),
            Some(Open::Map(map)) => {
                let (span, anchor) = (map.span, map.anchor);
                if let Some(text) = self.address(&map) {
                    return self.place_node(
                        Node {
                            value: Value::String(text),
                            span,
                        },
                        anchor,
                    );
                }
                let entries = merged(map)?;
                self.place_node(
                    Node {
                        value: Value::Map(entries),
                        span,
                    },
                    anchor,
                )
            }
            None => Ok(()),
        }
    }

    /// `[2001:db8::]`: YAML 1.2 reads a pair with an empty value, Kubernetes' reader a string.
    fn address(&self, map: &OpenMap) -> Option<String> {
        let [only] = map.entries.as_slice() else {
            return None;
        };
        if !map.pair || only.value.value != Value::Null || !only.key.contains(':') {
            return None;
        }
        let written = self
            .text
            .get(map.key_offset..)?
            .strip_prefix(only.key.as_str())?;
        let after = written.strip_prefix(':')?;
        after
            .starts_with([',', ']'])
            .then(|| format!("{}:", only.key))
    }

    fn alias(&mut self, id: usize, span: Span) -> Result<(), Failure> {
        let Some(target) = self.anchors.get(&id) else {
            let message = "an alias inside of what it names".to_owned();
            return Err(Failure::Document(span, message));
        };
        self.alias_bytes += cost(target);
        if self.alias_bytes > self.limits.alias_bytes {
            let message = "the aliases of this file expand to too much".to_owned();
            return Err(Failure::File(span, message));
        }
        let depth = self.stack.len() + height(target);
        if depth > self.limits.depth {
            let message = format!("nested deeper than {} levels", self.limits.depth);
            return Err(Failure::Document(span, message));
        }
        let node = Node {
            value: target.value.clone(),
            span,
        };
        self.place_node(node, 0)
    }

    /// Puts a finished node where it belongs: as key, value, item or document.
    fn place_node(&mut self, node: Node, anchor: usize) -> Result<(), Failure> {
        if anchor > 0 {
            // An anchored node may be repeated by aliases, so it counts as one.
            self.alias_bytes += cost(&node);
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut() {
            None => {
                self.finished = Some(node);
                Ok(())
            }
            Some(Open::List { items, .. }) => {
                items.push(node);
                Ok(())
            }
            Some(Open::Map(map)) => match map.key.take() {
                None => {
                    let span = node.span;
                    map.key_offset = self.offset;
                    map.key = Some((key_text(node)?, span));
                    Ok(())
                }
                Some((key, key_span)) => {
                    add_member(map, key, key_span, node, &mut self.errors);
                    Ok(())
                }
            },
        }
    }
}

fn add_member(
    map: &mut OpenMap,
    key: String,
    key_span: Span,
    value: Node,
    errors: &mut Vec<SyntaxError>,
) {
    if key == "<<" {
        map.merges.push(value);
    } else if map.keys.insert(key.clone()) {
        map.entries.push(Entry {
            key,
            key_span,
            value,
        });
    } else {
        let shown: String = key.chars().take(100).collect();
        let message = format!("the key `{shown}` is given twice");
        errors.push(SyntaxError {
            span: key_span,
            message,
        });
    }
}

/// Applies merge keys: what the map says itself wins, then the earlier of several sources.
fn merged(map: OpenMap) -> Result<Vec<Entry>, Failure> {
    let OpenMap {
        mut entries,
        mut keys,
        merges,
        ..
    } = map;
    for source in merges {
        let span = source.span;
        let sources = match source.value {
            Value::List(items) => items,
            value => vec![Node { value, span }],
        };
        for source in sources {
            let Value::Map(members) = source.value else {
                let message = "`<<` takes a map or a list of maps".to_owned();
                return Err(Failure::Document(span, message));
            };
            for entry in members {
                if keys.insert(entry.key.clone()) {
                    entries.push(entry);
                }
            }
        }
    }
    Ok(entries)
}

/// A key as JSON has it: numbers and booleans become text.
fn key_text(node: Node) -> Result<String, Failure> {
    match node.value {
        Value::String(text) => Ok(text),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Null => Err(Failure::Document(
            node.span,
            "a key must not be null".to_owned(),
        )),
        Value::List(_) | Value::Map(_) => Err(Failure::Document(
            node.span,
            "a key must be a scalar".to_owned(),
        )),
    }
}

fn typed(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    match tag.and_then(Tag::core_suffix) {
        Some("str") => return Ok(Value::String(text.into_owned())),
        Some("binary") => return Err("the tag !!binary is not supported".to_owned()),
        Some("int" | "float" | "bool" | "null") => return scalar::resolve(&text),
        _ => {}
    }
    // A merge key is plain; resolving it would not change it.
    match style {
        ScalarStyle::Plain => scalar::resolve(&text),
        _ => Ok(Value::String(text.into_owned())),
    }
}

fn cost(node: &Node) -> usize {
    const NODE: usize = 32;
    NODE + match &node.value {
        Value::String(text) => text.len(),
        Value::List(items) => items.iter().map(cost).sum(),
        Value::Map(entries) => entries
            .iter()
            .map(|entry| NODE + entry.key.len() + cost(&entry.value))
            .sum(),
        _ => 0,
    }
}

fn height(node: &Node) -> usize {
    match &node.value {
        Value::List(items) => 1 + items.iter().map(height).max().unwrap_or(0),
        Value::Map(entries) => {
            1 + entries
                .iter()
                .map(|entry| height(&entry.value))
                .max()
                .unwrap_or(0)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn read(text: &str) -> Result<Vec<Json>, String> {
        let loaded = load(text, &Limits::default());
        match loaded.errors.first() {
            Some(error) => Err(format!(
                "{}:{}: {}",
                error.span.line, error.span.column, error.message
            )),
            None => Ok(loaded.documents.iter().map(Node::to_json).collect()),
        }
    }

    #[test]
    fn documents_are_read_as_kubernetes_reads_them() {
        for (input, want, why) in [
            ("a: 1\n", vec![json!({"a": 1})], "a map"),
            (
                "a: 1\n---\nb: 2\n",
                vec![json!({"a": 1}), json!({"b": 2})],
                "two documents",
            ),
            (
                "{\"a\": [1, \"x\", null]}",
                vec![json!({"a": [1, "x", null]})],
                "JSON",
            ),
            ("{\n\t\"a\": 1\n}", vec![json!({"a": 1})], "JSON with tabs"),
            (
                "a: &x {b: 1}\nc: *x\n",
                vec![json!({"a": {"b": 1}, "c": {"b": 1}})],
                "an alias",
            ),
            (
                "a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\n",
                vec![json!({"a": {"b": 1, "c": 2}, "d": {"c": 3, "b": 1}})],
                "a merge key",
            ),
            (
                "a: 'yes'\nb: \"1\"\n",
                vec![json!({"a": "yes", "b": "1"})],
                "quoted is a string",
            ),
            (
                "a: !!str 1\n",
                vec![json!({"a": "1"})],
                "tagged as a string",
            ),
            (
                "1: a\ntrue: b\n",
                vec![json!({"1": "a", "true": "b"})],
                "keys become text",
            ),
            ("# nothing\n", vec![], "only a comment"),
            ("", vec![], "nothing"),
            (
                "a: [1.2.3.4, 2001:db8::]",
                vec![json!({"a": ["1.2.3.4", "2001:db8::"]})],
                "IPv6",
            ),
            (
                "a: [2001:db8::, b]",
                vec![json!({"a": ["2001:db8::", "b"]})],
                "IPv6 first",
            ),
            (
                "a: [b: 1, c: ]",
                vec![json!({"a": [{"b": 1}, {"c": null}]})],
                "pairs",
            ),
            ("a: |\n  x\n  y\n", vec![json!({"a": "x\ny\n"})], "a block"),
        ] {
            assert_eq!(read(input), Ok(want), "{why}");
        }
    }

    #[test]
    fn errors_have_a_place() {
        for (input, want, why) in [
            (
                "a: 1\na: 2\n",
                "2:1: the key `a` is given twice",
                "duplicate key",
            ),
            (
                "a: &x [*x]\n",
                "1:8: an alias inside of what it names",
                "recursion",
            ),
            ("[a]: 1\n", "1:1: a key must be a scalar", "list as key"),
            ("a: .inf\n", "1:4: .inf has no form in JSON", "infinity"),
            (
                "a: {<<: 1}\n",
                "1:9: `<<` takes a map or a list of maps",
                "merge of a number",
            ),
        ] {
            assert_eq!(read(input), Err(want.to_owned()), "{why}");
        }
        assert!(
            read("a: [1, 2\nb: c: d\n").is_err(),
            "a list that is not closed"
        );
        assert!(read("a: *nothing\n").is_err(), "an unknown alias");
    }

    #[test]
    fn one_bad_document_does_not_cost_the_others() {
        let loaded = load("a: 1\n---\nb: [\n---\nc: 3\n", &Limits::default());
        let read: Vec<Json> = loaded.documents.iter().map(Node::to_json).collect();
        assert_eq!(loaded.errors.len(), 1, "{:?}", loaded.errors);
        assert!(read.contains(&json!({"a": 1})), "{read:?}");
    }

    #[test]
    fn hostile_input_is_bounded() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let refs = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{refs}]\n"));
        }
        for (input, why) in [
            (bomb, "exponential aliases"),
            ("[".repeat(100_000), "deep flow lists"),
            ("- ".repeat(50_000), "deep block lists"),
            ("{a: ".repeat(10_000), "deep flow maps"),
        ] {
            assert!(read(&input).is_err(), "{why}");
        }
    }
}
