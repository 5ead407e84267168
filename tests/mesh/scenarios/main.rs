//! Whole-mesh scenarios: a real `stolos up` of Bookinfo, and what a user would see, once with each
//! kind of sidecar. Needs root. `cargo test -p mesh-tests --test scenarios -- PART_OF_A_NAME`.

#![allow(clippy::unwrap_used)]

mod bookinfo;
mod capture;
mod faults;
mod input;
mod samples;
mod security;
mod updates;

use anyhow::Result;
use mesh_tests::mesh::{Mesh, Sidecar, remains};
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
    let (mut count, mut failed) = (0, 0);
    let begun = Instant::now();
    for sidecar in sidecars() {
        let wanted = wanted(sidecar, &parts);
        if wanted.is_empty() {
            continue;
        }
        println!("with {sidecar:?}:");
        count += wanted.len();
        failed += run(sidecar, &wanted).unwrap_or_else(|error| {
            println!("FAILED to start the mesh: {error:#}");
            wanted.len()
        });
    }
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    println!("scenarios: {count}, {failed} failed; {minutes:.1} min of {BUDGET_MINUTES}");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// One mesh after the other: our sidecars, Envoys, both; or the one of `STOLOS_SIDECAR`.
fn sidecars() -> Vec<Sidecar> {
    let chosen = match std::env::var("STOLOS_SIDECAR").as_deref() {
        Ok("stolos") => vec![Sidecar::Stolos],
        Ok("envoy") => vec![Sidecar::Envoy],
        Ok("mix") => vec![Sidecar::Mix],
        _ => vec![Sidecar::Stolos, Sidecar::Envoy, Sidecar::Mix],
    };
    if programs::envoy().is_some() || programs::in_ci() {
        return chosen;
    }
    eprintln!("not run: scenarios with Envoy: it is not installed (cargo xtask install)");
    vec![Sidecar::Stolos]
}

fn wanted(sidecar: Sidecar, parts: &[String]) -> Vec<Scenario> {
    let traffic = vec![
        ("bookinfo", bookinfo::scenarios()),
        ("security", security::scenarios()),
        ("updates", updates::scenarios()),
    ];
    let more = match sidecar {
        Sidecar::Stolos => vec![
            ("capture", capture::scenarios()),
            ("samples", samples::scenarios()),
            ("input", input::scenarios()),
            ("faults", faults::scenarios()),
        ],
        Sidecar::Envoy => vec![
            ("capture", capture::scenarios()),
            ("samples", samples::scenarios()),
        ],
        Sidecar::Mix => vec![("samples", samples::essentials())],
    };
    let all = traffic.into_iter().chain(more);
    all.flat_map(|(group, list)| list.into_iter().map(move |(name, run)| (group, name, run)))
        .filter(|(group, name, _)| {
            let full = format!("{group} {name}");
            parts.is_empty() || parts.iter().any(|part| full.contains(part.as_str()))
        })
        .map(|(_, name, run)| (name, run))
        .collect()
}

/// All on one mesh; each leaves it as it was.
fn run(sidecar: Sidecar, wanted: &[Scenario]) -> Result<usize> {
    let more = programs::workspace().join("tests/mesh/scenarios/manifests/more-versions.yaml");
    let mesh = Mesh::bookinfo(sidecar, &[more])?;
    let mut failed = 0;
    for (name, scenario) in wanted {
        let begun = Instant::now();
        let result = scenario(&mesh);
        let took = begun.elapsed().as_secs_f64();
        match result {
            Ok(()) => println!("ok     {name} ({took:.1} s)"),
            Err(error) => {
                failed += 1;
                println!("FAILED {name} ({took:.1} s): {error:#}");
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
