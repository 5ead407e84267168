//! What the long-running commands share: logs, signals, drain; and a pod's first two steps.

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use daemon::drain::{Drain, DrainWatch};
use daemon::signals::Signals;

use crate::exit::CliError;

/// What is in flight when the process is told to end has this long.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

pub fn start_logging(level: &str, json: bool) -> Result<(), CliError> {
    let options = daemon::logging::Options {
        json,
        level: level.to_owned(),
    };
    daemon::logging::init(&options).map_err(|error| CliError::usage(error.to_string()))
}

/// Runs a server; the first signal starts its drain, the second ends the process.
pub fn run_until_signal<F, E>(start: impl FnOnce(DrainWatch) -> F) -> Result<ExitCode, CliError>
where
    F: Future<Output = Result<(), E>>,
    E: Display,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format!("cannot start the runtime: {error}")))?;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::install()?;
        let (drain, watch) = Drain::new();
        let server = start(watch);
        tokio::pin!(server);
        tokio::select! {
            outcome = &mut server => return outcome.map_err(|e| CliError::failed(e.to_string())),
            _ = signals.next() => drain.start(),
        }
        tokio::select! {
            outcome = &mut server => outcome.map_err(|e| CliError::failed(e.to_string())),
            _ = signals.next() => Ok(()),
            () = tokio::time::sleep(DRAIN_LIMIT) => Ok(()),
        }
    });
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome.map(|()| ExitCode::SUCCESS)
}

/// `stolos _pod`.
pub fn pod() -> ExitCode {
    match local::init::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stolos: pod: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `stolos _container`: becomes the container's program, or says why it cannot.
pub fn container() -> ExitCode {
    let (reason, code) = local::init::container::run();
    eprintln!("stolos: {reason}");
    ExitCode::from(u8::try_from(code).unwrap_or(126))
}
