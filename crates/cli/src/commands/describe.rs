//! `stolos describe`: one object, its status in words, what it is waiting for.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::Scope;
use super::apply::{list, word};
use super::get::kind_of;
use crate::exit::CliError;
use crate::mesh::{Mesh, block_on, expect, query_escape};
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
            let pod = pod::find(&mesh, &scope.namespace, name).await?;
            print!("{}", yaml::write(&pod::record(&mesh, &pod).await?));
            return Ok(ExitCode::SUCCESS);
        }
        let kind = kind_of(kind)?;
        let path = format!(
            "/v1/objects?kind={}&namespace={}&name={}",
            kind.name(),
            query_escape(&scope.namespace),
            query_escape(name)
        );
        let json = expect(mesh.control.get(&path).await?)?;
        let items = json
            .as_array()
            .map_or_else(|| list(&json, "items"), Vec::as_slice);
        let found = items
            .iter()
            .find(|item| word(&item["metadata"], "name") == name);
        let object = found.ok_or_else(|| {
            let namespace = &scope.namespace;
            CliError::failed(format!(
                "there is no {kind} {name} in namespace {namespace}"
            ))
        })?;
        print!("{}", text(object));
        Ok(ExitCode::SUCCESS)
    })
}

fn text(object: &Value) -> String {
    let meta = &object["metadata"];
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        let value = if value.is_empty() { "<none>" } else { value };
        out.push_str(&format!("{:<14}{value}\n", format!("{name}:")));
    };
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
