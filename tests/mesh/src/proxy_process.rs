//! One proxy under test as a process: real Envoy or ours, on the same configuration.

use crate::programs;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const START: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Envoy,
    Stolos,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Envoy => "envoy",
            Kind::Stolos => "stolos",
        }
    }

    fn command(self, config: &Path, concurrency: usize) -> Result<Command> {
        let concurrency = concurrency.to_string();
        let mut command = match self {
            Kind::Envoy => {
                let mut command = Command::new(programs::envoy().context("no Envoy")?);
                command.args(["--disable-hot-restart", "--file-flush-interval-msec", "10"]);
                command.args(["--drain-time-s", "1", "--parent-shutdown-time-s", "2"]);
                command.args(["--log-level", "warning"]);
                command
            }
            Kind::Stolos => {
                let mut command = Command::new(programs::built("cli", "stolos")?);
                command.arg("proxy");
                command
            }
        };
        command
            .arg("-c")
            .arg(config)
            .args(["--concurrency", &concurrency]);
        Ok(command)
    }
}

/// Ends the process when dropped.
pub struct ProxyProcess {
    child: Child,
    log: PathBuf,
    pub admin: u16,
}

impl ProxyProcess {
    /// Starts and waits for `/ready`; Err holds what it said when it refused.
    pub async fn start(
        kind: Kind,
        bootstrap: &Value,
        folder: &Path,
        concurrency: usize,
    ) -> Result<ProxyProcess> {
        let admin = &bootstrap["admin"]["address"]["socket_address"]["port_value"];
        let admin = admin.as_u64().and_then(|port| u16::try_from(port).ok());
        let admin = admin.context("the bootstrap has no admin port")?;
        let config = folder.join(format!("{}.json", kind.name()));
        std::fs::write(&config, serde_json::to_string_pretty(bootstrap)?)?;
        let log = folder.join(format!("{}.log", kind.name()));
        let output = File::create(&log)?;
        let child = kind
            .command(&config, concurrency)?
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        let mut process = ProxyProcess { child, log, admin };
        let begun = Instant::now();
        loop {
            if let Some(status) = process.child.try_wait()? {
                bail!("{} ended with {status}: {}", kind.name(), process.said());
            }
            if admin_get(admin, "/ready")
                .await
                .is_ok_and(|(status, _, _)| status == 200)
            {
                return Ok(process);
            }
            if begun.elapsed() > START {
                bail!(
                    "{} not ready after {START:?}: {}",
                    kind.name(),
                    process.said()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The last lines of its log.
    pub fn said(&self) -> String {
        tail(&self.log)
    }

    pub fn alive(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }
}

impl Drop for ProxyProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tail(path: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Whether `kind` takes the configuration; Err(text) when it refuses.
pub async fn validate(kind: Kind, bootstrap: &Value, folder: &Path) -> Result<Result<(), String>> {
    let config = folder.join("reject.json");
    std::fs::write(&config, serde_json::to_string_pretty(bootstrap)?)?;
    let mut command = kind.command(&config, 1)?;
    let output = tokio::task::spawn_blocking(move || {
        command
            .args(["--mode", "validate"])
            .stdin(Stdio::null())
            .output()
    });
    let output = output.await??;
    if output.status.success() {
        return Ok(Ok(()));
    }
    let said = [output.stdout, output.stderr].concat();
    Ok(Err(String::from_utf8_lossy(&said).into_owned()))
}

/// Status, content type and body of an admin page.
pub async fn admin_get(port: u16, path: &str) -> Result<(u16, String, Vec<u8>)> {
    let exchange = async {
        let mut tcp = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        tcp.write_all(request.as_bytes()).await?;
        let mut buffer = bytes::BytesMut::new();
        let head = crate::http1::read_head(&mut tcp, &mut buffer)
            .await?
            .context("no answer")?;
        let length = head.length(crate::http1::Length::UntilClose);
        let body = crate::http1::read_body(&mut tcp, &mut buffer, length).await;
        let status = head
            .first
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok());
        let kind = head.get("content-type").unwrap_or_default().to_owned();
        tcp.shutdown().await.ok();
        let mut rest = Vec::new();
        let _ = tcp.take(0).read_to_end(&mut rest).await;
        Ok((status.unwrap_or(0), kind, body.bytes))
    };
    tokio::time::timeout(Duration::from_secs(5), exchange).await?
}

/// A port that is free now. The kernel hands out such ports in turn, so that two processes that ask
/// at the same time get different ones; a start that still collides is tried again.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}
