//! Named tasks: a panic is logged with the task's name, a group is joined as one.
//! Every spawn of the product goes through here.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};

/// One running task; dropping it aborts the task, awaiting it gives its output.
#[derive(Debug)]
#[must_use = "dropping a Task aborts it: hold it, await it, or spawn in a Tasks group"]
pub struct Task<T = ()> {
    name: Arc<str>,
    handle: JoinHandle<T>,
}

#[derive(Debug, thiserror::Error)]
#[error("task {name} {how}")]
pub struct TaskError {
    pub name: Arc<str>,
    how: &'static str,
}

/// Spawns on the current runtime.
pub fn spawn<F>(name: impl Into<Arc<str>>, future: F) -> Task<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let name = name.into();
    Task {
        handle: tokio::spawn(Watched::new(name.clone(), future)),
        name,
    }
}

/// Spawns on the current thread's `LocalSet`.
pub fn spawn_local<F>(name: impl Into<Arc<str>>, future: F) -> Task<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let name = name.into();
    Task {
        handle: tokio::task::spawn_local(Watched::new(name.clone(), future)),
        name,
    }
}

impl<T> Task<T> {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn abort(&self) {
        self.handle.abort();
    }

    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.handle).poll(context).map(|joined| {
            joined.map_err(|error| TaskError {
                name: self.name.clone(),
                how: if error.is_panic() {
                    "panicked"
                } else {
                    "was aborted"
                },
            })
        })
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// A group of tasks without results: joined together, aborted when the last handle is dropped.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    group: Arc<Group>,
}

#[derive(Debug, Default)]
struct Group {
    running: Mutex<Running>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct Running {
    next: u64,
    tasks: BTreeMap<u64, (Arc<str>, Option<AbortHandle>)>,
}

impl Tasks {
    pub fn new() -> Tasks {
        Tasks::default()
    }

    pub fn spawn<F>(&self, name: impl Into<Arc<str>>, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let name = name.into();
        let id = self.group.enter(name.clone());
        // A weak reference, or a group that nobody holds would keep itself alive.
        let leave = Leave {
            id,
            group: Arc::downgrade(&self.group),
        };
        let watched = Watched::new(name, future);
        let handle = tokio::spawn(async move {
            let _leave = leave;
            watched.await;
        });
        self.group.started(id, handle.abort_handle());
    }

    pub fn len(&self) -> usize {
        self.group.lock().tasks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn names(&self) -> Vec<Arc<str>> {
        self.group
            .lock()
            .tasks
            .values()
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Waits until every task has ended by itself.
    pub async fn join(&self) {
        loop {
            let mut ended = std::pin::pin!(self.group.ended.notified());
            ended.as_mut().enable();
            if self.is_empty() {
                return;
            }
            ended.await;
        }
    }

    /// Waits at most `limit`, then aborts what is left and names it.
    pub async fn join_within(&self, limit: Duration) -> Result<(), Vec<Arc<str>>> {
        if tokio::time::timeout(limit, self.join()).await.is_ok() {
            return Ok(());
        }
        let left = self.names();
        self.group.abort();
        if left.is_empty() { Ok(()) } else { Err(left) }
    }
}

impl Group {
    fn lock(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, name: Arc<str>) -> u64 {
        let mut running = self.lock();
        running.next += 1;
        let id = running.next;
        running.tasks.insert(id, (name, None));
        id
    }

    fn started(&self, id: u64, handle: AbortHandle) {
        // Gone already if the task was quick.
        if let Some(entry) = self.lock().tasks.get_mut(&id) {
            entry.1 = Some(handle);
        }
    }

    fn abort(&self) {
        for (_, handle) in self.lock().tasks.values() {
            if let Some(handle) = handle {
                handle.abort();
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.abort();
    }
}

struct Leave {
    id: u64,
    group: std::sync::Weak<Group>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        if let Some(group) = self.group.upgrade() {
            group.lock().tasks.remove(&self.id);
            group.ended.notify_waiters();
        }
    }
}

/// Logs when the future is dropped by a panic.
struct Watched<F> {
    name: Arc<str>,
    future: Pin<Box<F>>,
}

impl<F> Watched<F> {
    fn new(name: Arc<str>, future: F) -> Watched<F> {
        Watched {
            name,
            future: Box::pin(future),
        }
    }
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.future.as_mut().poll(context)
    }
}

impl<F> Drop for Watched<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(task = %self.name, "task panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_gives_its_output_or_says_what_happened() {
        assert_eq!(spawn("adds", async { 1 + 1 }).await.unwrap(), 2);
        let error = spawn("fails", async { panic!("on purpose") })
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "task fails panicked");
        let task = spawn("waits", std::future::pending::<()>());
        task.abort();
        assert_eq!(
            task.await.unwrap_err().to_string(),
            "task waits was aborted"
        );
    }

    #[tokio::test]
    async fn a_group_joins_and_names_what_is_left() {
        let tasks = Tasks::new();
        for _ in 0..10 {
            tasks.spawn("quick", async { tokio::task::yield_now().await });
        }
        tasks.join().await;
        assert!(tasks.is_empty());
        tasks.spawn("stuck", std::future::pending());
        let left = tasks
            .join_within(Duration::from_millis(5))
            .await
            .unwrap_err();
        assert_eq!(left, ["stuck".into()]);
        tasks.join().await;
    }

    #[tokio::test]
    async fn dropping_the_group_aborts_its_tasks() {
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let tasks = Tasks::new();
        tasks.spawn("holds", async move {
            let _sender = sender;
            std::future::pending::<()>().await;
        });
        drop(tasks);
        assert!(
            receiver.await.is_err(),
            "the task and what it held are gone"
        );
    }
}
