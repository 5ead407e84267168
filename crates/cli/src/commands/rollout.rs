//! `stolos rollout restart|status`: replace a workload's pods one by one.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::Scope;
use super::apply::duration;
use crate::exit::CliError;
use crate::mesh::{Mesh, block_on, expect};

#[derive(Debug, Args)]
pub struct Rollout {
    action: Action,
    /// `NAME` or `deployment/NAME`.
    workload: String,
    /// How long `status` waits for the end.
    #[arg(long, default_value = "300s", value_parser = duration)]
    timeout: Duration,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Action {
    /// Replace its pods one by one; returns at once.
    Restart,
    /// Wait until all pods are the new ones, and ready.
    Status,
}

pub fn run(arguments: Rollout, scope: &Scope) -> Result<ExitCode, CliError> {
    let name = arguments.workload.rsplit('/').next().unwrap_or_default();
    block_on(async {
        let mesh = Mesh::find(scope.mesh.as_deref())?;
        match arguments.action {
            Action::Restart => {
                let body = json!({"namespace": scope.namespace, "name": name});
                expect(mesh.supervisor.post("/v1/restart", &body).await?)?;
                println!("deployment.apps/{name} restarted");
            }
            Action::Status => {
                until_done(&mesh, &scope.namespace, name, arguments.timeout).await?;
                println!("deployment {name} successfully rolled out");
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn until_done(
    mesh: &Mesh,
    namespace: &str,
    name: &str,
    limit: Duration,
) -> Result<(), CliError> {
    let deadline = Instant::now() + limit;
    loop {
        let status = mesh.status().await?;
        let mut workloads = status.workloads.iter();
        let Some(workload) = workloads.find(|one| one.namespace == namespace && one.name == name)
        else {
            let text = format!("there is no deployment {name} in namespace {namespace}");
            return Err(CliError::failed(text));
        };
        if workload.up_to_date && workload.ready >= workload.replicas {
            return Ok(());
        }
        if Instant::now() > deadline {
            let (ready, wanted) = (workload.ready, workload.replicas);
            let text = format!("{ready} of {wanted} pods of {name} are ready after {limit:?}");
            return Err(CliError::Timeout(text));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
