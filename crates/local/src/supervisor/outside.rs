//! The way out of the mesh to the host's network: pasta, if it is installed.

use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::node::Node;
use crate::sys::{self, ChildSetup};

/// The name of pasta's link in the node; the rules masquerade what leaves by it.
const LINK: &str = "outside";
const START_LIMIT: Duration = Duration::from_secs(5);

/// Open for as long as pasta runs.
#[derive(Debug)]
pub struct Outside {
    process: Mutex<Option<Child>>,
    note: String,
}

impl Outside {
    /// Never fails: without it the mesh works, and a sentence says what does not.
    pub async fn open(node: &Node) -> Outside {
        match start(node).await {
            Ok(child) => Outside {
                process: Mutex::new(Some(child)),
                note: "pods reach the host's network through pasta".to_owned(),
            },
            Err(why) => Outside {
                process: Mutex::new(None),
                note: format!("pods do not reach the host's network: {why}"),
            },
        }
    }

    pub fn is_open(&self) -> bool {
        self.process.lock().is_ok_and(|process| process.is_some())
    }

    pub fn note(&self) -> String {
        self.note.clone()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        if let Ok(mut process) = self.process.lock()
            && let Some(mut child) = process.take()
        {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

async fn start(node: &Node) -> Result<Child, String> {
    let mut command = Command::new("pasta");
    command
        .args([
            "--foreground",
            "--quiet",
            "--config-net",
            "--no-map-gw",
            "--ipv4-only",
        ])
        .args([
            "--ns-ifname",
            LINK,
            "-t",
            "none",
            "-u",
            "none",
            "-T",
            "none",
            "-U",
            "none",
        ])
        .args(["--netns", node.namespace_path()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // Its parent thread must be one that lives as long as we do: the main runtime's threads may
    // not, so it is not told to die with its parent; it ends when the namespace is gone.
    sys::prepare(
        &mut command,
        ChildSetup {
            dies_with_parent: false,
            new_session: true,
        },
    );
    let mut child = command
        .spawn()
        .map_err(|_| "install pasta (Debian: passt)".to_owned())?;
    let deadline = Instant::now() + START_LIMIT;
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("pasta ended at its start ({status})"));
        }
        let there = node.run(|| {
            std::fs::read_to_string("/proc/thread-self/net/dev")
                .is_ok_and(|text| text.contains(&format!("{LINK}:")))
        });
        if there.await.unwrap_or(false) {
            return Ok(child);
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err("pasta did not start in time".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
