//! Which mesh a command is about, and the two servers it talks to.

use std::future::Future;

use local::client::{Answer, Client};
use local::state_dir::{self, StateDir};
use local::supervisor::api::MeshStatus;
use serde_json::Value;

use crate::exit::CliError;

/// A running mesh on this machine.
pub struct Mesh {
    pub name: String,
    pub state: StateDir,
    pub control: Client,
    pub supervisor: Client,
}

impl Mesh {
    /// The mesh named, or the only one that runs.
    pub fn find(name: Option<&str>) -> Result<Mesh, CliError> {
        let running: Vec<String> = state_dir::meshes()?
            .into_iter()
            .filter_map(|(mesh, is_running)| is_running.then_some(mesh))
            .collect();
        let name = match (name, running.as_slice()) {
            (Some(name), _) if running.iter().any(|one| one == name) => name.to_owned(),
            (Some(name), []) => {
                return Err(CliError::failed(format!(
                    "mesh {name} is not running (none is): start it with `stolos up DIR`"
                )));
            }
            (Some(name), _) => {
                return Err(CliError::failed(format!(
                    "mesh {name} is not running; running: {}",
                    running.join(", ")
                )));
            }
            (None, [only]) => only.clone(),
            (None, []) => {
                return Err(CliError::failed(
                    "no mesh is running: start one with `stolos up DIR`",
                ));
            }
            (None, _) => {
                return Err(CliError::usage(format!(
                    "several meshes run, name one with --mesh: {}",
                    running.join(", ")
                )));
            }
        };
        Mesh::named(&name)
    }

    /// The mesh of this name, running or not.
    pub fn named(name: &str) -> Result<Mesh, CliError> {
        // It becomes a path, which `down --purge` removes.
        if !local::manifest::is_mesh_name(name) {
            return Err(CliError::usage(format!(
                "--mesh {name:?}: a mesh's name is lower-case letters, digits and -, at most 40"
            )));
        }
        let state = StateDir::of_mesh(name)?;
        Ok(Mesh {
            name: name.to_owned(),
            control: Client::new(&state.control_socket(), "the control plane"),
            supervisor: Client::new(&state.supervisor_socket(), "the supervisor"),
            state,
        })
    }

    pub async fn status(&self) -> Result<MeshStatus, CliError> {
        let json = expect(self.supervisor.get("/v1/status").await?)?;
        serde_json::from_value(json)
            .map_err(|error| CliError::failed(format!("the supervisor's status: {error}")))
    }
}

/// The JSON of a successful answer, or the other side's reason.
pub fn expect(answer: Answer) -> Result<Value, CliError> {
    if answer.is_success() {
        return Ok(answer.json());
    }
    match answer.status {
        422 => Err(CliError::Input(answer.error_text())),
        _ => Err(CliError::Failed(answer.error_text())),
    }
}

/// Runs a command's asynchronous part on this thread.
pub fn block_on<T>(future: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format!("cannot start the runtime: {error}")))?
        .block_on(future)
}

/// A query's value with everything escaped that is not plain.
pub fn query_escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
