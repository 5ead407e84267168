//! The one writer of applied objects: commits to disk, then reports to the pipeline, in order.

use std::collections::BTreeSet;
use std::sync::Arc;

use daemon::clock::Clock;
use mesh_api::{Object, ObjectKey};
use pilot::{Event, Problem};
use tokio::sync::{mpsc, oneshot};

use super::objects::{Change, ObjectStore, StoreError};
use crate::pipeline::{PublishedWatch, Source, Sources};

/// Requests that wait for the one before.
const QUEUED_REQUESTS: usize = 16;

/// What happened (or would happen) to one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is new.
    Created,
    /// It is another one than before.
    Configured,
    /// It is what it was.
    Unchanged,
    /// It is gone.
    Deleted,
    /// It was not there.
    NotFound,
}

impl Action {
    /// As tools print it.
    pub fn name(self) -> &'static str {
        match self {
            Action::Created => "created",
            Action::Configured => "configured",
            Action::Unchanged => "unchanged",
            Action::Deleted => "deleted",
            Action::NotFound => "not found",
        }
    }
}

/// The outcome of a request.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// In the order of the request.
    pub results: Vec<(ObjectKey, Action)>,
    /// What there is to say about these objects, and what is newly wrong with others.
    pub problems: Vec<(ObjectKey, Problem)>,
    /// The generation that holds it; the current one for a dry run.
    pub generation: u64,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The control plane is going down.
    #[error("the control plane is shutting down")]
    Closed,
}

struct Request {
    changes: Vec<Change>,
    dry_run: bool,
    done: oneshot::Sender<Result<Outcome, ApplyError>>,
}

/// Sends requests to the writer.
#[derive(Clone)]
pub struct Applier(mpsc::Sender<Request>);

impl Applier {
    /// All changes or none.
    pub async fn apply(&self, changes: Vec<Change>, dry_run: bool) -> Result<Outcome, ApplyError> {
        let (done, outcome) = oneshot::channel();
        let request = Request {
            changes,
            dry_run,
            done,
        };
        self.0.send(request).await.map_err(|_| ApplyError::Closed)?;
        outcome.await.map_err(|_| ApplyError::Closed)?
    }
}

/// The writer.
pub(crate) struct Writer {
    requests: mpsc::Receiver<Request>,
    store: ObjectStore,
    sources: Sources,
    published: PublishedWatch,
    clock: Clock,
}

impl Writer {
    pub fn new(
        store: ObjectStore,
        sources: Sources,
        published: PublishedWatch,
        clock: Clock,
    ) -> (Writer, Applier) {
        let (sender, requests) = mpsc::channel(QUEUED_REQUESTS);
        (
            Writer {
                requests,
                store,
                sources,
                published,
                clock,
            },
            Applier(sender),
        )
    }

    /// Reports what is stored, then serves requests until the drain starts.
    pub async fn run(mut self, drain: daemon::drain::DrainWatch) {
        let stored = self
            .store
            .objects()
            .values()
            .cloned()
            .map(Event::Object)
            .collect();
        if !self.sources.send(Source::Applied, stored).await {
            return;
        }
        // A commit that has begun is finished: the request ends with an answer.
        while let Some(Some(request)) = drain.unless_draining(self.requests.recv()).await {
            let Request {
                changes,
                dry_run,
                done,
            } = request;
            let (writer, outcome) = self.handle(changes, dry_run).await;
            let _ = done.send(outcome);
            match writer {
                Some(writer) => self = writer,
                None => return,
            }
        }
    }

