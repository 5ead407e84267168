//! A Rust file as the checks see it: the text, the text without comments and literals, and which
//! lines are tests.

use anyhow::{Context, Result};
use std::path::Path;

pub struct Source {
    /// Relative to the workspace.
    pub name: String,
    pub text: String,
    /// As long as `text`; comments, strings and characters are blanks.
    pub code: String,
    /// The line (from 0) where the trailing test module begins, or the number of lines.
    pub tests_begin: usize,
    /// A file of tests only.
    pub is_test: bool,
}

impl Source {
    pub fn read(path: &Path, name: String) -> Result<Source> {
        let text = std::fs::read_to_string(path).with_context(|| name.clone())?;
        Ok(Source::new(name, text))
    }

    pub fn new(name: String, text: String) -> Source {
        let code = blanked(&text);
        let lines: Vec<&str> = code.lines().collect();
        let marker = lines.windows(2).position(|pair| {
            pair[0].trim() == "#[cfg(test)]"
                && pair[1].trim_start().starts_with("mod ")
                && pair[1].contains('{')
        });
        let is_test = name.starts_with("tests/")
            || name.contains("/tests/")
            || name.ends_with("/tests.rs")
            || name.ends_with("_tests.rs")
            || name.contains("/examples/");
        Source {
            name,
            tests_begin: marker.unwrap_or(lines.len()),
            text,
            code,
            is_test,
        }
    }

    /// Lines of code outside of tests, with the number that an editor shows.
    pub fn product_code(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = if self.is_test { 0 } else { self.tests_begin };
        self.code
            .lines()
            .take(end)
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }
}

/// Blanks for everything that is not code; line breaks stay.
pub fn blanked(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => line_end(bytes, at),
            b'/' if bytes.get(at + 1) == Some(&b'*') => block_end(bytes, at),
            b'"' => string_end(bytes, at + 1),
            b'r' | b'b' | b'c' if !is_word_before(bytes, at) => match raw_end(bytes, at) {
                Some(end) => end,
                None => {
                    at += 1;
                    continue;
                }
            },
            b'\'' => match character_end(bytes, at) {
                Some(end) => end,
                None => {
                    at += 1;
                    continue;
                }
            },
            _ => {
                at += 1;
                continue;
            }
        };
        for byte in &mut out[at..end.min(bytes.len())] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn is_word_before(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..]
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(bytes.len(), |end| at + end)
}

fn block_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

/// The end of `r"…"`, `br#"…"#`, `b"…"`, `c"…"`; None where `at` begins no such literal.
fn raw_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut quote = at;
    let mut raw = false;
    while let Some(byte @ (b'r' | b'b' | b'c')) = bytes.get(quote) {
        raw |= *byte == b'r';
        quote += 1;
        if quote - at > 2 {
            return None;
        }
    }
    let hashes = bytes[quote..]
        .iter()
        .take_while(|byte| **byte == b'#')
        .count();
    if bytes.get(quote + hashes) != Some(&b'"') || (hashes > 0 && !raw) {
        return None;
    }
    let begin = quote + hashes + 1;
    if !raw {
        return Some(string_end(bytes, begin));
    }
    let close: Vec<u8> = [b'"']
        .into_iter()
        .chain(std::iter::repeat_n(b'#', hashes))
        .collect();
    let length = bytes[begin..]
        .windows(close.len())
        .position(|window| window == close)?;
    Some(begin + length + close.len())
}

/// The end of a character literal; None for a lifetime.
fn character_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at + 1)? {
        b'\\' => {
            let close = bytes[at + 3..].iter().position(|byte| *byte == b'\'')?;
            Some(at + 3 + close + 1)
        }
        _ => {
            // One character of up to four bytes, then the quote.
            let close = (2..=5).find(|length| bytes.get(at + length) == Some(&b'\''))?;
            let inside = std::str::from_utf8(&bytes[at + 1..at + close]).ok()?;
            (inside.chars().count() == 1).then_some(at + close + 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_comments_are_blanks() {
        for (text, want) in [
            ("a // b", "a     "),
            ("a /* b /* c */ */ d", "a                 d"),
            ("x(\"}\\\"{\")", "x(      )"),
            ("r#\"a\"b\"# + 1", "         + 1"),
            ("for 'a in '{'", "for 'a in    "),
            ("b\"{\" br\"\\\" c", "            c"),
            ("'\\'' x", "     x"),
        ] {
            let text = text.replace("br\"\\\" c", "br\"\\\"  c");
            let got = blanked(&text);
            assert_eq!(got.trim_end(), want.trim_end(), "{text}");
        }
    }

    #[test]
    fn the_test_module_is_found() {
        let text = "//! x\nfn a() {}\n#[cfg(test)]\nmod tests {\n}\n".to_owned();
        assert_eq!(Source::new("crates/x/src/a.rs".into(), text).tests_begin, 2);
    }
}
