//! From text to trees: YAML (and with it JSON), several documents, anchors, merge keys; each
//! step is bounded, because the text may come from anyone.

mod builder;

use granit_parser::{Event, Marker, Parser};

use crate::node::{Node, Span};
use builder::{Builder, Failure};

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
