//! Graceful shutdown: one side starts it and waits, the other learns of it and holds guards
//! while work is unfinished. Works across threads and runtimes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// The side that decides. Dropping it without `start` also starts the drain: a process part whose
/// owner is gone must not run on.
#[derive(Debug)]
pub struct Drain {
    started: watch::Sender<bool>,
    work: Arc<Work>,
}

/// The side that obeys; clones are cheap and are not counted as work.
#[derive(Clone, Debug)]
pub struct DrainWatch {
    started: watch::Receiver<bool>,
    work: Arc<Work>,
}

/// Unfinished work; `Drain::finished` waits until all are dropped.
#[derive(Debug)]
pub struct DrainGuard {
    work: Arc<Work>,
}

#[derive(Debug, Default)]
struct Work {
    active: AtomicUsize,
    idle: Notify,
}

impl Drain {
    #[allow(clippy::new_ret_no_self)]
    pub fn new() -> (Drain, DrainWatch) {
        let (sender, receiver) = watch::channel(false);
        let work = Arc::new(Work::default());
        (
            Drain {
                started: sender,
                work: work.clone(),
            },
            DrainWatch {
                started: receiver,
                work,
            },
        )
    }

    pub fn watch(&self) -> DrainWatch {
        DrainWatch {
            started: self.started.subscribe(),
            work: self.work.clone(),
        }
    }

    pub fn start(&self) {
        self.started.send_replace(true);
    }

    pub fn is_started(&self) -> bool {
        *self.started.borrow()
    }

    pub fn active(&self) -> usize {
        self.work.active.load(Ordering::Acquire)
    }

    /// Waits until no guard is left.
    pub async fn finished(&self) {
        loop {
            let mut idle = std::pin::pin!(self.work.idle.notified());
            // Registered before the count is read, so that the last drop is not missed.
            idle.as_mut().enable();
            if self.active() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Starts the drain and waits at most `limit`; false if work was left.
    pub async fn shutdown(&self, limit: Duration) -> bool {
        self.start();
        tokio::time::timeout(limit, self.finished()).await.is_ok()
    }
}

impl DrainWatch {
    /// A watch that never fires, for parts that are run without an owner.
    pub fn never() -> DrainWatch {
        let (drain, watch) = Drain::new();
        std::mem::forget(drain);
        watch
    }

    pub fn is_draining(&self) -> bool {
        *self.started.borrow() || self.started.has_changed().is_err()
    }

    /// Returns once the drain has started (or its owner is gone).
    pub async fn started(&self) {
        let mut receiver = self.started.clone();
        // An error means the sender is gone, which counts as started.
        let _ = receiver.wait_for(|started| *started).await;
    }

    pub fn guard(&self) -> DrainGuard {
        self.work.active.fetch_add(1, Ordering::AcqRel);
        DrainGuard {
            work: self.work.clone(),
        }
    }

    /// Runs `future` unless the drain starts first.
    pub async fn unless_draining<F: Future>(&self, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            () = self.started() => None,
            output = future => Some(output),
        }
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        if self.work.active.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.work.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shutdown_waits_for_guards() {
        let (drain, watch) = Drain::new();
        let guard = watch.guard();
        assert!(!watch.is_draining());
        let worker = tokio::spawn(async move {
            watch.started().await;
            assert!(watch.is_draining());
            tokio::task::yield_now().await;
            drop(guard);
        });
        assert!(
            drain.shutdown(Duration::from_secs(10)).await,
            "the guard was dropped in time"
        );
        worker.await.unwrap();
        assert_eq!(drain.active(), 0);
    }

    #[tokio::test]
    async fn shutdown_reports_work_left() {
        let (drain, watch) = Drain::new();
        let _guard = watch.guard();
        assert!(
            !drain.shutdown(Duration::from_millis(5)).await,
            "a guard is still held"
        );
    }

    #[tokio::test]
    async fn a_dropped_owner_counts_as_started() {
        let (drain, watch) = Drain::new();
        drop(drain);
        watch.started().await;
        assert!(watch.is_draining());
        assert!(
            watch
                .unless_draining(std::future::pending::<()>())
                .await
                .is_none()
        );
    }

    #[test]
    fn never_does_not_fire() {
        assert!(!DrainWatch::never().is_draining());
    }
}
