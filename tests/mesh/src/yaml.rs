//! YAML text to a JSON value: the core schema's plain scalars, aliases, no merge keys.

use anyhow::{Context, Result, bail};
use granit_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// The first document of `text`; an empty one is null.
pub fn parse(text: &str) -> Result<Value> {
    Ok(documents(text)?.into_iter().next().unwrap_or(Value::Null))
}

/// The file's first document.
pub fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    parse(&text).with_context(|| path.display().to_string())
}

/// All documents of `text`.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        anchors: BTreeMap::new(),
    };
    let mut documents = Vec::new();
    loop {
        match reader.next()? {
            Event::StreamEnd => return Ok(documents),
            Event::StreamStart | Event::DocumentEnd => {}
            Event::DocumentStart(..) => {
                let first = reader.next()?;
                documents.push(reader.node(first)?);
            }
            other => bail!("unexpected {other:?}"),
        }
    }
}

struct Reader<'a, I: granit_parser::BorrowedInput<'a>> {
    parser: Parser<'a, I>,
    anchors: BTreeMap<usize, Value>,
}

impl<'a, I: granit_parser::BorrowedInput<'a>> Reader<'a, I> {
    fn next(&mut self) -> Result<Event<'a>> {
        loop {
            match self.parser.next_event() {
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok((event, _))) => return Ok(event),
                Some(Err(error)) => bail!("{error}"),
                None => return Ok(Event::StreamEnd),
            }
        }
    }

    fn node(&mut self, event: Event<'a>) -> Result<Value> {
        let anchor = event.anchor_id();
        let value = match event {
            Event::Alias(id) => return Ok(self.anchors.get(&id).cloned().unwrap_or(Value::Null)),
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        Event::SequenceEnd => break Value::Array(items),
                        item => items.push(self.node(item)?),
                    }
                }
            }
            Event::MappingStart(..) => self.mapping()?,
            ref other => match other.scalar() {
                Some((text, style)) => scalar(text, style),
                None => bail!("unexpected {other:?}"),
            },
        };
        if let Some(id) = anchor {
            self.anchors.insert(id, value.clone());
        }
        Ok(value)
    }

    fn mapping(&mut self) -> Result<Value> {
        let mut map = Map::new();
        loop {
            let key = match self.next()? {
                Event::MappingEnd => return Ok(Value::Object(map)),
                key => match self.node(key)? {
                    Value::String(key) => key,
                    other => other.to_string(),
                },
            };
            let event = self.next()?;
            let value = self.node(event)?;
            if map.insert(key.clone(), value).is_some() {
                bail!("key {key:?} twice");
            }
        }
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::String(text.to_owned());
    }
    match text {
        "" | "~" | "null" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => {
            let numeric = text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.');
            let number = numeric.then(|| {
                let whole = text.parse::<i64>().ok().map(Number::from);
                whole.or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64))
            });
            number
                .flatten()
                .map_or_else(|| Value::String(text.to_owned()), Value::Number)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scalars_lists_maps_and_aliases() {
        for (text, want) in [
            (
                "a: 1\nb: [x, '1', 0.5s, 1.5]",
                json!({"a": 1, "b": ["x", "1", "0.5s", 1.5]}),
            ),
            (
                "# note\na: &x {b: true}\nc: *x",
                json!({"a": {"b": true}, "c": {"b": true}}),
            ),
            ("a: |\n  line\n", json!({"a": "line\n"})),
            ("", Value::Null),
            ("1: 127.0.0.1", json!({"1": "127.0.0.1"})),
        ] {
            assert_eq!(parse(text).unwrap(), want, "{text}");
        }
        assert_eq!(documents("a: 1\n---\nb: 2").unwrap().len(), 2);
        assert!(
            parse("a: 1\na: 2").is_err(),
            "a key twice is a mistake in a case"
        );
    }
}
