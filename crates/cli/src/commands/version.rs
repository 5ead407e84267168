//! `stolos version`: this program, the control plane, the proxies.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::Scope;
use super::apply::{list, word};
use crate::exit::CliError;
use crate::mesh::{Mesh, block_on, expect};
use crate::output::{Format, print};

#[derive(Debug, Args)]
pub struct Version {
    #[arg(short, long, value_enum)]
    output: Option<Format>,
    /// Only this program's version.
    #[arg(short, long)]
    short: bool,
}

pub fn run(arguments: Version, scope: &Scope) -> Result<ExitCode, CliError> {
    let own = env!("CARGO_PKG_VERSION");
    let mut json = json!({"clientVersion": own});
    if !arguments.short
        && let Ok(mesh) = Mesh::find(scope.mesh.as_deref())
    {
        block_on(remote(&mesh, &mut json))?;
    }
    match arguments.output {
        Some(format @ (Format::Json | Format::Yaml)) => print(&json, format),
        _ => {
            println!("client version: {own}");
            if let Some(version) = json["controlPlaneVersion"].as_str() {
                println!("control plane version: {version}");
            }
            for (version, count) in json["dataPlaneVersions"].as_object().into_iter().flatten() {
                println!("data plane version: {version} ({count} proxies)");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn remote(mesh: &Mesh, json: &mut Value) -> Result<(), CliError> {
    let answer = mesh.control.get("/version").await?;
    let version = match answer.json() {
        Value::Object(map) => map.get("version").cloned().unwrap_or_default(),
        _ => Value::from(answer.text()),
    };
    json["controlPlaneVersion"] = version;
    let proxies = expect(mesh.control.get("/v1/proxies").await?)?;
    let all = proxies
        .as_array()
        .map_or_else(|| list(&proxies, "proxies"), Vec::as_slice);
    let mut count: BTreeMap<&str, u64> = BTreeMap::new();
    for proxy in all {
        *count.entry(word(proxy, "version")).or_default() += 1;
    }
    json["dataPlaneVersions"] = json!(count);
    Ok(())
}
