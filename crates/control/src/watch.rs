//! Watches a directory: one bounded wake-up for any number of changes in it. What changed is read
//! anew by the caller, who compares contents; so nothing is debounced by time.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// How often a directory that cannot be watched (it may not exist yet) is looked at.
const POLL: Duration = Duration::from_secs(1);

/// Wakes its owner when something below a directory may have changed.
pub(crate) struct DirectoryWatch {
    path: PathBuf,
    /// Only this file of the directory counts, and nothing below it.
    file: Option<OsString>,
    wake: mpsc::Receiver<()>,
    sender: mpsc::Sender<()>,
    watcher: Option<RecommendedWatcher>,
}

impl DirectoryWatch {
    /// Watches a directory and what is below it. Read the contents after this, not before.
    pub fn below(path: &Path) -> DirectoryWatch {
        DirectoryWatch::new(path, None)
    }

    /// Watches one file, which may be replaced by a rename.
    pub fn file(path: &Path) -> DirectoryWatch {
        let name = path.file_name().map(ToOwned::to_owned);
        DirectoryWatch::new(path.parent().unwrap_or(Path::new("")), name)
    }

    fn new(path: &Path, file: Option<OsString>) -> DirectoryWatch {
        let (sender, wake) = mpsc::channel(1);
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let path = path.to_owned();
        let mut watch = DirectoryWatch {
            path,
            file,
            wake,
            sender,
            watcher: None,
        };
        watch.start();
        watch
    }

    /// Returns after a change, or now and then while the directory cannot be watched.
    pub async fn changed(&mut self) {
        if self.watcher.is_some() && self.path.exists() {
            let _ = self.wake.recv().await;
        } else {
            tokio::time::sleep(POLL).await;
        }
        if self.watcher.is_none() || !self.path.exists() {
            self.watcher = None;
            self.start();
        }
    }

    fn start(&mut self) {
        let sender = self.sender.clone();
        let file = self.file.clone();
        let concerns = move |event: &notify::Event| {
            // Reading a file is an event too, and our own reads must not wake us.
            let is_ours = |path: &PathBuf| path.file_name() == file.as_deref();
            !event.kind.is_access()
                && (file.is_none() || event.need_rescan() || event.paths.iter().any(is_ours))
        };
        let notify = move |event: notify::Result<notify::Event>| {
            if event.as_ref().map_or(true, &concerns) {
                let _ = sender.try_send(());
            }
        };
        let mode = match self.file {
            Some(_) => RecursiveMode::NonRecursive,
            None => RecursiveMode::Recursive,
        };
        let watcher = notify::recommended_watcher(notify).and_then(|mut watcher| {
            watcher.watch(&self.path, mode)?;
            Ok(watcher)
        });
        match watcher {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => {
                tracing::debug!(path = %self.path.display(), %error, "cannot be watched yet");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wakes_for_a_rename_and_for_a_directory_that_comes_later() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("registry");
        let mut watch = DirectoryWatch::file(&path.join("registry.json"));
        std::fs::create_dir(&path).expect("creates");
        watch.changed().await;
        std::fs::write(path.join("new"), "1").expect("writes");
        std::fs::rename(path.join("new"), path.join("registry.json")).expect("renames");
        let woken = tokio::time::timeout(Duration::from_secs(20), watch.changed()).await;
        assert!(woken.is_ok(), "a rename wakes");
    }
}
