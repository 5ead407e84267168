//! Rules on files and lines: headers, lengths, words that must not stay, machine paths.

use super::Breach;
use super::source::Source;
use std::path::Path;

const HARD_LIMIT: usize = 800;
const NORM: usize = 400;
const COLUMNS: usize = 100;
/// Files that may hold unsafe code.
const UNSAFE: &[&str] = &["crates/proxy/src/sys.rs", "crates/local/src/sys.rs"];

pub fn check(source: &Source, breaches: &mut Vec<Breach>) {
    let name = &source.name;
    if !source.text.starts_with("//!") {
        breaches.push(Breach::new(name, "must open with `//!`: what it is for"));
    }
    if name.ends_with("/mod.rs") {
        breaches.push(Breach::new(name, "`foo.rs` beside `foo/`, never `mod.rs`"));
    }
    let lines = source.text.lines().take(source.tests_begin).count();
    if lines > HARD_LIMIT && !is_table(source) {
        breaches.push(Breach::new(
            name,
            format!("{lines} lines, the limit is {HARD_LIMIT}"),
        ));
    }
    for (index, line) in source.text.lines().enumerate() {
        let place = format!("{name}:{}", index + 1);
        let columns = line.chars().count();
        if columns > COLUMNS {
            breaches.push(Breach::new(
                &place,
                format!("{columns} columns, the limit is {COLUMNS}"),
            ));
        }
        for word in unfinished() {
            if line.contains(&word) {
                breaches.push(Breach::new(
                    &place,
                    format!("{word}: finish it or open an issue"),
                ));
            }
        }
    }
    for (index, line) in source.code.lines().enumerate() {
        let place = format!("{name}:{}", index + 1);
        if line.contains("#[ignore") {
            breaches.push(Breach::new(&place, "an ignored test is no test"));
        }
        let has_unsafe = line
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(|w| w == "unsafe");
        if has_unsafe && !UNSAFE.contains(&name.as_str()) {
            breaches.push(Breach::new(
                &place,
                "unsafe is only for sys.rs of proxy and local",
            ));
        }
    }
}

/// Written so that this file does not hold them.
fn unfinished() -> [String; 4] {
    [
        "FIX\u{4d}E",
        "TO\u{44}O",
        "todo\u{21}(",
        "unimplemented\u{21}(",
    ]
    .map(str::to_owned)
}

fn is_table(source: &Source) -> bool {
    source
        .text
        .lines()
        .take(10)
        .any(|line| line.trim() == "// tidy: table")
}

/// Worth a look, not a breach.
pub fn length_note(source: &Source) -> Option<String> {
    let lines = source.text.lines().take(source.tests_begin).count();
    let long = lines > NORM && lines <= HARD_LIMIT && !source.is_test && !is_table(source);
    long.then(|| format!("{}: {lines} lines, the norm is {NORM}", source.name))
}

/// For every file: no path of one machine.
pub fn check_any(path: &Path, name: &str, breaches: &mut Vec<Breach>) {
    let Ok(text) = std::fs::read_to_string(path) else {
        return;
    };
    let machine = [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat()];
    for (index, line) in text.lines().enumerate() {
        for path in &machine {
            // A longer path that only contains the words, such as `./work/x`, is not one.
            let found = line.match_indices(path.as_str()).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                before.is_none_or(|c| !c.is_alphanumeric() && !"._-}$/".contains(c))
            });
            if found {
                let place = format!("{name}:{}", index + 1);
                breaches.push(Breach::new(place, format!("a path of one machine: {path}")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaches(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        check(
            &Source::new("crates/x/src/a.rs".into(), text.to_owned()),
            &mut found,
        );
        found.into_iter().map(|breach| breach.text).collect()
    }

    #[test]
    fn headers_lines_and_words() {
        let long = format!("//! x\n// {}\n", "y".repeat(100));
        let ignored = format!("//! x\n#[{}]\nfn a() {{}}\n", "ignore");
        let unfinished = format!("//! x\n// {} this\n", unfinished()[0]);
        let unsafe_code = "//! x\nfn a() { unsafe { b() } }\n".to_owned();
        for (text, want, why) in [
            ("//! x\nfn a() {}\n", 0, "clean"),
            ("fn a() {}\n", 1, "no header"),
            (long.as_str(), 1, "a long line"),
            (ignored.as_str(), 1, "an ignored test"),
            (unfinished.as_str(), 1, "unfinished"),
            (unsafe_code.as_str(), 1, "unsafe elsewhere"),
            ("//! x\n// unsafe in a comment\n", 0, "a word in a comment"),
        ] {
            assert_eq!(breaches(text).len(), want, "{why}: {:?}", breaches(text));
        }
    }
}
