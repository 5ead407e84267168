//! Project tooling: `cargo xtask test` is the README's test command, the rest are its parts.

mod install;
mod suites;
mod tidy;

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  test             install what is missing, then format, clippy, tidy and every test
  install          only install what the tests need
  tidy             the house rules that a program can check
  envoy [CASE..]   differential cases: real Envoy against our proxy
  golden           write the golden files anew; review the difference";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["test"] => suites::test(),
        ["install"] => install::everything(),
        ["tidy"] => tidy::command(),
        ["envoy", cases @ ..] => envoy(cases),
        ["golden"] => golden(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn envoy(cases: &[&str]) -> Result<()> {
    install::envoy()?;
    run(cargo(&["test", "-p", "mesh-tests", "--test", "differential", "--"]).args(cases))
}

/// Golden tests rewrite their files when this variable is set.
fn golden() -> Result<()> {
    let mut command = cargo(&["test", "--workspace", "golden_"]);
    run(command.env("STOLOS_GOLDEN", "rewrite"))?;
    run(Command::new("git")
        .args(["diff", "--stat", "--", "*golden*"])
        .current_dir(root()))
}

/// The workspace's root folder.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// `cargo` as it called us, in the workspace's root.
fn cargo(arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    command
}

fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("{:?}", command.get_program()))?;
    if !status.success() {
        let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
        let program = command.get_program().to_string_lossy();
        bail!("{program} {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}
