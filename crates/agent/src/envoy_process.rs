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
        let record = options.paths.config.join("envoy.pid");
        end_leftover(&record, &file).await;
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
        let recording = tokio::fs::write(&record, group.as_raw().to_string()).await;
        recording.map_err(AgentError::io(record.display().to_string()))?;
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

/// An agent that was killed leaves its Envoy behind, which holds the ports; that one has served
/// until now and ends here. Recognised by its command line: the number may be another's by now.
async fn end_leftover(record: &Path, bootstrap: &Path) {
    let Ok(text) = tokio::fs::read_to_string(record).await else {
        return;
    };
    let Ok(id) = text.trim().parse::<i32>() else {
        return;
    };
    let is_ours = || {
        let command_line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let wanted = bootstrap.as_os_str().as_encoded_bytes();
        command_line
            .split(|byte| *byte == 0)
            .any(|argument| argument == wanted)
    };
    if id <= 1 || !is_ours() {
        return;
    }
    tracing::warn!(pid = id, "ending the Envoy of an agent that was killed");
    let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
    let gone = async {
        while is_ours() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let _ = tokio::time::timeout(TERMINATION_LIMIT, gone).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_leftover_is_ended_and_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let (record, bootstrap) = (
            folder.path().join("envoy.pid"),
            folder.path().join("envoy-rev.json"),
        );
        let start = |argument: &Path| {
            let mut command = Command::new("sh");
            command
                .args(["-c", "sleep 600; :"])
                .arg(argument)
                .process_group(0)
                .kill_on_drop(true);
            command.spawn().unwrap()
        };
        let (mut leftover, mut other) = (start(&bootstrap), start(Path::new("/other")));
        for child in [&leftover, &other] {
            std::fs::write(&record, child.id().unwrap().to_string()).unwrap();
            // A child that is dead but not reaped has no command line: it counts as gone.
            end_leftover(&record, &bootstrap).await;
        }
        let status = tokio::time::timeout(Duration::from_secs(5), leftover.wait()).await;
        assert!(!status.expect("ended").unwrap().success());
        assert!(
            other.try_wait().unwrap().is_none(),
            "another process goes on"
        );
        killpg(Pid::from_raw(other.id().unwrap() as i32), Signal::SIGKILL).unwrap();
        std::fs::write(&record, "nonsense").unwrap();
        end_leftover(&record, &bootstrap).await;
    }
}
