//! Envoy's format strings: plain text with `%OPERATOR(argument):length%`.

use super::Input;
use super::operator::{Operator, Value};

/// A parsed format string.
#[derive(Debug, Clone)]
pub struct Format {
    parts: Vec<Part>,
    /// Missing values are empty instead of `-`.
    omit_empty: bool,
}

#[derive(Debug, Clone)]
enum Part {
    Text(Box<[u8]>),
    Operator(Operator, Option<usize>),
}

/// Longer strings are refused.
const LIMIT: usize = 256 << 10;

impl Format {
    pub fn parse(text: &str) -> Result<Format, String> {
        Format::parse_with(text, false)
    }

    pub fn parse_with(text: &str, omit_empty: bool) -> Result<Format, String> {
        if text.len() > LIMIT {
            return Err(format!("format string longer than {LIMIT} bytes"));
        }
        let mut parts = Vec::new();
        let mut plain = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            plain.extend_from_slice(&rest.as_bytes()[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                plain.push(b'%');
                rest = after;
                continue;
            }
            let (token, after) = Token::read(rest)
                .ok_or_else(|| format!("Incorrect configuration: {}", excerpt(rest)))?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain).into()));
            }
            parts.push(Part::Operator(Operator::parse(&token)?, token.length));
            rest = after;
        }
        plain.extend_from_slice(rest.as_bytes());
        if !plain.is_empty() {
            parts.push(Part::Text(plain.into()));
        }
        Ok(Format { parts, omit_empty })
    }

    pub fn write(&self, input: &Input<'_>, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Operator(operator, length) => {
                    let value = operator.evaluate(input);
                    if !value.write(*length, out) && !self.omit_empty {
                        out.push(b'-');
                    }
                }
            }
        }
    }

    pub fn render(&self, input: &Input<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(input, &mut out);
        out
    }

    /// The text, where there is nothing to evaluate.
    pub fn as_plain(&self) -> Option<&[u8]> {
        match self.parts.as_slice() {
            [] => Some(b""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The value with its type, where the format is one operator and nothing else.
    pub(super) fn single<'a>(&'a self, input: &Input<'a>) -> Option<(Value<'a>, Option<usize>)> {
        match self.parts.as_slice() {
            [Part::Operator(operator, length)] => Some((operator.evaluate(input), *length)),
            _ => None,
        }
    }
}

fn excerpt(text: &str) -> String {
    text.chars().take(64).collect()
}

/// One `%…%`.
pub(super) struct Token<'a> {
    pub name: &'a str,
    /// What stands in parentheses; `None` without parentheses.
    pub argument: Option<&'a str>,
    pub length: Option<usize>,
}

impl<'a> Token<'a> {
    /// Reads behind the opening `%`; gives what follows the closing one.
    fn read(text: &'a str) -> Option<(Token<'a>, &'a str)> {
        let name_end = text
            .find(|one: char| !(one.is_ascii_uppercase() || one.is_ascii_digit() || one == '_'))?;
        let (name, mut rest) = text.split_at(name_end);
        if name.is_empty() {
            return None;
        }
        let mut argument = None;
        if let Some(inner) = rest.strip_prefix('(') {
            let end = inner.find(')')?;
            argument = Some(&inner[..end]);
            rest = &inner[end + 1..];
        }
        let mut length = None;
        if let Some(inner) = rest.strip_prefix(':') {
            let end = inner.find('%')?;
            length = Some(inner[..end].parse().ok()?);
            rest = &inner[end..];
        }
        let rest = rest.strip_prefix('%')?;
        Some((
            Token {
                name,
                argument,
                length,
            },
            rest,
        ))
    }
}
