//! `stolos status`: each proxy, its sync state and generation, and the published addresses.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::Scope;
use super::apply::{list, word};
use crate::exit::CliError;
use crate::mesh::{Mesh, block_on, expect};
use crate::output::{Format, Table, print};

#[derive(Debug, Args)]
pub struct Status {
    /// Only this pod: `NAME` or `NAME.NAMESPACE`.
    pod: Option<String>,
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

pub fn run(arguments: Status, scope: &Scope) -> Result<ExitCode, CliError> {
    block_on(async {
        let mesh = Mesh::find(scope.mesh.as_deref())?;
        let json = expect(mesh.control.get("/v1/proxies").await?)?;
        let all = json
            .as_array()
            .map_or_else(|| list(&json, "proxies"), Vec::as_slice);
        let wanted: Vec<&Value> = all
            .iter()
            .filter(|proxy| is_named(proxy, arguments.pod.as_deref(), &scope.namespace))
            .collect();
        if let (Some(pod), []) = (&arguments.pod, wanted.as_slice()) {
            return Err(CliError::failed(format!(
                "no proxy of pod {pod} is connected"
            )));
        }
        match arguments.output {
            Some(format @ (Format::Json | Format::Yaml)) => {
                print(&Value::from_iter(wanted.into_iter().cloned()), format);
            }
            _ => {
                print!("{}", table(&wanted));
                addresses(&mesh).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn is_named(proxy: &Value, pod: Option<&str>, namespace: &str) -> bool {
    let id = word(proxy, "id");
    pod.is_none_or(|pod| id == pod || id == format!("{pod}.{namespace}"))
}

fn table(proxies: &[&Value]) -> Table {
    let mut table = Table::new([
        "NAME",
        "CLUSTER",
        "ISTIOD",
        "VERSION",
        "STATE",
        "GENERATION",
        "SUBSCRIBED TYPES",
    ]);
    for proxy in proxies {
        let types: Vec<&str> = match &proxy["types"] {
            Value::Object(types) => types.keys().map(String::as_str).collect(),
            Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        table.row([
            word(proxy, "id").to_owned(),
            word(proxy, "cluster").to_owned(),
            word(proxy, "control").to_owned(),
            word(proxy, "version").to_owned(),
            word(proxy, "state").to_owned(),
            proxy["generation"].to_string(),
            format!("{} ({})", types.len(), types.join(",")),
        ]);
    }
    table
}

async fn addresses(mesh: &Mesh) -> Result<(), CliError> {
    let status = mesh.status().await?;
    if !status.published.is_empty() {
        println!();
    }
    for published in &status.published {
        println!(
            "{} port {} is published at http://127.0.0.1:{}",
            published.service, published.port, published.host_port
        );
    }
    for problem in &status.problems {
        println!("{problem}");
    }
    Ok(())
}
