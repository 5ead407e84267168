//! Where the test data is. Without it the tests that need it say so and pass, unless in CI.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The folder of the test data, if there is one.
pub fn folder() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/testdata");
    let folder = std::env::var_os("STOLOS_TESTDATA").map_or(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "no test data at {}",
        folder.display()
    );
    println!("not run: no test data at {}", folder.display());
    None
}

/// A file of the test data.
pub fn read(path: &str) -> Option<String> {
    let file = folder()?.join(path);
    Some(std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())))
}

/// Every file below `path` with one of the endings, sorted.
pub fn files(path: &str, endings: &[&str]) -> Vec<PathBuf> {
    let Some(folder) = folder() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut open = vec![folder.join(path)];
    while let Some(next) = open.pop() {
        if next.is_dir() {
            open.extend(
                std::fs::read_dir(&next)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if next
            .extension()
            .is_some_and(|e| endings.iter().any(|ending| *ending == e))
        {
            found.push(next);
        }
    }
    found.sort();
    found
}

/// Rows that do not pass yet, one a line: `row # reason`. The list may only shrink.
pub struct Ratchet {
    file: PathBuf,
    listed: BTreeSet<String>,
    failed: Vec<String>,
    passed: usize,
    stale: Vec<String>,
}

impl Ratchet {
    pub fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/expected-failures");
        let file = folder.join(format!("{name}.txt"));
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let mut listed = BTreeSet::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let (row, reason) = line.split_once(" # ").unwrap_or((line, ""));
            assert!(
                !reason.trim().is_empty(),
                "{}: no reason: {line}",
                file.display()
            );
            listed.insert(row.trim().to_owned());
        }
        Ratchet {
            file,
            listed,
            failed: Vec::new(),
            passed: 0,
            stale: Vec::new(),
        }
    }

    pub fn row(&mut self, name: &str, outcome: Result<(), String>) {
        match (outcome, self.listed.remove(name)) {
            (Ok(()), false) => self.passed += 1,
            (Ok(()), true) => self.stale.push(name.to_owned()),
            (Err(_), true) => {}
            (Err(why), false) => self.failed.push(format!("{name} # {why}")),
        }
    }

    pub fn finish(self) {
        let gone: Vec<&String> = self.listed.iter().collect();
        println!("{} rows pass", self.passed);
        assert!(
            self.failed.is_empty() && self.stale.is_empty() && gone.is_empty(),
            "{}\nfailed ({} passed):\n{}\nlisted but passing:\n{}\nlisted but not there:\n{gone:?}",
            self.file.display(),
            self.passed,
            self.failed.join("\n"),
            self.stale.join("\n"),
        );
    }
}
