//! What all pods of a running mesh share: the node, the board, the state folder, the way to the
//! control plane.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;

use crate::board::Board;
use crate::client::Client;
use crate::error::LocalError;
use crate::network::Addresses;
use crate::node::Node;
use crate::pod::sidecar::MeshFacts;
use crate::state_dir::StateDir;

#[derive(Debug)]
pub struct Platform {
    pub node: Node,
    pub state: StateDir,
    /// The folder of all meshes' state, which no pod may see.
    pub state_root: PathBuf,
    /// Our own binary, where it stays when a build replaces the one that was started.
    pub program: PathBuf,
    pub board: Board,
    pub control: Client,
    /// The real Envoy, if there is one.
    pub envoy: Option<PathBuf>,
    pub addresses: Mutex<Addresses>,
    pub facts: Mutex<MeshFacts>,
    /// The whole mesh is being ended: nobody is left to be told that a pod leaves.
    pub closing: AtomicBool,
    /// The version of the board that registry, rules and names show.
    pub published: watch::Receiver<u64>,
}

impl Platform {
    pub fn facts(&self) -> MeshFacts {
        self.facts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    pub fn trust_domain(&self) -> String {
        self.facts().trust_domain
    }

    /// Changes who has which address and writes that down.
    pub fn with_addresses<T>(
        &self,
        change: impl FnOnce(&mut Addresses) -> Result<T, LocalError>,
    ) -> Result<T, LocalError> {
        let mut addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = addresses.clone();
        let result = change(&mut addresses)?;
        if *addresses != before {
            self.state.store(ADDRESSES, &*addresses)?;
        }
        Ok(result)
    }

    /// Makes `change` and waits until every proxy has acknowledged what follows from it, but no
    /// longer than `limit`.
    pub async fn settle(&self, limit: Duration, change: impl FnOnce()) {
        let deadline = Instant::now() + limit;
        let before = self.generation().await;
        change();
        let version = *self.board.version().borrow();
        let mut published = self.published.clone();
        let wait = published.wait_for(|published| *published >= version);
        let _ = tokio::time::timeout(limit, wait).await;
        let Some(before) = before else { return }; // there is nobody to wait for
        let mut newest = before;
        while newest == before && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
            newest = self.generation().await.unwrap_or(before);
        }
        let Some(left) = deadline.checked_duration_since(Instant::now()) else {
            return;
        };
        let answer = self.wait_for_generation(newest, left).await;
        let done = |json: &Value| json.get("done").and_then(Value::as_bool) == Some(true);
        if !answer.as_ref().is_some_and(done) {
            tracing::info!(?answer, "not every proxy has acknowledged in time");
        }
    }

    /// The newest generation of the control plane.
    async fn generation(&self) -> Option<u64> {
        let answer = self.control.get("/v1/proxies").await.ok()?;
        answer.json().get("generation")?.as_u64()
    }

    /// What the control plane says of the proxies' progress, after at most `limit`.
    pub async fn wait_for_generation(&self, generation: u64, limit: Duration) -> Option<Value> {
        let path = format!(
            "/v1/wait?generation={generation}&timeout={}ms",
            limit.as_millis()
        );
        let body = hyper::body::Bytes::new();
        let answer = self
            .control
            .call("GET", &path, body, limit + GRACE)
            .await
            .ok()?;
        answer.is_success().then(|| answer.json())
    }
}

/// The file with the addresses in the state folder.
pub const ADDRESSES: &str = "addresses.json";
const GRACE: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(10);

/// Lower-case hex of the SHA-256 of `text`.
pub fn sha256_hex(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// 256 random bits in URL-safe Base64.
pub fn random_token() -> Result<String, LocalError> {
    use base64::Engine;
    let mut bytes = [0u8; 32];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| LocalError::failed("the system's random numbers are not available"))?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}
