//! The house rules that a program can check (ARCHITECTURE: marked T); one file per group of rules.

mod functions;
mod manifests;
mod names;
mod source;
mod tables;
mod text;

use crate::root;
use anyhow::{Result, bail};
use source::Source;
use std::path::{Path, PathBuf};

/// Where our own Rust is.
const CODE: &[&str] = &["crates", "xtask", "tests", "examples", "fuzz", "benches"];

/// One breach: where and what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Breach {
    pub place: String,
    pub text: String,
}

impl Breach {
    pub fn new(place: impl Into<String>, text: impl Into<String>) -> Breach {
        Breach {
            place: place.into(),
            text: text.into(),
        }
    }
}

pub fn command() -> Result<()> {
    let (breaches, notes) = check(&root())?;
    for note in notes {
        println!("tidy: note: {note}");
    }
    for breach in &breaches {
        eprintln!("tidy: {}: {}", breach.place, breach.text);
    }
    match breaches.len() {
        0 => Ok(()),
        count => bail!("tidy: {count} breaches of the house rules"),
    }
}

/// All breaches, sorted, and what is only worth a note.
fn check(root: &Path) -> Result<(Vec<Breach>, Vec<String>)> {
    let mut breaches = Vec::new();
    let mut notes = Vec::new();
    let mut sources = Vec::new();
    for path in files(root, CODE) {
        let name = relative(root, &path);
        if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(Source::read(&path, name)?);
        }
    }
    for source in &sources {
        text::check(source, &mut breaches);
        names::check(source, &mut breaches);
        functions::check(source, &mut breaches);
        if let Some(note) = text::length_note(source) {
            notes.push(note);
        }
    }
    let everywhere = [
        "crates",
        "xtask",
        "tests",
        "examples",
        "docs",
        "manifests",
        ".ci",
        "README.md",
    ];
    for path in files(root, &everywhere) {
        text::check_any(&path, &relative(root, &path), &mut breaches);
    }
    manifests::check(root, &mut breaches)?;
    tables::check(root, &mut breaches)?;
    breaches.sort();
    breaches.dedup();
    Ok((breaches, notes))
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .display()
        .to_string()
}

/// All files below the named folders (or the named files), target folders left out.
fn files(root: &Path, names: &[&str]) -> Vec<PathBuf> {
    let mut pending: Vec<PathBuf> = names.iter().map(|name| root.join(name)).collect();
    let mut found = Vec::new();
    while let Some(path) = pending.pop() {
        if path.is_file() {
            found.push(path);
        } else if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            let entries = std::fs::read_dir(&path)
                .into_iter()
                .flatten()
                .filter_map(Result::ok);
            pending.extend(entries.map(|entry| entry.path()));
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tidy() {
        let (breaches, _) = check(&root()).unwrap();
        let lines: Vec<String> = breaches
            .iter()
            .map(|breach| format!("{}: {}", breach.place, breach.text))
            .collect();
        assert!(
            lines.is_empty(),
            "{} breaches:\n{}",
            lines.len(),
            lines.join("\n")
        );
    }
}
