//! `stolos get`: objects as kubectl shows them, and the platform's pods, services, deployments.

use std::process::ExitCode;

use clap::Args;
use mesh_api::Kind;
use serde_json::{Value, json};

use super::Scope;
use super::apply::{list, word};
use crate::exit::CliError;
use crate::mesh::{Mesh, block_on, expect, query_escape};
use crate::output::{Format, Table, age, print};

mod columns;
mod platform;

#[derive(Debug, Args)]
pub struct Get {
    /// `KIND [NAME]`, `KIND/NAME`, several kinds with commas, or `all`.
    #[arg(required = true, num_args = 1.., value_name = "KIND [NAME]")]
    words: Vec<String>,
    #[arg(short, long, value_enum)]
    output: Option<Format>,
    /// Only objects with these labels: `a=b,c!=d,e`.
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// In all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

/// What one invocation asks for, without the words.
struct Query<'a> {
    namespace: Option<&'a str>,
    selector: Option<&'a str>,
    name: Option<&'a str>,
}

pub fn run(arguments: Get, scope: &Scope) -> Result<ExitCode, CliError> {
    let (kinds, name) = split(&arguments.words)?;
    let query = Query {
        namespace: (!arguments.all_namespaces).then_some(scope.namespace.as_str()),
        selector: arguments.selector.as_deref(),
        name: name.as_deref(),
    };
    block_on(async {
        let mesh = Mesh::find(scope.mesh.as_deref())?;
        let mut found = Vec::new();
        for kind in &kinds {
            found.push((kind.as_str(), objects(&mesh, kind, &query).await?));
        }
        if let (Some(name), true) = (&name, found.iter().all(|(_, items)| items.is_empty())) {
            let text = format!(
                "{} {name:?} not found in namespace {}",
                kinds[0], scope.namespace
            );
            return Err(CliError::failed(text));
        }
        show(&found, &arguments, &query);
        Ok(ExitCode::SUCCESS)
    })
}

/// The kind that a user's word means, or what words there are.
pub fn kind_of(word: &str) -> Result<Kind, CliError> {
    Kind::from_word(word).ok_or_else(|| {
        let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.plural()).collect();
        CliError::usage(format!(
            "there is no kind {word:?}; kinds: {}",
            known.join(", ")
        ))
    })
}

fn split(words: &[String]) -> Result<(Vec<String>, Option<String>), CliError> {
    match words {
        [only] => match only.split_once('/') {
            Some((kind, name)) => Ok((vec![kind.to_owned()], Some(name.to_owned()))),
            None => Ok((expand(only), None)),
        },
        [kinds, name] => Ok((expand(kinds), Some(name.clone()))),
        _ => Err(CliError::usage("one name at a time: `get KIND NAME`")),
    }
}

fn expand(kinds: &str) -> Vec<String> {
    if kinds == "all" {
        let configuration = Kind::ALL
            .iter()
            .filter(|kind| kind.group().ends_with("istio.io"));
        let mut all = vec![
            "pods".to_owned(),
            "services".to_owned(),
            "deployments".to_owned(),
        ];
        all.extend(configuration.map(|kind| kind.plural().to_owned()));
        return all;
    }
    kinds.split(',').map(str::to_owned).collect()
}

/// One object by kind and name: the platform's own or the control plane's.
pub async fn one(
    mesh: &Mesh,
    (kind, name): (&str, &str),
    namespace: &str,
) -> Result<Value, CliError> {
    let query = Query {
        namespace: Some(namespace),
        selector: None,
        name: Some(name),
    };
    let found = objects(mesh, kind, &query).await?.into_iter().next();
    found.ok_or_else(|| {
        let known = kind_of(kind).ok();
        let kind = known.map_or(kind, |known| known.name());
        CliError::failed(format!(
            "there is no {kind} {name} in namespace {namespace}"
        ))
    })
}

