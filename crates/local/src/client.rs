//! HTTP/1.1 with JSON over a unix socket: how the command line and the supervisor talk to the
//! control plane and to each other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::error::LocalError;

/// Larger answers are refused.
const MOST_BYTES: usize = 256 << 20;

/// One socket; a connection per call.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    /// What an error calls the other side.
    name: &'static str,
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }

    /// What the other side says is wrong: the member `error` of its JSON, or its text.
    pub fn error_text(&self) -> String {
        let json = self.json();
        match json.get("error").and_then(Value::as_str) {
            Some(text) => text.to_owned(),
            None => self.text(),
        }
    }
}

impl Client {
    pub fn new(socket: &Path, name: &'static str) -> Client {
        Client {
            socket: socket.to_owned(),
            name,
        }
    }

    pub async fn get(&self, path: &str) -> Result<Answer, LocalError> {
        self.call("GET", path, Bytes::new(), Duration::from_secs(60))
            .await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer, LocalError> {
        let body = Bytes::from(body.to_string());
        self.call("POST", path, body, Duration::from_secs(60)).await
    }

    pub async fn call(
        &self,
        method: &str,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<Answer, LocalError> {
        tokio::time::timeout(limit, self.exchange(method, path, body))
            .await
            .map_err(|_| {
                LocalError::failed(format!(
                    "{} did not answer {path} within {limit:?}",
                    self.name
                ))
            })?
    }

    async fn exchange(&self, method: &str, path: &str, body: Bytes) -> Result<Answer, LocalError> {
        let failed = |error: &dyn std::fmt::Display| {
            LocalError::failed(format!("{} broke off {path}: {error}", self.name))
        };
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| {
            LocalError::failed(format!(
                "{} is not reachable at {}: {error}",
                self.name,
                self.socket.display()
            ))
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
        let _connection = daemon::tasks::spawn("unix-client", async move {
            let _ = connection.await;
        });
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| failed(&error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| failed(&error))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MOST_BYTES)
            .collect()
            .await
            .map_err(|error| failed(&error))?;
        Ok(Answer {
            status,
            body: body.to_bytes(),
        })
    }
}
