//! `stolos down`: ends a mesh and leaves nothing of it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use local::state_dir::meshes;
use serde_json::json;

use super::Scope;
use super::apply::duration;
use crate::exit::CliError;
use crate::mesh::{Mesh, block_on, expect};

#[derive(Debug, Args)]
pub struct Down {
    /// Also remove the mesh's state: applied configuration, certificate authority, logs.
    #[arg(long)]
    purge: bool,
    /// How long it may take.
    #[arg(long, default_value = "60s", value_parser = duration)]
    timeout: Duration,
}

pub fn run(arguments: Down, scope: &Scope) -> Result<ExitCode, CliError> {
    let mesh = match (Mesh::find(scope.mesh.as_deref()), &scope.mesh) {
        (Ok(mesh), _) => mesh,
        // What is stopped already can still be purged, by name.
        (Err(_), Some(name)) if arguments.purge => Mesh::named(name)?,
        (Err(error), None) if arguments.purge => match meshes()?.as_slice() {
            [(only, false)] => Mesh::named(only)?,
            _ => return Err(error),
        },
        (Err(error), _) => return Err(error),
    };
    if mesh.state.is_running() {
        block_on(stop(&mesh, arguments.timeout))?;
        println!("mesh {} is stopped", mesh.name);
    }
    if arguments.purge {
        if !mesh.state.path().exists() {
            return Err(CliError::failed(format!("mesh {} has no state", mesh.name)));
        }
        mesh.state.purge()?;
        println!("the state of mesh {} is removed", mesh.name);
    }
    Ok(ExitCode::SUCCESS)
}

async fn stop(mesh: &Mesh, limit: Duration) -> Result<(), CliError> {
    expect(mesh.supervisor.post("/v1/stop", &json!({})).await?)?;
    let deadline = Instant::now() + limit;
    while mesh.state.is_running() {
        if Instant::now() > deadline {
            let text = format!("mesh {} has not stopped within {limit:?}", mesh.name);
            return Err(CliError::Timeout(text));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
