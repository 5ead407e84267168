//! From sources to snapshots: one owner of pilot's state on a thread of its own. Whatever has
//! arrived by the time it looks becomes one generation; that is the coalescing, there is no timer.
//! Nothing is published before every source has reported once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use mesh_api::mesh_config::MeshConfig;
use mesh_api::{Object, ObjectKey};
use pilot::model::{ServiceKey, WorkloadKey};
use pilot::{Changes, Event, Problem, Snapshot, State};
use tokio::sync::{mpsc, oneshot, watch};

use crate::metrics::Metrics;

/// Updates that wait for the pipeline.
const QUEUED_UPDATES: usize = 64;
/// Changes kept for streams that are behind; a stream further behind looks at everything.
const HISTORY: usize = 256;

/// Who sends events. The order decides which of two objects of one name is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The platform's services and pods.
    Registry,
    /// The watched directory.
    Directory,
    /// What `stolos apply` wrote.
    Applied,
    /// The mesh configuration.
    MeshConfig,
}

/// The state as streams see it.
#[derive(Debug, Clone)]
pub struct Published {
    /// What is translated.
    pub snapshot: Arc<Snapshot>,
    /// The latest changes, oldest first.
    pub history: VecDeque<Arc<Changes>>,
    /// When it was published.
    pub at: Instant,
    /// The objects in force and the generation at which each last changed.
    pub objects: Arc<BTreeMap<ObjectKey, (Arc<Object>, u64)>>,
}

impl Published {
    /// The number of the snapshot.
    pub fn generation(&self) -> u64 {
        self.snapshot.generation
    }

    /// What changed after a generation; `None` when that is too long ago to know.
    pub fn changes_since(&self, generation: u64) -> Option<impl Iterator<Item = &Changes>> {
        let oldest = self
            .history
            .front()
            .map_or(u64::MAX, |changes| changes.generation);
        (generation + 1 >= oldest).then(|| {
            let later = move |changes: &&Arc<Changes>| changes.generation > generation;
            self.history.iter().filter(later).map(Arc::as_ref)
        })
    }
}

/// The newest state, `None` until all sources have reported.
pub type PublishedWatch = watch::Receiver<Option<Arc<Published>>>;

enum Input {
    Update {
        source: Source,
        events: Vec<Event>,
        done: Option<oneshot::Sender<u64>>,
    },
    DryRun {
        events: Vec<Event>,
        done: oneshot::Sender<Vec<(ObjectKey, Problem)>>,
    },
}

/// Where sources send to.
#[derive(Clone)]
pub struct Sources {
    sender: mpsc::Sender<Input>,
}

impl Sources {
    /// Sends what changed; the first time (even if it is nothing) also says "this is all there
    /// is now". False when the pipeline has ended.
    pub async fn send(&self, source: Source, events: Vec<Event>) -> bool {
        self.sender
            .send(Input::Update {
                source,
                events,
                done: None,
            })
            .await
            .is_ok()
    }

    /// Sends and waits for the generation that holds it.
    pub async fn send_and_wait(&self, source: Source, events: Vec<Event>) -> Option<u64> {
        let (done, generation) = oneshot::channel();
        let update = Input::Update {
            source,
            events,
            done: Some(done),
        };
        self.sender.send(update).await.ok()?;
        generation.await.ok()
    }

    /// The problems that objects would have if these events came; nothing changes.
    pub async fn dry_run(&self, events: Vec<Event>) -> Option<Vec<(ObjectKey, Problem)>> {
        let (done, problems) = oneshot::channel();
        self.sender
            .send(Input::DryRun { events, done })
            .await
            .ok()?;
        problems.await.ok()
    }
}

/// The owner of the state.
pub(crate) struct Pipeline {
    inputs: mpsc::Receiver<Input>,
    publisher: watch::Sender<Option<Arc<Published>>>,
    state: State,
    mesh: Arc<MeshConfig>,
    domain: String,
    waiting_for: BTreeSet<Source>,
    history: VecDeque<Arc<Changes>>,
    overlay: Overlay,
    others: BTreeMap<OtherKey, Event>,
    objects: Arc<BTreeMap<ObjectKey, (Arc<Object>, u64)>>,
    /// Objects that changed since the last publication.
    touched: BTreeSet<ObjectKey>,
    metrics: Metrics,
}

/// Everything but objects, to be replayed by a dry run.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum OtherKey {
    Service(ServiceKey),
    Workload(WorkloadKey),
    Endpoints(ServiceKey, String),
}

impl Pipeline {
    pub fn new(
        mesh: Arc<MeshConfig>,
        domain: &str,
        sources: impl IntoIterator<Item = Source>,
        metrics: Metrics,
    ) -> (Pipeline, Sources, PublishedWatch) {
        let (sender, inputs) = mpsc::channel(QUEUED_UPDATES);
        let (publisher, published) = watch::channel(None);
        let pipeline = Pipeline {
            inputs,
            publisher,
            state: State::with_domain(mesh.clone(), domain),
            mesh,
            domain: domain.to_owned(),
            waiting_for: sources.into_iter().collect(),
            history: VecDeque::new(),
            overlay: Overlay::default(),
            others: BTreeMap::new(),
            objects: Arc::default(),
            touched: BTreeSet::new(),
            metrics,
        };
        (pipeline, Sources { sender }, published)
    }

