//! A real Envoy as a child: started from the bootstrap file, ended with its whole process group.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::options::Options;
use crate::{AgentError, bootstrap};

/// After SIGTERM Envoy ends at once; this is for one that hangs.
const TERMINATION_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct EnvoyProcess {
    child: Child,
    group: Pid,
}

impl EnvoyProcess {
    /// Writes the bootstrap beside the sockets and starts Envoy with it. Its logs are ours.
    pub async fn start(options: &Options, path: &Path) -> Result<EnvoyProcess, AgentError> {
        let file = options.paths.config.join("envoy-rev.json");
        let text = bootstrap::json(options).to_string();
        tokio::fs::write(&file, text)
            .await
            .map_err(AgentError::io(file.display().to_string()))?;
        let mut command = Command::new(path);
        command
            .arg("-c")
            .arg(&file)
            .args(arguments(options))
            .stdin(Stdio::null())
            // A group of its own: a wrapper script and Envoy get the signal, the terminal's
            // Ctrl-C does not (it is the agent that drains).
            .process_group(0)
            .kill_on_drop(true);
        let child = command
            .spawn()
            .map_err(AgentError::io(path.display().to_string()))?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let group = id
            .map(Pid::from_raw)
            .ok_or_else(|| AgentError::Proxy("Envoy ended before it began".to_string()))?;
        tracing::info!(path = %path.display(), pid = group.as_raw(), "Envoy started");
        Ok(EnvoyProcess { child, group })
    }

    /// Returns when Envoy has ended by itself.
    pub async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => describe(status),
            Err(error) => error.to_string(),
        }
    }

    pub async fn terminate(&mut self) {
        self.signal(Signal::SIGTERM);
        if tokio::time::timeout(TERMINATION_LIMIT, self.child.wait())
            .await
            .is_err()
        {
            tracing::warn!("Envoy does not end; killing it");
        }
        // Also what a wrapper may have left behind.
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait().await;
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = killpg(self.group, signal) {
            tracing::debug!(%error, ?signal, "Envoy's group is gone");
        }
    }
}

impl Drop for EnvoyProcess {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

fn arguments(options: &Options) -> Vec<String> {
    let config = &options.proxy_config;
    let mut arguments: Vec<String> = [
        "--drain-time-s",
        &config.drain_duration.as_secs().to_string(),
        "--drain-strategy",
        "immediate",
        "--local-address-ip-version",
        if options.pod.ips.iter().any(|ip| ip.is_ipv4()) {
            "v4"
        } else {
            "v6"
        },
        "--file-flush-interval-msec",
        "1000",
        "--disable-hot-restart",
        "--allow-unknown-static-fields",
        "-l",
        &options.log_level,
    ]
    .map(String::from)
    .into();
    if !options.component_log_level.is_empty() {
        arguments.extend([
            "--component-log-level".into(),
            options.component_log_level.clone(),
        ]);
    }
    if let Some(count) = config.concurrency.filter(|count| *count > 0) {
        arguments.extend(["--concurrency".into(), count.to_string()]);
    }
    arguments
}

fn describe(status: ExitStatus) -> String {
    format!("Envoy ended: {status}")
}
