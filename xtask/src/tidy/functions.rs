//! Functions of at most 70 lines; an exception says why, in a comment above it:
//! `// tidy: long function: REASON`.

use super::Breach;
use super::source::Source;

const LIMIT: usize = 70;
const MARK: &str = "// tidy: long function: ";

pub fn check(source: &Source, breaches: &mut Vec<Breach>) {
    if source.is_test {
        return;
    }
    let text: Vec<&str> = source.text.lines().collect();
    for (name, first, last) in functions(&source.code) {
        let lines = last - first + 1;
        if lines <= LIMIT || first >= source.tests_begin || excused(&text, first) {
            continue;
        }
        let place = format!("{}:{}", source.name, first + 1);
        breaches.push(Breach::new(
            place,
            format!("fn {name}: {lines} lines, the limit is {LIMIT}"),
        ));
    }
}

/// A marked comment among the comments and attributes right above the function.
fn excused(text: &[&str], first: usize) -> bool {
    let above = text[..first].iter().rev().map(|line| line.trim_start());
    let mut above = above.take_while(|line| line.starts_with("//") || line.starts_with("#["));
    above.any(|line| {
        line.strip_prefix(MARK)
            .is_some_and(|reason| !reason.trim().is_empty())
    })
}

/// Name, first and last line (from 0) of every function with a body.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let bytes = code.as_bytes();
    let line_of = |at: usize| bytes[..at].iter().filter(|byte| **byte == b'\n').count();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let word_before =
            at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        let name: String = code[at + 3..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        if word_before || name.is_empty() {
            continue;
        }
        let Some(open) = body_begin(bytes, at) else {
            continue;
        };
        found.push((name, line_of(at), line_of(body_end(bytes, open))));
    }
    found
}

/// The brace that opens the body; None for a declaration.
fn body_begin(bytes: &[u8], from: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (offset, byte) in bytes[from..].iter().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(from + offset),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

fn body_end(bytes: &[u8], open: usize) -> usize {
    let mut depth = 0_i32;
    for (offset, byte) in bytes[open..].iter().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + offset;
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_excuses() {
        let body = "    x();\n".repeat(80);
        let long = format!("//! x\nfn long(a: [u8; 2]) -> u8 {{\n{body}}}\n");
        let excused =
            format!("//! x\n// tidy: long function: a table\n#[x]\nfn l() {{\n{body}}}\n");
        let unreasoned = format!("//! x\n// tidy: long function: \nfn l() {{\n{body}}}\n");
        for (text, want, why) in [
            ("//! x\nfn short() {}\n", 0, "short"),
            (long.as_str(), 1, "long"),
            (excused.as_str(), 0, "excused"),
            (unreasoned.as_str(), 1, "no reason"),
            (
                "//! x\ntrait T { fn declared(&self); }\n",
                0,
                "a declaration",
            ),
        ] {
            let mut found = Vec::new();
            check(
                &Source::new("crates/x/src/a.rs".into(), text.to_owned()),
                &mut found,
            );
            assert_eq!(found.len(), want, "{why}");
        }
    }
}