async fn objects(mesh: &Mesh, word: &str, query: &Query<'_>) -> Result<Vec<Value>, CliError> {
    if let Some(items) = platform::objects(mesh, word).await? {
        return Ok(items
            .into_iter()
            .filter(|item| matches(item, query))
            .collect());
    }
    let kind = kind_of(word)?;
    let mut path = format!("/v1/objects?kind={}", kind.name());
    if let Some(namespace) = query.namespace {
        path.push_str(&format!("&namespace={}", query_escape(namespace)));
    }
    let json = expect(mesh.control.get(&path).await?)?;
    let items = json
        .as_array()
        .map_or_else(|| list(&json, "items").to_vec(), Clone::clone);
    Ok(items
        .into_iter()
        .filter(|item| matches(item, query))
        .collect())
}

fn matches(item: &Value, query: &Query<'_>) -> bool {
    let meta = &item["metadata"];
    let is_inside = |namespace| {
        // A namespace lies in none.
        word(item, "kind") == "Namespace" || word(meta, "namespace") == namespace
    };
    query.namespace.is_none_or(is_inside)
        && query.name.is_none_or(|name| word(meta, "name") == name)
        && query
            .selector
            .is_none_or(|selector| selects(selector, &meta["labels"]))
}

/// Kubernetes' equality-based selectors: `a=b`, `a==b`, `a!=b`, `a`, `!a`, joined by commas.
fn selects(selector: &str, labels: &Value) -> bool {
    selector
        .split(',')
        .map(str::trim)
        .filter(|term| !term.is_empty())
        .all(|term| {
            if let Some((key, value)) = term.split_once("!=") {
                return labels[key.trim()].as_str() != Some(value.trim());
            }
            if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
                return labels[key.trim()].as_str() == Some(value.trim());
            }
            match term.strip_prefix('!') {
                Some(key) => labels[key].is_null(),
                None => !labels[term].is_null(),
            }
        })
}

fn show(found: &[(&str, Vec<Value>)], arguments: &Get, query: &Query<'_>) {
    let items = || found.iter().flat_map(|(_, items)| items);
    match arguments.output {
        Some(format @ (Format::Json | Format::Yaml)) => match (query.name, items().next()) {
            (Some(_), Some(item)) => print(item, format),
            _ => {
                let all: Vec<&Value> = items().collect();
                print(
                    &json!({"apiVersion": "v1", "kind": "List", "items": all}),
                    format,
                );
            }
        },
        Some(Format::Name) => {
            for item in items() {
                let name = json!({"kind": item["kind"], "name": item["metadata"]["name"]});
                println!("{}", super::apply::object_name(&name));
            }
        }
        wide => tables(found, query, wide.is_some()),
    }
}

fn tables(found: &[(&str, Vec<Value>)], query: &Query<'_>, is_wide: bool) {
    let mut printed = false;
    for (_, items) in found.iter().filter(|(_, items)| !items.is_empty()) {
        if printed {
            println!();
        }
        printed = true;
        print!("{}", table(items, query.namespace.is_none(), is_wide));
    }
    if !printed {
        match query.namespace {
            Some(namespace) => eprintln!("No resources found in {namespace} namespace."),
            None => eprintln!("No resources found."),
        }
    }
}

fn table(items: &[Value], with_namespace: bool, is_wide: bool) -> Table {
    let columns = columns::of(word(&items[0], "kind"), is_wide);
    let mut headers: Vec<String> = Vec::new();
    if with_namespace {
        headers.push("NAMESPACE".into());
    }
    headers.push("NAME".into());
    headers.extend(columns.iter().map(|(header, _)| (*header).to_owned()));
    let mut table = Table::with_headers(headers);
    for item in items {
        let meta = &item["metadata"];
        let mut cells = Vec::new();
        if with_namespace {
            cells.push(word(meta, "namespace").to_owned());
        }
        cells.push(word(meta, "name").to_owned());
        cells.extend(columns.iter().map(|(header, path)| match *header {
            "AGE" => age::of(meta),
            _ => match columns::cell(item, path) {
                none if none.is_empty() && *header == "EXTERNAL-IP" => "<none>".to_owned(),
                cell => cell,
            },
        }));
        table.row(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors() {
        let labels = json!({"app": "reviews", "version": "v1"});
        for (selector, want) in [
            ("app=reviews", true),
            ("app==reviews,version=v1", true),
            ("app=reviews,version=v2", false),
            ("version!=v2", true),
            ("app", true),
            ("!tier", true),
            ("tier", false),
        ] {
            assert_eq!(selects(selector, &labels), want, "{selector}");
        }
    }
}
