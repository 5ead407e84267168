//! `stolos exec`: a command inside a pod's namespaces, with the container's environment.

use std::fs::File;
use std::process::{Command, ExitCode};

use clap::Args;
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use super::Scope;
use super::apply::{list, word};
use crate::exit::CliError;
use crate::mesh::{Mesh, block_on};
use crate::pod;

#[derive(Debug, Args)]
pub struct Exec {
    /// `NAME`, `NAME.NAMESPACE` or `deployment/NAME`.
    pod: String,
    /// The container whose environment is used; the first one where not given.
    #[arg(short, long)]
    container: Option<String>,
    /// Accepted for kubectl's sake: the terminal is passed on as it is.
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Accepted for kubectl's sake: the terminal is passed on as it is.
    #[arg(short = 't', long)]
    tty: bool,
    /// The command, after `--`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub fn run(arguments: Exec, scope: &Scope) -> Result<ExitCode, CliError> {
    let (pid, environment) = block_on(target(&arguments, scope))?;
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        CliError::failed(format!("cannot {what} of pod {}: {error}", arguments.pod))
    };
    let mut namespaces = Vec::new();
    for (name, flag) in [
        ("net", CloneFlags::CLONE_NEWNET),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("mnt", CloneFlags::CLONE_NEWNS),
    ] {
        let file = File::open(format!("/proc/{pid}/ns/{name}"))
            .map_err(|error| failed("open the namespaces", &error))?;
        namespaces.push((file, flag));
    }
    // The pid namespace is for the child; this process must have one thread for the mount one.
    for (file, flag) in &namespaces {
        setns(file, *flag).map_err(|error| failed("enter the namespaces", &error))?;
    }
    std::env::set_current_dir("/").map_err(|error| failed("enter the root", &error))?;
    let (program, rest) = arguments
        .command
        .split_first()
        .ok_or_else(|| CliError::usage("which command? `exec POD -- COMMAND`"))?;
    let mut command = Command::new(program);
    command.args(rest).env_clear();
    command.env(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    if let Ok(terminal) = std::env::var("TERM") {
        command.env("TERM", terminal);
    }
    let status = command
        .envs(environment)
        .status()
        .map_err(|error| CliError::failed(format!("cannot start {program}: {error}")))?;
    let code = status.code().unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

async fn target(arguments: &Exec, scope: &Scope) -> Result<(u32, Vec<(String, String)>), CliError> {
    let mesh = Mesh::find(scope.mesh.as_deref())?;
    let pod = pod::find(&mesh, &scope.namespace, &arguments.pod).await?;
    if pod.pid == 0 {
        return Err(CliError::failed(format!(
            "pod {} is not running: {}",
            pod.name, pod.status
        )));
    }
    let record = pod::record(&mesh, &pod).await?;
    let specs = list(&record, "specs");
    let spec = match &arguments.container {
        None => specs.first(),
        Some(name) => specs.iter().find(|spec| word(spec, "name") == name),
    };
    if let (None, Some(name)) = (spec, &arguments.container) {
        let text = format!("pod {} has no application container {name}", pod.name);
        return Err(CliError::failed(text));
    }
    Ok((pod.pid, spec.map(environment).unwrap_or_default()))
}

fn environment(spec: &Value) -> Vec<(String, String)> {
    let pair = |pair: &Value| match pair.as_array().map(Vec::as_slice) {
        Some([Value::String(name), Value::String(value)]) => Some((name.clone(), value.clone())),
        _ => None,
    };
    list(spec, "env").iter().filter_map(pair).collect()
}