    /// Works until the last sender is gone. Blocks: belongs on a thread of its own.
    pub fn run(mut self) {
        while let Some(input) = self.inputs.blocking_recv() {
            let mut waiting = Vec::new();
            let mut next = Some(input);
            let mut touched = BTreeSet::new();
            while let Some(input) = next {
                match input {
                    Input::Update {
                        source,
                        events,
                        done,
                    } => {
                        self.metrics.inbound(&events);
                        for event in events {
                            self.apply(source, event, &mut touched);
                        }
                        self.waiting_for.remove(&source);
                        waiting.extend(done);
                    }
                    Input::DryRun { events, done } => {
                        let _ = done.send(self.dry_run(events));
                    }
                }
                next = self.inputs.try_recv().ok();
            }
            self.publish(touched);
            for done in waiting {
                let _ = done.send(self.generation());
            }
        }
    }

    fn generation(&self) -> u64 {
        self.publisher
            .borrow()
            .as_ref()
            .map_or(0, |published| published.generation())
    }

    fn publish(&mut self, touched: BTreeSet<ObjectKey>) {
        self.touched.extend(touched);
        if !self.waiting_for.is_empty() {
            return;
        }
        let started = Instant::now();
        let (snapshot, changes) = self.state.snapshot();
        let generation = snapshot.generation;
        if generation == self.generation() {
            // Objects that were written again as they were keep their generation.
            self.touched.clear();
            return;
        }
        self.number_objects(generation);
        self.metrics.built(&snapshot, &changes, started.elapsed());
        self.history.push_back(Arc::new(changes));
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
        let published = Published {
            snapshot,
            history: self.history.clone(),
            at: Instant::now(),
            objects: self.objects.clone(),
        };
        tracing::info!(generation, "published");
        self.publisher.send_replace(Some(Arc::new(published)));
    }

    fn number_objects(&mut self, generation: u64) {
        if self.touched.is_empty() {
            return;
        }
        let objects = Arc::make_mut(&mut self.objects);
        for key in std::mem::take(&mut self.touched) {
            match self.overlay.in_force(&key) {
                Some(object) => objects.insert(key, (object, generation)),
                None => objects.remove(&key),
            };
        }
    }

    fn apply(&mut self, source: Source, event: Event, touched: &mut BTreeSet<ObjectKey>) {
        match event {
            Event::Object(object) => {
                let key = object.key();
                self.overlay.insert(source, object);
                touched.insert(key.clone());
                self.object_changed(&key);
            }
            Event::ObjectRemoved(key) => {
                self.overlay.remove(source, &key);
                touched.insert(key.clone());
                self.object_changed(&key);
            }
            other => {
                self.remember(&other);
                self.state.apply(other);
            }
        }
    }

    fn object_changed(&mut self, key: &ObjectKey) {
        self.state.apply(match self.overlay.in_force(key) {
            Some(object) => Event::Object(object),
            None => Event::ObjectRemoved(key.clone()),
        });
    }

    fn remember(&mut self, event: &Event) {
        let others = &mut self.others;
        match event {
            Event::Service(service) => {
                others.insert(OtherKey::Service(service.key.clone()), event.clone());
            }
            Event::ServiceRemoved(key) => {
                others.remove(&OtherKey::Service(key.clone()));
            }
            Event::Workload(workload) => {
                others.insert(OtherKey::Workload(workload.key.clone()), event.clone());
            }
            Event::WorkloadRemoved(key) => {
                others.remove(&OtherKey::Workload(key.clone()));
            }
            Event::Endpoints {
                service,
                shard,
                endpoints,
            } => {
                let key = OtherKey::Endpoints(service.clone(), shard.clone());
                match endpoints.is_empty() {
                    true => others.remove(&key),
                    false => others.insert(key, event.clone()),
                };
            }
            Event::MeshConfig(mesh) => self.mesh = mesh.clone(),
            Event::Object(_) | Event::ObjectRemoved(_) => {}
        }
    }

    /// A state of its own, built anew: slow, and only `apply --dry-run` asks for it.
    fn dry_run(&self, events: Vec<Event>) -> Vec<(ObjectKey, Problem)> {
        let mut overlay = self.overlay.clone();
        for event in events {
            match event {
                Event::Object(object) => overlay.insert(Source::Applied, object),
                Event::ObjectRemoved(key) => overlay.remove(Source::Applied, &key),
                _ => {}
            }
        }
        let mut state = State::with_domain(self.mesh.clone(), &self.domain);
        for event in self.others.values() {
            state.apply(event.clone());
        }
        for key in overlay.objects.keys() {
            if let Some(object) = overlay.in_force(key) {
                state.apply(Event::Object(object));
            }
        }
        let (snapshot, _) = state.snapshot();
        let problems = snapshot.statuses().problems();
        problems
            .map(|(key, problem)| (key.clone(), problem.clone()))
            .collect()
    }
}

/// Objects by name and source: the first source that has one is in force.
#[derive(Debug, Clone, Default)]
struct Overlay {
    objects: BTreeMap<ObjectKey, BTreeMap<Source, Arc<Object>>>,
}

impl Overlay {
    fn insert(&mut self, source: Source, object: Arc<Object>) {
        self.objects
            .entry(object.key())
            .or_default()
            .insert(source, object);
    }

    fn remove(&mut self, source: Source, key: &ObjectKey) {
        if let Some(versions) = self.objects.get_mut(key) {
            versions.remove(&source);
            if versions.is_empty() {
                self.objects.remove(key);
            }
        }
    }

    fn in_force(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        self.objects.get(key)?.values().next().cloned()
    }
}

#[cfg(test)]
mod tests;
