//! The control plane as a child: started in the node's namespace, restarted when it ends.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::tasks::{self, Task};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;

use crate::client::Client;
use crate::error::LocalError;
use crate::init::logs::copy_to_log;
use crate::network::NODE_ADDRESS;
use crate::node::Node;
use crate::state_dir::StateDir;

pub const DISCOVERY_PORT: u16 = 15012;
const MONITORING_PORT: u16 = 15014;
/// How often the control plane may end before it has answered once.
const MOST_STARTS: u32 = 3;
const READY_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What the control plane is started with.
#[derive(Debug, Clone)]
pub struct ControlOptions {
    pub program: PathBuf,
    pub state: StateDir,
    pub authority: Option<(PathBuf, PathBuf)>,
}

/// The running control plane. Dropping it leaves the process to the kernel (it dies with us).
#[derive(Debug)]
pub struct ControlProcess {
    pid: watch::Receiver<u32>,
    stop: watch::Sender<bool>,
    task: Task<()>,
}

impl ControlProcess {
    /// Starts it and waits until it answers; one that ends at once again and again has a reason
    /// that waiting does not remove (a bad certificate, say).
    pub async fn start(node: &Node, options: ControlOptions) -> Result<Self, LocalError> {
        let (stop, stopping) = watch::channel(false);
        let (pid_sender, pid) = watch::channel(0);
        let (ended, ends) = watch::channel(0);
        let client = Client::new(&options.state.control_socket(), "the control plane");
        let log = options.state.logs().join("control.log");
        let node = node.clone();
        let task = tasks::spawn("control", async move {
            keep_running(&node, options, (pid_sender, ended), stopping).await
        });
        let control = ControlProcess { pid, stop, task };
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            if client
                .get("/ready")
                .await
                .is_ok_and(|answer| answer.is_success())
            {
                return Ok(control);
            }
            if *ends.borrow() >= MOST_STARTS {
                let reason = super::tail(&log, 1);
                let reason = reason.trim_start_matches("stolos: ");
                return Err(LocalError::failed(format!(
                    "the control plane does not start: {reason}"
                )));
            }
            if control.task.is_finished() || Instant::now() > deadline {
                return Err(LocalError::failed(format!(
                    "the control plane is not ready after {READY_LIMIT:?}; its log: {}\n{}",
                    log.display(),
                    super::tail(&log, 10)
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn pid(&self) -> u32 {
        *self.pid.borrow()
    }

    pub async fn stop(self) {
        self.stop.send_replace(true);
        let _ = self.task.await;
    }
}

fn command(options: &ControlOptions) -> Command {
    let state = &options.state;
    let mut command = Command::new(&options.program);
    command
        .arg("control")
        .arg("--state-dir")
        .arg(state.path())
        .arg("--registry")
        .arg(state.registry())
        .arg("--mesh-config")
        .arg(state.mesh_config())
        .arg("--admin-socket")
        .arg(state.control_socket())
        .arg("--xds-address")
        .arg(format!("{NODE_ADDRESS}:{DISCOVERY_PORT}"))
        .arg("--monitoring-address")
        .arg(format!("{NODE_ADDRESS}:{MONITORING_PORT}"));
    if let Some((certificate, key)) = &options.authority {
        command
            .arg("--ca-cert")
            .arg(certificate)
            .arg("--ca-key")
            .arg(key);
    }
    command
}

async fn keep_running(
    node: &Node,
    options: ControlOptions,
    (pid, ended): (watch::Sender<u32>, watch::Sender<u32>),
    mut stopping: watch::Receiver<bool>,
) {
    let mut pause = Duration::from_millis(50);
    loop {
        let started = Instant::now();
        match run_once(node, &options, &pid, &mut stopping).await {
            Ok(status) if !*stopping.borrow() => {
                tracing::warn!(status, "the control plane ended and is started again");
            }
            Err(error) => tracing::error!(%error, "the control plane cannot be started"),
            Ok(_) => {}
        }
        pid.send_replace(0);
        ended.send_modify(|count| *count = count.saturating_add(1));
        if started.elapsed() > LONGEST_PAUSE {
            pause = Duration::from_millis(50);
        }
        let stop = stopping.wait_for(|stop| *stop);
        if tokio::time::timeout(pause, stop).await.is_ok() {
            return;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn run_once(
    node: &Node,
    options: &ControlOptions,
    pid: &watch::Sender<u32>,
    stopping: &mut watch::Receiver<bool>,
) -> Result<String, LocalError> {
    let pipe = || std::io::pipe().map_err(|error| LocalError::system("make a pipe", error));
    let (reader, writer) = pipe()?;
    let errors = writer
        .try_clone()
        .map_err(|error| LocalError::system("clone a descriptor", error))?;
    let mut command = command(options);
    command.stdin(Stdio::null()).stdout(writer).stderr(errors);
    let mut child = node.spawn(command).await?;
    let log = options.state.logs().join("control.log");
    std::thread::spawn(move || copy_to_log(OwnedFd::from(reader), log));
    let id = child.id();
    pid.send_replace(id);
    let exit = tokio::task::spawn_blocking(move || child.wait());
    let process = Arc::new(Pid::from_raw(i32::try_from(id).unwrap_or(i32::MAX)));
    let mut exit = std::pin::pin!(exit);
    tokio::select! {
        status = &mut exit => return Ok(describe(status)),
        _ = stopping.wait_for(|stop| *stop) => {}
    }
    let _ = kill(*process, Signal::SIGTERM);
    let status = match tokio::time::timeout(STOP_LIMIT, &mut exit).await {
        Ok(status) => status,
        Err(_) => {
            let _ = kill(*process, Signal::SIGKILL);
            exit.await
        }
    };
    Ok(describe(status))
}

type Waited = Result<std::io::Result<std::process::ExitStatus>, tokio::task::JoinError>;

fn describe(status: Waited) -> String {
    match status {
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    }
}
