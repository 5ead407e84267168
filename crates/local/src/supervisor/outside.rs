//! The way out of the mesh to the host's network: pasta, if it is installed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::node::Node;
use crate::sys::{self, ChildSetup};

/// The name of pasta's link in the node; the rules masquerade what leaves by it.
const LINK: &str = "outside";
const START_LIMIT: Duration = Duration::from_secs(5);

/// Open for as long as pasta runs.
#[derive(Debug)]
pub struct Outside {
    pasta: Option<Pid>,
    note: String,
}

impl Outside {
    /// Never fails: without it the mesh works, and a sentence says what does not.
    pub async fn open(node: &Node) -> Outside {
        match start(node).await {
            Ok(pasta) => Outside {
                pasta: Some(pasta),
                note: "pods reach the host's network through pasta".to_owned(),
            },
            Err(why) => Outside {
                pasta: None,
                note: format!("pods do not reach the host's network: {why}"),
            },
        }
    }

    pub fn is_open(&self) -> bool {
        self.pasta.is_some()
    }

    pub fn note(&self) -> String {
        self.note.clone()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        if let Some(pasta) = self.pasta {
            let _ = kill(pasta, Signal::SIGTERM);
        }
    }
}

async fn start(node: &Node) -> Result<Pid, String> {
    let pid = spawn(node.namespace_path()).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "install pasta (Debian: passt)".to_owned(),
        _ => format!("pasta cannot be started: {error}"),
    })?;
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let there = node.run(|| {
            std::fs::read_to_string("/proc/thread-self/net/dev")
                .is_ok_and(|text| text.contains(&format!("{LINK}:")))
        });
        if there.await.unwrap_or(false) {
            return Ok(pid);
        }
        if kill(pid, None).is_err() {
            return Err("pasta ended at its start".to_owned());
        }
        if Instant::now() > deadline {
            let _ = kill(pid, Signal::SIGKILL);
            return Err("pasta did not start in time".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// On a thread of its own that waits for it: pasta must not outlive us (it holds the namespace),
/// and it is told of our end by the end of the thread that spawned it.
fn spawn(namespace: &str) -> io::Result<Pid> {
    let namespace = File::open(namespace)?;
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new()
        .name("outside".into())
        .spawn(move || {
            // By descriptor: pasta gives up the right to look into other processes' /proc first.
            let path = format!("/proc/self/fd/{}", namespace.as_raw_fd());
            let mut command = Command::new("pasta");
            command
                .args([
                    "--runas",
                    "0:0",
                    "--foreground",
                    "--quiet",
                    "--config-net",
                    "--no-map-gw",
                ])
                // The MTU of the pods' links: pasta does not look at what the way back takes.
                .args(["--mtu", "1500", "--ipv4-only", "--ns-ifname", LINK])
                .args([
                    "-t", "none", "-u", "none", "-T", "none", "-U", "none", "--netns", &path,
                ])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            sys::prepare(
                &mut command,
                ChildSetup {
                    dies_with_parent: true,
                    new_session: true,
                },
            );
            sys::inherit(&mut command, namespace.as_fd());
            match command.spawn() {
                Ok(mut child) => {
                    let _ = sender.send(Ok(child.id()));
                    let _ = child.wait();
                }
                Err(error) => {
                    let _ = sender.send(Err(error));
                }
            }
        })?;
    let id = receiver.recv().map_err(io::Error::other)??;
    i32::try_from(id)
        .map(Pid::from_raw)
        .map_err(io::Error::other)
}
