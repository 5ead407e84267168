//! `stolos analyze`: mistakes that validation of single objects does not see. istioctl's lines,
//! thresholds and exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use mesh_api::analyze::{AnalyzeOptions, Level, Message, analyze};
use serde_json::{Value, json};

use super::Scope;
use super::apply::{read_all, word};
use crate::exit::{CliError, FINDINGS};
use crate::output::{Format, print};

#[derive(Debug, Args)]
pub struct Analyze {
    /// Files, directories, or `-` for standard input.
    #[arg(required = true, value_name = "FILE|DIR|-")]
    paths: Vec<PathBuf>,
    /// Also the directories below a directory.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// The level at (or above) which findings make the command fail.
    #[arg(long, default_value = "Error", value_parser = level)]
    failure_threshold: Level,
    /// The level at (or above) which findings are printed.
    #[arg(long, default_value = "Info", value_parser = level)]
    output_threshold: Level,
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

pub fn run(arguments: Analyze, scope: &Scope) -> Result<ExitCode, CliError> {
    let options = mesh_api::parse::ParseOptions {
        default_namespace: scope.namespace.clone(),
    };
    let mut objects = Vec::new();
    let mut errors = Vec::new();
    for file in read_all(&arguments.paths, arguments.recursive)? {
        let parsed = mesh_api::parse::parse(word(&file, "name"), word(&file, "text"), &options);
        errors.extend(
            parsed
                .diagnostics
                .into_iter()
                .filter(mesh_api::Diagnostic::is_error),
        );
        objects.extend(parsed.objects);
    }
    let findings = analyze(&objects, &AnalyzeOptions::default());
    let shown: Vec<&Message> = findings
        .iter()
        .filter(|one| one.level <= arguments.output_threshold)
        .collect();
    match arguments.output {
        Some(format @ (Format::Json | Format::Yaml)) => {
            print(
                &Value::from_iter(shown.iter().map(|one| as_json(one))),
                format,
            );
        }
        _ => {
            for finding in &shown {
                println!("{finding}");
            }
        }
    }
    if !errors.is_empty() {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        return Err(CliError::Input(lines.join("\n")));
    }
    if findings
        .iter()
        .any(|one| one.level <= arguments.failure_threshold)
    {
        return Ok(ExitCode::from(FINDINGS));
    }
    if shown.is_empty() && arguments.output.is_none() {
        let names: Vec<String> = arguments
            .paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        println!(
            "✔ No validation issues found when analyzing {}.",
            names.join(" ")
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(finding: &Message) -> Value {
    json!({
        "code": finding.code, "level": finding.level.to_string(), "origin": finding.origin(),
        "reference": finding.reference, "message": finding.message, "documentationUrl": format!(
            "https://istio.io/latest/docs/reference/config/analysis/{}/",
            finding.code.to_lowercase()
        ),
    })
}

fn level(text: &str) -> Result<Level, String> {
    match text.to_lowercase().as_str() {
        "info" => Ok(Level::Info),
        "warning" | "warn" => Ok(Level::Warning),
        "error" => Ok(Level::Error),
        _ => Err(format!("{text:?} is no level: Info, Warning or Error")),
    }
}
