//! The `stolos` command: one file per subcommand under `commands/`, one table in `commands.rs`.

mod commands;
mod exit;
mod mesh;
mod output;
mod pod;

use std::process::ExitCode;

use clap::Parser;

use commands::Cli;

fn main() -> ExitCode {
    // Two hidden commands are a pod's first steps: they must run before any thread exists.
    match std::env::args().nth(1).as_deref() {
        Some("_pod") => return commands::process::pod(),
        Some("_container") => return commands::process::container(),
        _ => {}
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return exit::of_usage(&error);
        }
    };
    match cli.run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("stolos: {error}");
            error.code()
        }
    }
}
