//! Puts the events of the parser together to trees; keeps the limits.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use granit_parser::{Event, ScalarStyle, Tag};

use super::super::scalar;
use super::{Limits, SyntaxError};
use crate::node::{Entry, Node, Span, Value};

pub(super) enum Failure {
    /// The document cannot be read; the next one may be.
    Document(Span, String),
    /// A limit of the whole file.
    File(Span, String),
}

impl Failure {
    pub(super) fn into_parts(self) -> (Span, String, bool) {
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

pub(super) struct Builder<'l> {
    text: &'l str,
    limits: &'l Limits,
    /// Where the event at hand starts.
    pub(super) offset: usize,
    stack: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    alias_bytes: usize,
    /// The document that is complete.
    pub(super) finished: Option<Node>,
    pub(super) errors: Vec<SyntaxError>,
    /// Whether the document at hand has an error that does not end it.
    bad: bool,
}

impl<'l> Builder<'l> {
    pub(super) fn new(text: &'l str, limits: &'l Limits) -> Self {
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
            bad: false,
        }
    }

    pub(super) fn reset(&mut self) {
        self.bad = false;
        self.stack.clear();
        self.anchors.clear();
        self.finished = None;
    }

    pub(super) fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Failure> {
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
                // What was given twice could mean either; nothing of it is taken.
                self.finished = (!self.bad).then_some(node);
                self.bad = false;
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
                    let known = self.errors.len();
                    add_member(map, key, key_span, node, &mut self.errors);
                    self.bad |= self.errors.len() > known;
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
