//! Whole-mesh scenarios: a real `stolos up` of Bookinfo, and what a user would see. Needs root for
//! network namespaces. `cargo test -p mesh-tests --test scenarios -- PART_OF_A_NAME`.

#![allow(clippy::unwrap_used)]

mod bookinfo;
mod capture;
mod input;
mod samples;
mod security;
mod updates;

use anyhow::Result;
use mesh_tests::mesh::{Mesh, MeshOptions, remains};
use mesh_tests::programs;
use std::process::ExitCode;
use std::time::Instant;

const BUDGET_MINUTES: f64 = 6.0;

type Scenario = (&'static str, fn(&Mesh) -> Result<()>);

fn main() -> ExitCode {
    let parts: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    if !is_root() {
        eprintln!("not run: scenarios: network namespaces need root");
        return if programs::in_ci() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        };
    }
    let groups: [(&str, Vec<Scenario>); 6] = [
        ("bookinfo", bookinfo::scenarios()),
        ("capture", capture::scenarios()),
        ("samples", samples::scenarios()),
        ("security", security::scenarios()),
        ("updates", updates::scenarios()),
        ("input", input::scenarios()),
    ];
    let wanted: Vec<Scenario> = groups
        .into_iter()
        .flat_map(|(group, list)| list.into_iter().map(move |(name, run)| (group, name, run)))
        .filter(|(group, name, _)| {
            let full = format!("{group} {name}");
            parts.is_empty() || parts.iter().any(|part| full.contains(part.as_str()))
        })
        .map(|(_, name, run)| (name, run))
        .collect();
    let begun = Instant::now();
    let failed = match run(&wanted) {
        Ok(failed) => failed,
        Err(error) => {
            eprintln!("FAILED to start the mesh: {error:#}");
            wanted.len().max(1)
        }
    };
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    println!(
        "scenarios: {}, {failed} failed; {minutes:.1} min of {BUDGET_MINUTES}",
        wanted.len()
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// All on one mesh; each leaves it as it was.
fn run(wanted: &[Scenario]) -> Result<usize> {
    let more = programs::workspace().join("tests/mesh/scenarios/manifests/more-versions.yaml");
    let proxy = std::env::var("STOLOS_SIDECAR").ok();
    let mesh = Mesh::bookinfo(&MeshOptions {
        proxy,
        extra: vec![more],
    })?;
    let mut failed = 0;
    for (name, scenario) in wanted {
        let begun = Instant::now();
        match scenario(&mesh) {
            Ok(()) => println!("ok     {name} ({:.1} s)", begun.elapsed().as_secs_f64()),
            Err(error) => {
                failed += 1;
                println!(
                    "FAILED {name} ({:.1} s): {error:#}",
                    begun.elapsed().as_secs_f64()
                );
            }
        }
    }
    let name = mesh.name().to_owned();
    drop(mesh);
    let left = remains(&name);
    if !left.is_empty() {
        println!("FAILED nothing is left after down: {left:?}");
        failed += 1;
    }
    Ok(failed)
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    ids.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}
