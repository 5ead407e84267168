//! `stolos describe`: one object, its status in words, what it is waiting for.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::Scope;
use super::apply::{list, word};
use super::get;
use crate::exit::CliError;
use crate::mesh::{Mesh, block_on};
use crate::output::{age, yaml};
use crate::pod;

#[derive(Debug, Args)]
pub struct Describe {
    /// `KIND NAME` or `KIND/NAME`.
    #[arg(required = true, num_args = 1..=2, value_name = "KIND NAME")]
    words: Vec<String>,
}

pub fn run(arguments: Describe, scope: &Scope) -> Result<ExitCode, CliError> {
    let (kind, name) = match arguments.words.as_slice() {
        [kind, name] => (kind.as_str(), name.as_str()),
        [only] => only
            .split_once('/')
            .ok_or_else(|| CliError::usage(format!("which {only}? `describe {only} NAME`")))?,
        _ => return Err(CliError::usage("`describe KIND NAME`")),
    };
    block_on(async {
        let mesh = Mesh::find(scope.mesh.as_deref())?;
        if matches!(kind, "pod" | "pods" | "po") {
            let found = pod::find(&mesh, &scope.namespace, name).await?;
            print!("{}", pod_text(&pod::record(&mesh, &found).await?));
            return Ok(ExitCode::SUCCESS);
        }
        let object = get::one(&mesh, (kind, name), &scope.namespace).await?;
        print!("{}", text(&object));
        Ok(ExitCode::SUCCESS)
    })
}

/// A pod as kubectl shows it, with its identity and where its logs are.
fn pod_text(record: &Value) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| add_line(&mut out, name, value);
    line("Name", word(record, "name"));
    line("Namespace", word(record, "namespace"));
    line("Labels", &pairs(&record["labels"]));
    line("Status", word(record, "status"));
    line("Ready", &record["ready"].to_string());
    if !word(record, "message").is_empty() {
        line("Message", word(record, "message"));
    }
    line("IP", word(record, "ip"));
    line("Controlled By", word(record, "workload"));
    line("Proxy", word(record, "proxy"));
    line("Identity", word(record, "identity"));
    let created = record["createdAt"].as_i64();
    line("Age", &created.map(age::since).unwrap_or_default());
    line("Logs", word(record, "logs"));
    out.push_str("Containers:\n");
    let none = serde_json::Map::new();
    let containers = record["containers"].as_object().unwrap_or(&none);
    for (name, container) in containers {
        out.push_str(&format!("  {name}:\n"));
        let mut line = |name: &str, value: &str| {
            out.push_str("    ");
            add_line(&mut out, name, value);
        };
        let spec = list(record, "specs")
            .iter()
            .find(|spec| word(spec, "name") == name);
        if let Some(spec) = spec {
            line("Image", word(spec, "image"));
            // Without the values: some come from Secrets.
            let names = list(spec, "env").iter().filter_map(|pair| pair[0].as_str());
            line("Environment", &names.collect::<Vec<_>>().join(", "));
        }
        line("State", word(container, "state"));
        if !word(container, "lastExit").is_empty() {
            line("Last Exit", word(container, "lastExit"));
        }
        line("Ready", &container["ready"].to_string());
        line("Restarts", &container["restarts"].to_string());
    }
    out
}

fn add_line(out: &mut String, name: &str, value: &str) {
    let value = if value.is_empty() { "<none>" } else { value };
    out.push_str(&format!("{:<15}{value}\n", format!("{name}:")));
}

fn text(object: &Value) -> String {
    let meta = &object["metadata"];
    let mut out = String::new();
    let mut line = |name: &str, value: &str| add_line(&mut out, name, value);
    line("Name", word(meta, "name"));
    line("Namespace", word(meta, "namespace"));
    line("Labels", &pairs(&meta["labels"]));
    line("Annotations", &pairs(&meta["annotations"]));
    line("API Version", word(object, "apiVersion"));
    line("Kind", word(object, "kind"));
    line("Age", &age::of(meta));
    for section in ["spec", "status"] {
        let value = &object[section];
        if !value.is_null() {
            let title = if section == "spec" { "Spec" } else { "Status" };
            out.push_str(&format!("{title}:\n"));
            for one in yaml::write(value).lines() {
                out.push_str(&format!("  {one}\n"));
            }
        }
    }
    out
}

fn pairs(map: &Value) -> String {
    let Some(map) = map.as_object() else {
        return String::new();
    };
    let pair =
        |(key, value): (&String, &Value)| format!("{key}={}", value.as_str().unwrap_or_default());
    map.iter().map(pair).collect::<Vec<_>>().join(", ")
}
