//! `stolos up`: a mesh from a directory, in the foreground or detached; a second `up` makes the
//! running mesh match its directory.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use daemon::signals::Signals;
use local::supervisor::{self, Supervisor, UpOptions};
use serde_json::json;

use super::Scope;
use super::apply::duration;
use crate::exit::CliError;
use crate::mesh::{Mesh, expect};

mod table;

/// How long a mesh that did not become ready may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub struct Up {
    /// The directory: Kubernetes manifests, Istio configuration, `stolos.yaml`.
    directory: PathBuf,
    /// Return once everything is ready; `stolos down` stops it.
    #[arg(long)]
    detach: bool,
    /// How long --detach waits for everything to be ready.
    #[arg(long, default_value = "120s", value_parser = duration, value_name = "DURATION")]
    wait: Duration,
    /// Skip the build commands of `stolos.yaml`.
    #[arg(long)]
    no_build: bool,
    /// A signing certificate of yours for the authority (PEM), with --ca-key.
    #[arg(long, requires = "ca_key", value_name = "FILE")]
    ca_cert: Option<PathBuf>,
    /// The key of --ca-cert (PEM).
    #[arg(long, requires = "ca_cert", value_name = "FILE")]
    ca_key: Option<PathBuf>,
}

pub fn run(arguments: Up, scope: &Scope) -> Result<ExitCode, CliError> {
    let options = UpOptions {
        folder: arguments.directory.clone(),
        mesh: scope.mesh.clone(),
        build: !arguments.no_build,
        authority: arguments.ca_cert.clone().zip(arguments.ca_key.clone()),
    };
    let desired = supervisor::read(&options)?;
    for warning in &desired.warnings {
        eprintln!("{warning}");
    }
    let mesh = Mesh::named(&desired.name)?;
    if mesh.state.is_running() {
        return multi_threaded(converge(&mesh, &arguments));
    }
    if arguments.detach {
        return detach(&mesh, &arguments);
    }
    let level = std::env::var("STOLOS_LOG").unwrap_or_else(|_| "warn".to_owned());
    super::process::start_logging(&level, false)?;
    multi_threaded(foreground(options, desired))
}

async fn foreground(
    options: UpOptions,
    desired: local::manifest::DesiredMesh,
) -> Result<ExitCode, CliError> {
    let mut signals = Signals::install()?;
    let name = desired.name.clone();
    println!("starting mesh {name} from {}", options.folder.display());
    let starting = Supervisor::start(&options, desired);
    let started = tokio::select! {
        started = starting => started?,
        _ = signals.next() => {
            println!("stopped before it was started");
            return Ok(ExitCode::FAILURE);
        }
    };
    let Some(supervisor) = started else {
        let text = format!("mesh {name} is being started or stopped by another process");
        return Err(CliError::failed(text));
    };
    let watching = daemon::tasks::spawn("table", table::show(Arc::clone(&supervisor)));
    tokio::select! {
        _ = signals.next() => {}
        () = supervisor.stop_asked() => {}
    }
    watching.abort();
    println!("stopping mesh {name}");
    tokio::select! {
        () = supervisor.shut_down() => {}
        _ = signals.next() => eprintln!("stopped without waiting for what was in flight"),
    }
    Ok(ExitCode::SUCCESS)
}

/// The mesh runs: it is given the directory again.
async fn converge(mesh: &Mesh, arguments: &Up) -> Result<ExitCode, CliError> {
    let folder = absolute(&arguments.directory)?;
    println!(
        "mesh {} is running; making it match {}",
        mesh.name,
        folder.display()
    );
    if !arguments.no_build {
        local::supervisor::run_build(&arguments.directory, Some(&mesh.name)).await?;
    }
    let body = json!({"folder": folder}).to_string();
    let limit = arguments.wait;
    let answer = mesh
        .supervisor
        .call("POST", "/v1/converge", body.into(), limit)
        .await?;
    let json = expect(answer)?;
    for warning in super::apply::list(&json, "warnings") {
        eprintln!("{}", super::apply::diagnostic(warning));
    }
    wait_until_ready(mesh, arguments.wait, || None).await
}

/// Starts the supervisor as a process of its own and waits until the mesh is ready.
fn detach(mesh: &Mesh, arguments: &Up) -> Result<ExitCode, CliError> {
    mesh.state.create()?;
    let log_path = mesh.state.logs().join("supervisor.log");
    let log = std::fs::File::create(&log_path)
        .map_err(|error| CliError::failed(format!("{}: {error}", log_path.display())))?;
    let errors = log.try_clone()?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("--mesh")
        .arg(&mesh.name)
        .arg("up")
        .arg(absolute(&arguments.directory)?);
    if arguments.no_build {
        command.arg("--no-build");
    }
    if let (Some(certificate), Some(key)) = (&arguments.ca_cert, &arguments.ca_key) {
        command
            .arg("--ca-cert")
            .arg(certificate)
            .arg("--ca-key")
            .arg(key);
    }
    // A process group of its own: Ctrl-C on this terminal is not meant for it.
    command
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .process_group(0);
    let mut child = command.spawn()?;
    multi_threaded(async move {
        let mut ended = || match child.try_wait() {
            Ok(Some(status)) => {
                let text = std::fs::read_to_string(&log_path).unwrap_or_default();
                let reason = last_error(&text);
                Some(format!("the mesh did not start ({status}): {reason}"))
            }
            _ => None,
        };
        let outcome = wait_until_ready(mesh, arguments.wait, &mut ended).await;
        if outcome.is_err() && ended().is_none() {
            // A mesh that is not ready is not left half there.
            let _ = mesh.supervisor.post("/v1/stop", &json!({})).await;
            let deadline = Instant::now() + STOP_LIMIT;
            while ended().is_none() && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        outcome
    })
}

async fn wait_until_ready(
    mesh: &Mesh,
    limit: Duration,
    mut ended: impl FnMut() -> Option<String>,
) -> Result<ExitCode, CliError> {
    let deadline = Instant::now() + limit;
    let mut last = None;
    loop {
        if let Some(reason) = ended() {
            return Err(CliError::failed(reason));
        }
        if let Ok(status) = mesh.status().await {
            if status.ready {
                print!("{}", table::text(&status));
                return Ok(ExitCode::SUCCESS);
            }
            if table::is_hopeless(&status) {
                return Err(CliError::failed(table::waiting(&status)));
            }
            last = Some(status);
        }
        if Instant::now() > deadline {
            let waiting = last.map_or_else(
                || "the supervisor does not answer".to_owned(),
                |status| table::waiting(&status),
            );
            return Err(CliError::Timeout(format!(
                "not ready within {limit:?}: {waiting}"
            )));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn last_error(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let start = lines.iter().position(|line| line.starts_with("stolos: "));
    let from = start.unwrap_or_else(|| lines.len().saturating_sub(20));
    lines[from..]
        .join("\n")
        .trim_start_matches("stolos: ")
        .to_owned()
}

fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path)
        .map_err(|error| CliError::failed(format!("{}: {error}", path.display())))
}

fn multi_threaded<T>(future: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format!("cannot start the runtime: {error}")))?
        .block_on(future)
}