    async fn handle(
        mut self,
        changes: Vec<Change>,
        dry_run: bool,
    ) -> (Option<Writer>, Result<Outcome, ApplyError>) {
        let results: Vec<(ObjectKey, Action)> =
            changes.iter().map(|change| self.action(change)).collect();
        let is_needed = |action: Action| !matches!(action, Action::Unchanged | Action::NotFound);
        let actions = results.iter().map(|(_, action)| *action);
        let needed = changes
            .into_iter()
            .zip(actions)
            .filter(|(_, action)| is_needed(*action));
        let needed: Vec<Change> = needed.map(|(change, _)| change).collect();
        if dry_run {
            let events = needed.into_iter().map(event).collect();
            let problems = self.sources.dry_run(events).await;
            let generation = self.generation();
            let outcome = problems.map(|problems| self.outcome(results, problems, generation));
            return (Some(self), outcome.ok_or(ApplyError::Closed));
        }
        let before = self.problems();
        let mut generation = self.generation();
        if !needed.is_empty() {
            let now = self.clock.unix_seconds();
            let mut store = self.store;
            let committing = tokio::task::spawn_blocking(move || {
                let committed = store.commit(&needed, now);
                (store, committed)
            });
            // Only a panic in the store can lose it, and then nothing may be written any more.
            let Ok((store, committed)) = committing.await else {
                return (None, Err(ApplyError::Closed));
            };
            self.store = store;
            let (stored, deleted) = match committed {
                Ok(done) => done,
                Err(error) => return (Some(self), Err(error.into())),
            };
            let events = stored.into_iter().map(Event::Object);
            let events = events
                .chain(deleted.into_iter().map(Event::ObjectRemoved))
                .collect();
            match self.sources.send_and_wait(Source::Applied, events).await {
                Some(number) => generation = number,
                None => return (None, Err(ApplyError::Closed)),
            }
        }
        let concerned: BTreeSet<&ObjectKey> = results.iter().map(|(key, _)| key).collect();
        let after = self.problems();
        let is_news = |(key, problem): &(ObjectKey, Problem)| {
            concerned.contains(key) || !before.iter().any(|(k, p)| k == key && p == problem)
        };
        let problems = after.into_iter().filter(is_news).collect();
        let outcome = Outcome {
            results,
            problems,
            generation,
        };
        (Some(self), Ok(outcome))
    }

    /// A dry run's problems, without those that are there anyway.
    fn outcome(
        &self,
        results: Vec<(ObjectKey, Action)>,
        problems: Vec<(ObjectKey, Problem)>,
        generation: u64,
    ) -> Outcome {
        let before = self.problems();
        let concerns = |key: &ObjectKey| results.iter().any(|(known, _)| known == key);
        let problems = problems
            .into_iter()
            .filter(|(key, problem)| {
                concerns(key) || !before.iter().any(|(k, p)| k == key && p == problem)
            })
            .collect();
        Outcome {
            results,
            problems,
            generation,
        }
    }

    fn action(&self, change: &Change) -> (ObjectKey, Action) {
        match change {
            Change::Put(object) => {
                let key = object.key();
                let action = match self.store.objects().get(&key) {
                    None => Action::Created,
                    Some(known) if is_same(known, object) => Action::Unchanged,
                    Some(_) => Action::Configured,
                };
                (key, action)
            }
            Change::Delete(key) => {
                let is_there = self.store.objects().contains_key(key);
                (
                    key.clone(),
                    if is_there {
                        Action::Deleted
                    } else {
                        Action::NotFound
                    },
                )
            }
        }
    }

    fn generation(&self) -> u64 {
        self.published
            .borrow()
            .as_ref()
            .map_or(0, |published| published.generation())
    }

    fn problems(&self) -> Vec<(ObjectKey, Problem)> {
        let published = self.published.borrow().clone();
        published.map_or_else(Vec::new, |published| {
            let problems = published.snapshot.statuses().problems();
            problems
                .map(|(key, problem)| (key.clone(), problem.clone()))
                .collect()
        })
    }
}

fn event(change: Change) -> Event {
    match change {
        Change::Put(object) => Event::Object(object),
        Change::Delete(key) => Event::ObjectRemoved(key),
    }
}

/// Equal but for what the server wrote.
fn is_same(stored: &Arc<Object>, new: &Arc<Object>) -> bool {
    stored.spec == new.spec
        && stored.meta.labels == new.meta.labels
        && stored.meta.annotations == new.meta.annotations
}
