//! What is known of every pod right now. Pods write their own record; whoever needs the whole
//! (registry, rules, names, the table on the terminal) reads it and waits for changes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::manifest::template::{PodTemplate, ProxyRole};

/// `namespace/name` of a pod.
pub type PodKey = String;

/// One pod.
#[derive(Debug, Clone)]
pub struct PodRecord {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub ip: Ipv4Addr,
    pub workload: String,
    pub template: Arc<PodTemplate>,
    pub token_sha256: String,
    /// Unix seconds.
    pub created_at: i64,
    pub ready: bool,
    pub terminating: bool,
    pub phase: Phase,
    pub containers: BTreeMap<String, ContainerStatus>,
    /// The id of the pod's first process on the host; 0 before it exists.
    pub pid: u32,
    /// Why it is not ready, in one line; empty when there is nothing to say.
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    pub ready: bool,
    pub restarts: u32,
    /// `Running`, `Waiting`, `CrashLoopBackOff`, `Completed`, `Error` …
    pub state: String,
    /// How it ended the last time.
    pub last_exit: String,
    /// Why it runs and is not ready: what the probe met.
    #[serde(default)]
    pub unready: String,
}

/// What the supervisor's API says of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    pub namespace: String,
    pub name: String,
    pub ready: bool,
    pub terminating: bool,
    pub phase: Phase,
    /// What `kubectl get pods` shows as STATUS.
    pub status: String,
    pub message: String,
    pub ip: Ipv4Addr,
    pub pid: u32,
    pub workload: String,
    /// `stolos`, `envoy` or empty.
    pub proxy: String,
    pub identity: String,
    pub labels: BTreeMap<String, String>,
    pub containers: BTreeMap<String, ContainerStatus>,
    pub created_at: i64,
}

impl PodRecord {
    pub fn key(&self) -> PodKey {
        format!("{}/{}", self.namespace, self.name)
    }

    pub fn status(&self, trust_domain: &str) -> PodStatus {
        let account = &self.template.service_account;
        let proxied = self.template.proxy != ProxyRole::None;
        let namespace = &self.namespace;
        PodStatus {
            namespace: namespace.clone(),
            name: self.name.clone(),
            ready: self.ready,
            terminating: self.terminating,
            phase: self.phase,
            status: self.word(),
            message: self.explanation(),
            ip: self.ip,
            pid: self.pid,
            workload: self.workload.clone(),
            proxy: self
                .template
                .proxy
                .choice()
                .map(|one| one.as_str().into())
                .unwrap_or_default(),
            identity: if proxied {
                format!("spiffe://{trust_domain}/ns/{namespace}/sa/{account}")
            } else {
                String::new()
            },
            labels: self.template.labels.clone(),
            containers: self.containers.clone(),
            created_at: self.created_at,
        }
    }

    /// Why it is not ready: what went wrong with the pod, or how a container ended.
    fn explanation(&self) -> String {
        if self.ready || !self.message.is_empty() {
            return self.message.clone();
        }
        let mut waiting = self.containers.iter().filter(|(_, one)| !one.ready);
        let reason = waiting.find_map(|(name, one)| {
            if one.state == "Running" && !one.unready.is_empty() {
                return Some(format!("container {name}: {}", one.unready));
            }
            let ended = !one.last_exit.is_empty();
            ended.then(|| format!("container {name} ended with {}", one.last_exit))
        });
        reason.unwrap_or_default()
    }

    /// The state of the first container that is not simply running, else the phase.
    fn word(&self) -> String {
        if self.terminating {
            return "Terminating".to_owned();
        }
        let odd = self
            .containers
            .values()
            .find(|one| !one.state.is_empty() && !one.ready);
        match (self.phase, odd) {
            (Phase::Running, Some(container)) if container.state != "Running" => {
                container.state.clone()
            }
            (Phase::Pending, _) if !self.message.is_empty() => "Error".to_owned(),
            (phase, _) => format!("{phase:?}"),
        }
    }
}

/// All pods. Clones share the content.
#[derive(Debug, Clone)]
pub struct Board {
    pods: Arc<Mutex<BTreeMap<PodKey, PodRecord>>>,
    version: Arc<watch::Sender<u64>>,
}

impl Default for Board {
    fn default() -> Board {
        Board {
            pods: Arc::default(),
            version: Arc::new(watch::channel(0).0),
        }
    }
}

impl Board {
    pub fn insert(&self, record: PodRecord) {
        self.lock().insert(record.key(), record);
        self.changed();
    }

    pub fn remove(&self, key: &str) {
        self.lock().remove(key);
        self.changed();
    }

    /// Changes a record; readers are woken only if that made a difference to what they read.
    pub fn update(&self, key: &str, change: impl FnOnce(&mut PodRecord)) {
        let different = {
            let mut pods = self.lock();
            let Some(record) = pods.get_mut(key) else {
                return;
            };
            let before = record.clone();
            change(record);
            !same(&before, record)
        };
        if different {
            self.changed();
        }
    }

    pub fn pods(&self) -> Vec<PodRecord> {
        self.lock().values().cloned().collect()
    }

    pub fn pod(&self, key: &str) -> Option<PodRecord> {
        self.lock().get(key).cloned()
    }

    /// Counts up with each change.
    pub fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Wakes readers, for changes that concern them and are not on the board.
    pub fn changed(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PodKey, PodRecord>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn same(a: &PodRecord, b: &PodRecord) -> bool {
    (a.ready, a.terminating, a.phase, a.pid) == (b.ready, b.terminating, b.phase, b.pid)
        && a.containers == b.containers
        && a.message == b.message
}
