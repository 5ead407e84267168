//! One container of a running pod: started, probed, restarted with back-off, ended gracefully.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::sync::watch;

use crate::board::{Board, ContainerStatus, PodKey};
use crate::init::protocol::{Container, Exit};
use crate::manifest::template::RestartPolicy;
use crate::manifest::template::{ContainerTemplate, Identity, PodTemplate, ProbeTemplate};
use crate::pod::backoff::Backoff;
use crate::pod::probes;
use crate::pod::process::{PodProcess, ProcessState};

/// What runs one container's life.
pub struct ContainerRun {
    pub process: Arc<PodProcess>,
    pub board: Board,
    pub pod: PodKey,
    pub identity: Identity,
    pub template: Arc<PodTemplate>,
    pub container: ContainerTemplate,
    /// The process as it is started each time.
    pub spec: Container,
    pub log: PathBuf,
    /// True once the pod is to stop: no more restarts.
    pub stopping: watch::Receiver<bool>,
}

impl ContainerRun {
    /// Runs until the pod stops or the restart policy says that it is over.
    pub async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let started = Instant::now();
            self.set(|status| status.state = "Starting".to_owned());
            let mut state = self.process.run(self.spec.clone()).await;
            let health = state.clone();
            let exit = tokio::select! {
                exit = exited(&mut state) => exit,
                () = self.watch_health(health) => continue,
            };
            let again = match self.template.restart {
                RestartPolicy::Always => true,
                RestartPolicy::OnFailure => exit != Exit::Code(0),
                RestartPolicy::Never => false,
            };
            let wait = backoff.next(started.elapsed());
            let looping = backoff.is_looping();
            let told = match self.last_line() {
                Some(line) if exit != Exit::Code(0) => format!("{exit}: {line}"),
                _ => exit.to_string(),
            };
            self.set(|status| {
                status.ready = false;
                status.last_exit = told;
                status.state = match (&exit, again && looping) {
                    (_, true) => "CrashLoopBackOff",
                    (Exit::Code(0), _) => "Completed",
                    _ => "Error",
                }
                .to_owned();
            });
            if *self.stopping.borrow() || !again {
                return;
            }
            tracing::info!(pod = self.pod, container = self.container.name, %exit, "restarts");
            let stopped = self.stopping.wait_for(|stopping| *stopping);
            if tokio::time::timeout(wait, stopped).await.is_ok() {
                return;
            }
            self.set(|status| status.restarts += 1);
        }
    }

    /// Probes while the process runs. Returns only after a liveness failure and the end of the
    /// process that followed; the caller then starts it again.
    async fn watch_health(&self, mut state: watch::Receiver<ProcessState>) {
        if state
            .wait_for(|state| *state == ProcessState::Running)
            .await
            .is_err()
        {
            return std::future::pending().await;
        }
        self.set(|status| status.state = "Running".to_owned());
        let startup = self.container.startup.clone();
        if let Some(probe) = startup
            && !self.passes_in_time(&probe).await
        {
            return self.replace(&mut state, "startup").await;
        }
        let readiness = async {
            match &self.container.readiness {
                None => {
                    tokio::time::sleep(STAYS_UP).await;
                    self.set(|status| status.ready = true);
                    std::future::pending().await
                }
                Some(probe) => self.watch_readiness(probe).await,
            }
        };
        let liveness = async {
            match &self.container.liveness {
                None => std::future::pending().await,
                Some(probe) => self.until_dead(probe).await,
            }
        };
        tokio::select! {
            () = readiness => {}
            () = liveness => self.replace(&mut state, "liveness").await,
        }
    }

    async fn passes_in_time(&self, probe: &ProbeTemplate) -> bool {
        tokio::time::sleep(probe.initial_delay).await;
        let deadline = tokio::time::Instant::now() + probe.period * probe.failures;
        while tokio::time::Instant::now() < deadline {
            match self.ask(probe).await {
                Ok(()) => return true,
                Err(why) => self.set(|status| {
                    status.unready = format!("the startup probe failed: {why}");
                }),
            }
            // Often, so that a start does not wait for a whole period.
            tokio::time::sleep(probe.period.min(STARTING_PERIOD)).await;
        }
        false
    }

    async fn watch_readiness(&self, probe: &ProbeTemplate) {
        tokio::time::sleep(probe.initial_delay).await;
        let (mut good, mut bad, mut ready) = (0, 0, false);
        loop {
            let mut unready = String::new();
            match self.ask(probe).await {
                Ok(()) => (good, bad) = (good + 1, 0),
                Err(why) => {
                    (good, bad) = (0, bad + 1);
                    tracing::debug!(pod = self.pod, why, "readiness probe failed");
                    unready = format!("the readiness probe failed: {why}");
                }
            }
            ready = if ready {
                bad < probe.failures
            } else {
                good >= probe.successes
            };
            self.set(|status| {
                status.ready = ready;
                status.unready = unready;
            });
            // Not ready yet: ask often, so that a start does not wait for a whole period.
            let pause = if ready {
                probe.period
            } else {
                probe.period.min(STARTING_PERIOD)
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn until_dead(&self, probe: &ProbeTemplate) {
        tokio::time::sleep(probe.initial_delay).await;
        let mut failures = 0;
        loop {
            failures = if self.ask(probe).await.is_ok() {
                0
            } else {
                failures + 1
            };
            if failures >= probe.failures {
                return;
            }
            tokio::time::sleep(probe.period).await;
        }
    }

    /// What the container printed last, shortened.
    fn last_line(&self) -> Option<String> {
        let text = std::fs::read(&self.log).ok()?;
        let end = &text[text.len().saturating_sub(4096)..];
        let text = String::from_utf8_lossy(end);
        let line = text
            .lines()
            .rev()
            .map(str::trim)
            .find(|line| !line.is_empty())?;
        Some(line.chars().take(200).collect())
    }

    async fn ask(&self, probe: &ProbeTemplate) -> Result<(), String> {
        let exec = |command: &[String]| Container {
            name: format!("{}.probe", self.container.name),
            command: command.to_vec(),
            quiet: true,
            ..self.spec.clone()
        };
        probes::ask(&self.process, self.identity.ip, probe, exec).await
    }

    /// Ends an unhealthy process; the loop in `run` starts it again.
    async fn replace(&self, state: &mut watch::Receiver<ProcessState>, probe: &str) {
        tracing::info!(
            pod = self.pod,
            container = self.container.name,
            "{probe} probe failed"
        );
        self.set(|status| {
            status.ready = false;
            status.restarts += 1;
            status.last_exit = format!("the {probe} probe failed");
        });
        end(
            &self.process,
            &self.container.name,
            state,
            self.template.grace,
        )
        .await;
    }

    fn set(&self, change: impl FnOnce(&mut ContainerStatus)) {
        let name = &self.container.name;
        self.board.update(&self.pod, |record| {
            change(record.containers.entry(name.clone()).or_default());
        });
    }
}

/// A container that nobody probes counts as ready once it has run for this long: one that dies
/// at once must not look ready in between.
const STAYS_UP: Duration = Duration::from_millis(300);

/// How often a pod that is not ready yet is asked at most.
const STARTING_PERIOD: Duration = Duration::from_millis(100);

/// Waits for the end of a process.
pub async fn exited(state: &mut watch::Receiver<ProcessState>) -> Exit {
    let done = state
        .wait_for(|state| matches!(state, ProcessState::Exited(_)))
        .await;
    match done.as_deref() {
        Ok(ProcessState::Exited(exit)) => exit.clone(),
        _ => Exit::Signal(Signal::SIGKILL as i32),
    }
}

/// SIGTERM, then SIGKILL after `grace`.
pub async fn end(
    process: &PodProcess,
    container: &str,
    state: &mut watch::Receiver<ProcessState>,
    grace: Duration,
) {
    process.signal(container, Signal::SIGTERM).await;
    if tokio::time::timeout(grace, exited(state)).await.is_err() {
        process.signal(container, Signal::SIGKILL).await;
        let _ = tokio::time::timeout(Duration::from_secs(5), exited(state)).await;
    }
}
