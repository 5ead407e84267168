//! `stolos scale`: how many pods a workload has.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::Scope;
use super::apply::duration;
use crate::exit::CliError;
use crate::mesh::{Mesh, block_on, expect};

/// A number of pods on one machine that is surely a slip of the finger.
const MOST_REPLICAS: u32 = 1_000;

#[derive(Debug, Args)]
pub struct Scale {
    /// `NAME`, `deployment/NAME` or `deployment NAME`.
    #[arg(required = true, num_args = 1..=2, value_name = "[KIND] NAME")]
    words: Vec<String>,
    #[arg(long)]
    replicas: u32,
    /// Return only when they are ready.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, default_value = "60s", value_parser = duration)]
    timeout: Duration,
}

pub fn run(arguments: Scale, scope: &Scope) -> Result<ExitCode, CliError> {
    if arguments.replicas > MOST_REPLICAS {
        let text = format!("--replicas: at most {MOST_REPLICAS} on one machine");
        return Err(CliError::usage(text));
    }
    let name = workload(&arguments.words)?;
    let body = json!({
        "namespace": scope.namespace, "name": name, "replicas": arguments.replicas,
    });
    block_on(async {
        let mesh = Mesh::find(scope.mesh.as_deref())?;
        expect(mesh.supervisor.post("/v1/scale", &body).await?)?;
        println!("deployment.apps/{name} scaled");
        if arguments.wait {
            let deadline = tokio::time::Instant::now() + arguments.timeout;
            while !is_ready(&mesh, &scope.namespace, &name).await? {
                if tokio::time::Instant::now() > deadline {
                    let limit = arguments.timeout;
                    return Err(CliError::Timeout(format!(
                        "{name} is not ready after {limit:?}"
                    )));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn workload(words: &[String]) -> Result<String, CliError> {
    let (kind, name) = match words {
        [kind, name] => (kind.as_str(), name.as_str()),
        [only] => only.split_once('/').unwrap_or(("deployment", only)),
        _ => return Err(CliError::usage("`scale deployment NAME --replicas N`")),
    };
    match kind {
        "deployment" | "deployments" | "deploy" => Ok(name.to_owned()),
        other => Err(CliError::usage(format!(
            "{other}: only a deployment has replicas"
        ))),
    }
}

async fn is_ready(mesh: &Mesh, namespace: &str, name: &str) -> Result<bool, CliError> {
    let status = mesh.status().await?;
    let pods = status
        .pods
        .iter()
        .filter(|pod| pod.namespace == namespace && pod.workload == name);
    let count = u32::try_from(pods.count()).unwrap_or(u32::MAX);
    Ok(status.workloads.iter().any(|one| {
        one.namespace == namespace
            && one.name == name
            && one.ready == one.replicas
            && count == one.replicas
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_a_deployment_as_kubectl_does() {
        for (words, want, why) in [
            (vec!["a"], Some("a"), "a name alone"),
            (vec!["deploy/a"], Some("a"), "with its kind"),
            (vec!["deployment", "a"], Some("a"), "in two words"),
            (vec!["pod/a"], None, "another kind"),
            (vec!["svc", "a"], None, "another kind in two words"),
        ] {
            let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
            assert_eq!(workload(&words).ok().as_deref(), want, "{why}");
        }
    }
}
