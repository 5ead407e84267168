//! Keeps as many pods of each workload as there should be, and replaces them one by one when
//! their template changes: the new one is ready before the old one leaves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use daemon::tasks::{self, Task};
use tokio::sync::watch;

use crate::error::LocalError;
use crate::manifest::template::{Identity, PodTemplate};
use crate::manifest::{Workload, WorkloadKind, names};
use crate::platform::{Platform, random_token};
use crate::pod::{Pod, PodSpec};

/// A new pod that is not ready by then stops the rollout; the old ones go on.
const PROGRESS_LIMIT: Duration = Duration::from_secs(600);
const POD_HASH: &str = "pod-template-hash";

/// What one workload should be.
#[derive(Debug, Clone, PartialEq)]
struct Target {
    workload: Workload,
    replicas: u32,
    /// Counts up with each rolling restart that was asked for.
    restarts: u32,
}

#[derive(Debug)]
struct Controller {
    target: watch::Sender<Target>,
    /// The target that has been reached.
    reached: watch::Receiver<Option<Target>>,
    task: Task<()>,
}

/// All workloads of the mesh.
#[derive(Debug)]
pub struct Workloads {
    platform: Arc<Platform>,
    controllers: Mutex<BTreeMap<String, Controller>>,
}

impl Workloads {
    pub fn new(platform: Arc<Platform>) -> Workloads {
        Workloads {
            platform,
            controllers: Mutex::default(),
        }
    }

    /// Makes `wanted` the workloads there are; returns before they are.
    pub async fn converge(&self, wanted: Vec<Workload>) {
        let keys: Vec<String> = wanted.iter().map(Workload::key).collect();
        let gone: Vec<Controller> = {
            let mut controllers = self.lock();
            let gone: Vec<String> = controllers
                .keys()
                .filter(|key| !keys.contains(key))
                .cloned()
                .collect();
            for workload in wanted {
                self.set(&mut controllers, workload);
            }
            gone.iter()
                .filter_map(|key| controllers.remove(key))
                .collect()
        };
        stop_all(gone).await;
    }

    fn set(&self, controllers: &mut BTreeMap<String, Controller>, workload: Workload) {
        match controllers.get(&workload.key()) {
            Some(controller) => {
                controller.target.send_if_modified(|target| {
                    let replicas = workload.replicas;
                    let new = Target {
                        workload,
                        replicas,
                        restarts: target.restarts,
                    };
                    let changed = *target != new;
                    *target = new;
                    changed
                });
            }
            None => {
                let replicas = workload.replicas;
                let key = workload.key();
                let (target, targets) = watch::channel(Target {
                    workload,
                    replicas,
                    restarts: 0,
                });
                let (reached_sender, reached) = watch::channel(None);
                let control = follow(Arc::clone(&self.platform), targets, reached_sender);
                let task = tasks::spawn(format!("workload-{key}"), control);
                controllers.insert(
                    key,
                    Controller {
                        target,
                        reached,
                        task,
                    },
                );
            }
        }
    }

    /// Scales a Deployment until the next converge.
    pub fn scale(&self, namespace: &str, name: &str, replicas: u32) -> Result<u32, LocalError> {
        self.change(namespace, name, |target| {
            std::mem::replace(&mut target.replicas, replicas)
        })
    }

    /// Replaces all pods of a Deployment, one by one.
    pub fn restart(&self, namespace: &str, name: &str) -> Result<(), LocalError> {
        self.change(namespace, name, |target| target.restarts += 1)
    }

