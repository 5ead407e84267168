//! Files that lines are written to. One thread per process writes; queues are bounded in bytes,
//! and what does not fit is dropped and counted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that wait for the disk, per file.
const QUEUE_LIMIT: usize = 4 << 20;
/// Lines may wait this long for company, as with Envoy's `--file-flush-interval-msec`.
const FLUSH_INTERVAL: Duration = Duration::from_millis(200);
/// More waiting bytes than this are written at once.
const FLUSH_SIZE: usize = 64 << 10;

/// All files of a process, each opened once.
#[derive(Debug, Default)]
pub struct Sinks {
    files: Mutex<BTreeMap<String, Arc<Sink>>>,
}

/// One file, opened at the first line and again after `reopen`.
#[derive(Debug)]
pub struct Sink {
    path: String,
    state: Mutex<State>,
    wake: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    queue: Vec<u8>,
    writer_runs: bool,
    /// The writer is between taking bytes and having written them.
    writing: bool,
    reopen: bool,
    flush: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sinks {
    pub fn file(&self, path: &str) -> Arc<Sink> {
        let mut files = locked(&self.files);
        if let Some(sink) = files.get(path) {
            return sink.clone();
        }
        let sink = Arc::new(Sink {
            path: path.to_owned(),
            state: Mutex::default(),
            wake: Condvar::new(),
            dropped: AtomicU64::new(0),
        });
        files.insert(path.to_owned(), sink.clone());
        sink
    }

    /// Files are opened anew at the next line (log rotation, SIGUSR1, `/reopen_logs`).
    pub fn reopen(&self) {
        for sink in locked(&self.files).values() {
            locked(&sink.state).reopen = true;
        }
    }

    /// Waits until what was written so far is in the files, at most `limit`.
    pub fn flush(&self, limit: Duration) {
        let sinks: Vec<Arc<Sink>> = locked(&self.files).values().cloned().collect();
        for sink in sinks {
            sink.flush(limit);
        }
    }
}

impl Sink {
    /// Queues a line; never blocks on the disk.
    pub fn write(self: &Arc<Self>, line: Vec<u8>) {
        let mut state = locked(&self.state);
        if state.queue.len() + line.len() > QUEUE_LIMIT {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.queue.extend_from_slice(&line);
        let full = state.queue.len() >= FLUSH_SIZE;
        if !state.writer_runs {
            state.writer_runs = self.start_writer();
        } else if full {
            self.wake.notify_all();
        }
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn flush(&self, limit: Duration) {
        let mut state = locked(&self.state);
        state.flush = true;
        self.wake.notify_all();
        let deadline = std::time::Instant::now() + limit;
        while !state.queue.is_empty() || state.writing {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self
                .wake
                .wait_timeout(state, left.min(Duration::from_millis(10)));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn start_writer(self: &Arc<Self>) -> bool {
        let sink = Arc::clone(self);
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || sink.run())
            .is_ok()
    }

    /// Writes what is queued; ends after a while without work.
    fn run(&self) {
        let mut file: Option<File> = None;
        let mut idle = 0;
        loop {
            let (bytes, reopen) = {
                let mut state = locked(&self.state);
                if state.queue.len() < FLUSH_SIZE && !state.flush {
                    let waited = self.wake.wait_timeout(state, FLUSH_INTERVAL);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                state.flush = false;
                if state.queue.is_empty() {
                    idle += 1;
                    if idle > 50 {
                        state.writer_runs = false;
                        return;
                    }
                    continue;
                }
                idle = 0;
                state.writing = true;
                (
                    std::mem::take(&mut state.queue),
                    std::mem::take(&mut state.reopen),
                )
            };
            if reopen {
                file = None;
            }
            self.write_out(&mut file, &bytes);
            locked(&self.state).writing = false;
            self.wake.notify_all();
        }
    }

    fn write_out(&self, file: &mut Option<File>, bytes: &[u8]) {
        let written = match self.path.as_str() {
            "/dev/stdout" => std::io::stdout()
                .write_all(bytes)
                .and_then(|()| std::io::stdout().flush()),
            "/dev/stderr" => std::io::stderr().write_all(bytes),
            path => {
                if file.is_none() {
                    *file = File::options().create(true).append(true).open(path).ok();
                }
                match file {
                    Some(file) => file.write_all(bytes),
                    None => Err(std::io::Error::other("cannot be opened")),
                }
            }
        };
        if let Err(error) = written {
            // A broken log must not stop traffic; the count shows it, the log says it once.
            if self.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
                tracing::warn!(path = %self.path, %error, "access log cannot be written");
            }
            *file = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_reopens() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("log");
        let sinks = Sinks::default();
        let sink = sinks.file(path.to_str().expect("text"));
        assert!(
            Arc::ptr_eq(&sink, &sinks.file(path.to_str().expect("text"))),
            "one per path"
        );
        sink.write(b"one\n".to_vec());
        sinks.flush(Duration::from_secs(5));
        assert_eq!(std::fs::read(&path).expect("file"), b"one\n");
        std::fs::rename(&path, folder.path().join("old")).expect("rotated");
        sinks.reopen();
        sink.write(b"two\n".to_vec());
        sinks.flush(Duration::from_secs(5));
        assert_eq!(std::fs::read(&path).expect("file"), b"two\n", "a new file");
        sink.write(vec![b'x'; QUEUE_LIMIT + 1]);
        assert_eq!(sink.dropped(), 1, "what does not fit is counted");
    }
}
