//! `stolos capture`: istio-iptables' flags, applied in the caller's network namespace.

use std::process::ExitCode;

use clap::Args;

use super::Scope;
use crate::exit::CliError;

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Capture {
    /// The flags of istio-iptables; `--help` lists them.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "FLAGS"
    )]
    flags: Vec<String>,
}

pub fn run(arguments: Capture, _scope: &Scope) -> Result<ExitCode, CliError> {
    if arguments
        .flags
        .iter()
        .any(|flag| flag == "--help" || flag == "-h")
    {
        print!("{}", agent::capture::flags::help());
        return Ok(ExitCode::SUCCESS);
    }
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let environment = |name: &str| std::env::var(name).ok();
    let command = agent::capture::flags::parse(&arguments.flags, environment, &resolv_conf)
        .map_err(|error| CliError::usage(error.to_string()))?;
    let text = agent::capture::apply::run(&command)
        .map_err(|error| CliError::failed(error.to_string()))?;
    if command.is_dry_run {
        print!("{text}");
    }
    Ok(ExitCode::SUCCESS)
}