    fn change<T>(
        &self,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Target) -> T,
    ) -> Result<T, LocalError> {
        let controllers = self.lock();
        let key = format!("{namespace}/{name}");
        let controller = controllers
            .get(&key)
            .filter(|one| one.target.borrow().workload.kind != WorkloadKind::Pod)
            .ok_or_else(|| LocalError::refused(format!("there is no Deployment {key}")))?;
        let mut result = None;
        controller
            .target
            .send_modify(|target| result = Some(change(target)));
        result.ok_or_else(|| LocalError::failed("BUG: the change did not run"))
    }

    /// How many pods each workload should have, and whether it has exactly those.
    pub fn progress(&self) -> Vec<(Workload, u32, bool)> {
        let controllers = self.lock();
        controllers
            .values()
            .map(|one| {
                let target = one.target.borrow();
                let done = one.reached.borrow().as_ref() == Some(&*target);
                (target.workload.clone(), target.replicas, done)
            })
            .collect()
    }

    /// Ends every pod; returns when none is left.
    pub async fn stop(&self) {
        let controllers = std::mem::take(&mut *self.lock());
        stop_all(controllers.into_values().collect()).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Controller>> {
        self.controllers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A controller whose target is dropped ends its pods.
async fn stop_all(controllers: Vec<Controller>) {
    let tasks: Vec<Task<()>> = controllers
        .into_iter()
        .map(|controller| {
            drop(controller.target);
            controller.task
        })
        .collect();
    for task in tasks {
        let _ = task.await;
    }
}

/// A pod in its place.
struct Placed {
    pod: Pod,
    hash: String,
    restarts: u32,
}

struct Set {
    platform: Arc<Platform>,
    places: BTreeMap<u32, Placed>,
    turns: BTreeMap<u32, u32>,
}

async fn follow(
    platform: Arc<Platform>,
    mut targets: watch::Receiver<Target>,
    reached: watch::Sender<Option<Target>>,
) {
    let mut set = Set {
        platform,
        places: BTreeMap::new(),
        turns: BTreeMap::new(),
    };
    loop {
        let target = targets.borrow_and_update().clone();
        let done = set.reach(&target, &targets).await;
        if done {
            reached.send_replace(Some(target));
        }
        if targets.changed().await.is_err() {
            break;
        }
    }
    set.stop_from(0, false).await;
}

impl Set {
    /// A newer target ends only the waiting for readiness, never the ending of a pod.
    async fn reach(&mut self, target: &Target, newer: &watch::Receiver<Target>) -> bool {
        self.stop_from(target.replicas, true).await;
        for index in 0..target.replicas {
            if !self.places.contains_key(&index)
                && let Err(error) = self.place(index, target)
            {
                tracing::error!(%error, workload = target.workload.key(), "cannot start a pod");
                return false;
            }
        }
        for index in 0..target.replicas {
            let old = self.places.get(&index).is_some_and(|placed| {
                placed.hash != target.workload.hash || placed.restarts != target.restarts
            });
            if old && !self.replace(index, target, newer).await {
                return false;
            }
        }
        for index in 0..target.replicas {
            if !self.until_ready(index, newer).await {
                return false;
            }
        }
        true
    }

    /// The new pod first, except for a bare Pod, whose name is taken until it is gone.
    async fn replace(
        &mut self,
        index: u32,
        target: &Target,
        newer: &watch::Receiver<Target>,
    ) -> bool {
        let Some(old) = self.places.remove(&index) else {
            return true;
        };
        if target.workload.kind == WorkloadKind::Pod {
            old.pod.stop().await;
        } else {
            *self.turns.entry(index).or_default() += 1;
            let placed = self.place(index, target);
            if placed.is_err() || !self.until_ready(index, newer).await {
                if let Some(new) = self.places.insert(index, old) {
                    new.pod.stop().await;
                }
                return false;
            }
            let key = old.pod.spec.key();
            old.pod.stop().await;
            self.release(&key);
            return true;
        }
        self.place(index, target).is_ok()
    }

    fn place(&mut self, index: u32, target: &Target) -> Result<(), LocalError> {
        let workload = &target.workload;
        let turn = self.turns.get(&index).copied().unwrap_or_default();
        let name = workload.pod_name(index, turn);
        let key = format!("{}/{name}", workload.namespace);
        let ip = self
            .platform
            .with_addresses(|addresses| addresses.pod(&key))?;
        let mut template: PodTemplate = workload.template.clone();
        if workload.kind != WorkloadKind::Pod {
            template
                .labels
                .insert(POD_HASH.to_owned(), workload.hash.clone());
        }
        let spec = PodSpec {
            workload: workload.name.clone(),
            identity: Identity {
                uid: names::uid(&key),
                name,
                ip,
            },
            template: Arc::new(template),
            token: random_token()?,
        };
        let pod = Pod::start(&self.platform, spec);
        let placed = Placed {
            pod,
            hash: workload.hash.clone(),
            restarts: target.restarts,
        };
        self.places.insert(index, placed);
        Ok(())
    }

    async fn until_ready(&self, index: u32, newer: &watch::Receiver<Target>) -> bool {
        let Some(placed) = self.places.get(&index) else {
            return false;
        };
        let key = placed.pod.spec.key();
        let mut version = self.platform.board.version();
        let ready = async {
            while !self.platform.board.pod(&key).is_some_and(|pod| pod.ready) {
                if version.changed().await.is_err() {
                    return false;
                }
            }
            true
        };
        let mut newer = newer.clone();
        tokio::select! {
            ready = tokio::time::timeout(PROGRESS_LIMIT, ready) => ready.unwrap_or(false),
            _ = newer.changed() => false,
        }
    }

    /// Ends the pods from `first` on, all at once.
    async fn stop_from(&mut self, first: u32, release: bool) {
        let surplus = self.places.split_off(&first);
        let stops: Vec<(bool, Task<String>)> = surplus
            .into_iter()
            .map(|(index, placed)| {
                // The next start begins with turn 0: the name of a later turn does not come back.
                let is_replacement = self.turns.get(&index).is_some_and(|turn| *turn > 0);
                let stop = tasks::spawn("pod-stop", async move {
                    let key = placed.pod.spec.key();
                    placed.pod.stop().await;
                    key
                });
                (release || is_replacement, stop)
            })
            .collect();
        for (release, stop) in stops {
            if let (Ok(key), true) = (stop.await, release) {
                self.release(&key);
            }
        }
    }

    fn release(&self, key: &str) {
        let released = self.platform.with_addresses(|addresses| {
            addresses.release_pod(key);
            Ok(())
        });
        if let Err(error) = released {
            tracing::warn!(%error, "cannot write the addresses");
        }
    }
}
