//! A watched directory of YAML and JSON: recursive, compared by content. Files of other kinds than
//! configuration are left alone; in a bad file the last good version of each object stays.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use daemon::drain::DrainWatch;
use mesh_api::parse::{ParseOptions, parse};
use mesh_api::{Diagnostic, Object, ObjectKey};
use pilot::Event;

use crate::admin::is_configuration;
use crate::pipeline::{Source, Sources};
use crate::watch::DirectoryWatch;

/// Larger files are not configuration.
const MAX_FILE: u64 = 16 << 20;

/// What is wrong in the directory now, for status.
#[derive(Debug, Clone, Default)]
pub struct DirectoryProblems(Arc<Mutex<Vec<Diagnostic>>>);

impl DirectoryProblems {
    /// All of them, by file.
    pub fn list(&self) -> Vec<Diagnostic> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn replace(&self, problems: Vec<Diagnostic>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = problems;
    }
}

pub(crate) struct DirectoryStore {
    pub path: PathBuf,
    pub problems: DirectoryProblems,
}

impl DirectoryStore {
    pub async fn run(self, sources: Sources, drain: DrainWatch) {
        let mut watch = DirectoryWatch::below(&self.path);
        let mut known = Contents::default();
        let mut first = true;
        loop {
            let path = self.path.clone();
            let texts = tokio::task::spawn_blocking(move || read_files(&path)).await;
            let texts = texts.unwrap_or_default();
            if first || texts != known.texts {
                let (new, problems) = known.next(texts);
                for problem in &problems {
                    tracing::warn!(%problem, "configuration");
                }
                self.problems.replace(problems);
                let events = known.events_to(&new);
                known = new;
                first = false;
                if !sources.send(Source::Directory, events).await {
                    return;
                }
            }
            if drain.unless_draining(watch.changed()).await.is_none() {
                return;
            }
        }
    }
}

#[derive(Default)]
struct Contents {
    texts: BTreeMap<String, String>,
    /// By file; a later file that defines an object again does not count.
    objects: BTreeMap<ObjectKey, Arc<Object>>,
}

impl Contents {
    /// The meaning of new texts; objects of a file with errors stay as they are here.
    fn next(&self, texts: BTreeMap<String, String>) -> (Contents, Vec<Diagnostic>) {
        let mut objects: BTreeMap<ObjectKey, Arc<Object>> = BTreeMap::new();
        let mut problems = Vec::new();
        for (file, text) in &texts {
            let parsed = parse(file, text, &ParseOptions::default());
            let has_errors = parsed.has_errors();
            problems.extend(parsed.diagnostics);
            for object in parsed
                .objects
                .into_iter()
                .filter(|o| is_configuration(o.meta.kind))
            {
                objects
                    .entry(object.key())
                    .or_insert_with(|| Arc::new(object));
            }
            if has_errors {
                let of_file = self
                    .objects
                    .iter()
                    .filter(|(_, o)| *o.origin.file == **file);
                for (key, object) in of_file {
                    objects.entry(key.clone()).or_insert_with(|| object.clone());
                }
            }
        }
        (Contents { texts, objects }, problems)
    }

    fn events_to(&self, new: &Contents) -> Vec<Event> {
        let changed = new
            .objects
            .iter()
            .filter(|(key, object)| self.objects.get(*key) != Some(*object));
        let mut events: Vec<Event> = changed
            .map(|(_, object)| Event::Object(object.clone()))
            .collect();
        let gone = self
            .objects
            .keys()
            .filter(|key| !new.objects.contains_key(*key));
        events.extend(gone.cloned().map(Event::ObjectRemoved));
        events
    }
}

/// The texts of all files that may hold configuration, by path relative to the directory.
fn read_files(directory: &Path) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            // It may be made later.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot be read");
                continue;
            }
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let Ok(kind) = std::fs::metadata(&path) else {
                continue;
            };
            if name.to_string_lossy().starts_with('.') {
                continue;
            }
            // A link to a directory could lead back here; Kubernetes' mounts link files only.
            if kind.is_dir() && !path.is_symlink() {
                pending.push(path);
                continue;
            }
            let extension = path.extension().and_then(|extension| extension.to_str());
            let is_text = matches!(extension, Some("yaml" | "yml" | "json"));
            if kind.is_file() && is_text && kind.len() <= MAX_FILE {
                let Ok(text) = std::fs::read_to_string(&path) else {
                    continue;
                };
                let relative = path.strip_prefix(directory).unwrap_or(&path);
                texts.insert(relative.to_string_lossy().into_owned(), text);
            }
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, host: &str) -> String {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
             metadata: {{name: {name}}}\nspec: {{host: {host}}}\n---\n"
        )
    }

    fn texts(files: &[(&str, String)]) -> BTreeMap<String, String> {
        files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), text.clone()))
            .collect()
    }

    #[test]
    fn the_last_good_version_stays() {
        let good = format!("{}{}", rule("one", "a"), rule("two", "b"));
        let (first, problems) = Contents::default().next(texts(&[("x.yaml", good.clone())]));
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(Contents::default().events_to(&first).len(), 2);

        let bad = format!("{}{}", rule("one", "c"), rule("two", "b\n  nonsense: 1"));
        let (second, problems) = first.next(texts(&[("x.yaml", bad)]));
        assert!(!problems.is_empty());
        let events = first.events_to(&second);
        let [Event::Object(object)] = events.as_slice() else {
            panic!("{events:?}")
        };
        assert_eq!(
            object.meta.name, "one",
            "what is good of it is taken, `two` stays"
        );

        let (third, _) = second.next(texts(&[("y.yaml", rule("one", "c"))]));
        let events = second.events_to(&third);
        let [Event::ObjectRemoved(key)] = events.as_slice() else {
            panic!("{events:?}")
        };
        assert_eq!(
            key.name, "two",
            "the file is gone, and what moved is not new"
        );
    }

    #[test]
    fn reads_what_may_be_configuration() {
        let folder = tempfile::tempdir().expect("a directory");
        let write = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("below")).expect("creates");
            std::fs::write(path, "x").expect("writes");
        };
        for name in [
            "a.yaml",
            "sub/b.yml",
            "c.json",
            "d.txt",
            ".hidden.yaml",
            ".git/e.yaml",
        ] {
            write(name);
        }
        let found: Vec<String> = read_files(folder.path()).into_keys().collect();
        assert_eq!(found, ["a.yaml", "c.json", "sub/b.yml"]);
    }
}
