//! Envoy's admin endpoints (istio.md 8.3): what is asked, answered from a picture of the state.
//! Every answer is made from one picture, so that its parts belong together.

use std::collections::BTreeMap;

pub mod clusters;
pub mod config_dump;
pub mod listeners;
pub mod picture;
pub mod server;
pub mod stats;
mod system;

pub use picture::{ClusterPicture, ListenerPicture, Picture, RawPicture, ResourcePicture};

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: String,
}

pub const TEXT: &str = "text/plain; charset=UTF-8";
pub const JSON: &str = "application/json";

impl Answer {
    pub fn text(body: impl Into<String>) -> Answer {
        Answer {
            status: 200,
            content_type: TEXT,
            body: body.into(),
        }
    }

    /// Pretty-printed, with the protobuf field names that Envoy's tools expect.
    pub fn json(value: &serde_json::Value) -> Answer {
        let body = serde_json::to_string_pretty(value).unwrap_or_default() + "\n";
        Answer {
            status: 200,
            content_type: JSON,
            body,
        }
    }

    pub fn failed(status: u16, body: impl Into<String>) -> Answer {
        Answer {
            status,
            content_type: TEXT,
            body: body.into(),
        }
    }
}

/// Query parameters, decoded.
pub type Query = BTreeMap<String, String>;

/// What the endpoints that change something want from the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Quit,
    DrainListeners {
        inbound_only: bool,
        graceful: bool,
    },
    /// The answer to `/ready` and `server.live`.
    HealthCheck {
        ok: bool,
    },
    ResetCounters,
    ReopenLogs,
    Logging(Query),
}

/// Endpoints that change something: the path, and what they want. They need POST.
pub fn command(path: &str, query: &Query) -> Option<Command> {
    Some(match path {
        "/quitquitquit" => Command::Quit,
        "/drain_listeners" => Command::DrainListeners {
            inbound_only: query.contains_key("inboundonly"),
            graceful: query.contains_key("graceful"),
        },
        "/healthcheck/ok" => Command::HealthCheck { ok: true },
        "/healthcheck/fail" => Command::HealthCheck { ok: false },
        "/reset_counters" => Command::ResetCounters,
        "/reopen_logs" => Command::ReopenLogs,
        "/logging" => Command::Logging(query.clone()),
        _ => return None,
    })
}

/// Endpoints that only tell.
pub const READ_PATHS: &[&str] = &[
    "/",
    "/help",
    "/certs",
    "/clusters",
    "/config_dump",
    "/init_dump",
    "/listeners",
    "/memory",
    "/ready",
    "/runtime",
    "/server_info",
    "/stats",
    "/stats/prometheus",
];

pub const COMMAND_PATHS: &[&str] = &[
    "/quitquitquit",
    "/drain_listeners",
    "/healthcheck/ok",
    "/healthcheck/fail",
    "/reset_counters",
    "/reopen_logs",
    "/logging",
];

/// The answer of an endpoint that only tells.
pub fn read(path: &str, query: &Query, picture: &Picture) -> Answer {
    match path {
        "/clusters" => clusters::answer(query, picture),
        "/listeners" => listeners::answer(query, picture),
        "/config_dump" => config_dump::answer(query, picture),
        "/stats" => stats::answer(query, picture),
        "/stats/prometheus" => stats::prometheus(query, picture),
        "/ready" => server::ready(picture),
        "/server_info" => server::info(picture),
        "/memory" => server::memory(),
        "/certs" => server::certificates(picture),
        "/runtime" => server::runtime(picture),
        "/init_dump" => Answer::json(&serde_json::json!({})),
        "/" | "/help" => help(200),
        _ => help(404),
    }
}

fn help(status: u16) -> Answer {
    let mut body = String::new();
    if status == 404 {
        body.push_str("invalid path. ");
    }
    body.push_str("admin commands are:\n");
    for path in READ_PATHS {
        body.push_str(&format!("  {path}\n"));
    }
    for path in COMMAND_PATHS {
        body.push_str(&format!("  {path} (POST)\n"));
    }
    Answer {
        status,
        content_type: TEXT,
        body,
    }
}

/// A message as JSON with Envoy's field names; what cannot be written is said in its place.
pub(crate) fn message_json<M: prost::Message + prost::Name>(message: &M) -> serde_json::Value {
    match envoy_api::json::to_admin_json(message) {
        Ok(json) => json,
        Err(error) => serde_json::json!({ "error": error.to_string() }),
    }
}

#[cfg(test)]
mod tests;
