//! Exit codes, from one table, and the error that carries them.
//! They are istioctl's: scripts tell bad usage, bad input and findings apart.

use std::process::ExitCode;

/// Why a command ends without success.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// What was asked cannot be done; the text says what to do about it.
    #[error("{0}")]
    Failed(String),
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// The user's files are wrong.
    #[error("{0}")]
    Input(String),
    /// Something did not happen in the time given.
    #[error("{0}")]
    Timeout(String),
}

/// | code | meaning |
/// |---|---|
/// | 0 | done |
/// | 1 | failed |
/// | 64 | wrong usage, unknown command |
/// | 65 | the input is wrong |
/// | 75 | not in the time given; a later try may succeed |
/// | 79 | `analyze` found something |
const FAILED: u8 = 1;
const USAGE: u8 = 64;
const INPUT: u8 = 65;
const TIMEOUT: u8 = 75;
/// `analyze` found issues at or above the failure threshold.
pub const FINDINGS: u8 = 79;

impl CliError {
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            CliError::Failed(_) => FAILED,
            CliError::Usage(_) => USAGE,
            CliError::Input(_) => INPUT,
            CliError::Timeout(_) => TIMEOUT,
        })
    }

    pub fn failed(text: impl Into<String>) -> CliError {
        CliError::Failed(text.into())
    }

    pub fn usage(text: impl Into<String>) -> CliError {
        CliError::Usage(text.into())
    }
}

impl From<local::LocalError> for CliError {
    fn from(error: local::LocalError) -> CliError {
        match error {
            local::LocalError::Manifest(_) => CliError::Input(error.to_string()),
            other => CliError::Failed(other.to_string()),
        }
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> CliError {
        CliError::Failed(error.to_string())
    }
}

/// `--help` and `--version` are no errors.
pub fn of_usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        ExitCode::from(USAGE)
    } else {
        ExitCode::SUCCESS
    }
}
