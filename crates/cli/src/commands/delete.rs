//! `stolos delete`: by file, or by kind and names.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::Scope;
use super::apply::{duration, list, object_name, read_all, wait, word};
use crate::exit::CliError;
use crate::mesh::{Mesh, block_on, expect};

#[derive(Debug, Args)]
pub struct Delete {
    /// `KIND NAME…` or `KIND/NAME`.
    #[arg(value_name = "KIND NAME…")]
    words: Vec<String>,
    /// The objects of a file, a directory, or `-` for standard input.
    #[arg(short, long = "filename", value_name = "FILE|DIR|-")]
    filename: Vec<PathBuf>,
    /// Return only when every proxy concerned has acknowledged it.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, default_value = "60s", value_parser = duration)]
    timeout: Duration,
    /// No error for what does not exist.
    #[arg(long)]
    ignore_not_found: bool,
}

pub fn run(arguments: Delete, scope: &Scope) -> Result<ExitCode, CliError> {
    let mut objects = by_words(&arguments.words, &scope.namespace)?;
    objects.extend(by_files(&arguments.filename, &scope.namespace)?);
    if objects.is_empty() {
        return Err(CliError::usage(
            "name what to delete: `delete KIND NAME` or `delete -f FILE`",
        ));
    }
    block_on(async {
        let mesh = Mesh::find(scope.mesh.as_deref())?;
        let answer = mesh
            .control
            .post("/v1/delete", &json!({"objects": objects}))
            .await?;
        let json = expect(answer)?;
        let mut missing = Vec::new();
        for result in list(&json, "results") {
            match word(result, "action") {
                "deleted" => println!("{} deleted", object_name(result)),
                _ => missing.push(object_name(result)),
            }
        }
        let generation = json["generation"].as_u64().unwrap_or_default();
        if arguments.wait {
            wait(&mesh, generation, arguments.timeout).await?;
        }
        match missing.as_slice() {
            [] => Ok(ExitCode::SUCCESS),
            _ if arguments.ignore_not_found => Ok(ExitCode::SUCCESS),
            some => Err(CliError::failed(format!("not found: {}", some.join(", ")))),
        }
    })
}

fn by_words(words: &[String], namespace: &str) -> Result<Vec<Value>, CliError> {
    let mut objects = Vec::new();
    let mut words = words.iter().map(String::as_str).peekable();
    let mut add = |kind: &str, name: &str| {
        let kind = super::get::kind_of(kind)?;
        objects.push(json!({"kind": kind.name(), "namespace": namespace, "name": name}));
        Ok::<(), CliError>(())
    };
    if words.peek().is_some_and(|word| !word.contains('/')) {
        let kind = words.next().unwrap_or_default();
        if words.peek().is_none() {
            return Err(CliError::usage(format!(
                "which {kind}? name it: `delete {kind} NAME`"
            )));
        }
        for name in words {
            add(kind, name)?;
        }
    } else {
        for word in words {
            let (kind, name) = word.split_once('/').unwrap_or((word, ""));
            add(kind, name)?;
        }
    }
    Ok(objects)
}

fn by_files(paths: &[PathBuf], namespace: &str) -> Result<Vec<Value>, CliError> {
    let options = mesh_api::parse::ParseOptions {
        default_namespace: namespace.to_owned(),
    };
    let mut objects = Vec::new();
    for file in read_all(paths, false)? {
        let parsed = mesh_api::parse::parse(word(&file, "name"), word(&file, "text"), &options);
        let errors: Vec<String> = parsed
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.is_error())
            .map(ToString::to_string)
            .collect();
        if !errors.is_empty() {
            return Err(CliError::Input(errors.join("\n")));
        }
        objects.extend(parsed.objects.iter().map(|object| {
            let meta = &object.meta;
            json!({"kind": meta.kind.name(), "namespace": meta.namespace, "name": meta.name})
        }));
    }
    Ok(objects)
}
