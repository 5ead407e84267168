//! The test command: each suite with the minutes it took against its budget, and a closing line.

use crate::{cargo, install, run, tidy};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

const WHOLE_BUDGET: f64 = 35.0;

/// Minutes that the tests of a package may run; others get one minute.
const BUDGETS: &[(&str, f64)] = &[("mesh-tests", 12.0), ("proxy", 2.0), ("agent", 2.0)];

/// A test binary and the folder that its tests expect to be in.
struct Binary {
    package: String,
    target: String,
    path: PathBuf,
    folder: PathBuf,
}

struct Clock {
    begun: Instant,
    over: Vec<String>,
}

impl Clock {
    /// Runs a suite and prints its minutes.
    fn suite(&mut self, name: &str, budget: f64, run: impl FnOnce() -> Result<()>) -> Result<()> {
        let begun = Instant::now();
        let result = run().with_context(|| format!("suite {name}"));
        let minutes = begun.elapsed().as_secs_f64() / 60.0;
        let verdict = if result.is_ok() { "ok    " } else { "FAILED" };
        println!("{verdict} {name}: {minutes:.1} min of {budget}");
        if minutes > budget {
            self.over.push(name.to_owned());
        }
        result
    }
}

/// Everything, in the order in which it fails soonest.
pub fn test() -> Result<()> {
    let mut clock = Clock {
        begun: Instant::now(),
        over: Vec::new(),
    };
    clock.suite("install", 5.0, install::everything)?;
    clock.suite("format", 0.5, || {
        run(&mut cargo(&["fmt", "--all", "--check"]))
    })?;
    clock.suite("tidy", 0.5, tidy::command)?;
    clock.suite("clippy", 9.0, || {
        let all = [
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ];
        run(&mut cargo(&all))
    })?;
    let mut binaries = Vec::new();
    let mut programs = BTreeMap::new();
    clock.suite("build", 12.0, || {
        binaries = test_binaries()?;
        programs = built_programs()?;
        Ok(())
    })?;
    let mut failed = Vec::new();
    let mut packages: Vec<String> = binaries
        .iter()
        .map(|binary| binary.package.clone())
        .collect();
    packages.dedup();
    for package in packages {
        let known = BUDGETS.iter().find(|(name, _)| *name == package);
        let budget = known.map_or(1.0, |(_, minutes)| *minutes);
        let of_package = binaries.iter().filter(|binary| binary.package == package);
        let result = clock.suite(&format!("tests of {package}"), budget, || {
            let mut bad = Vec::new();
            for binary in of_package {
                if !passes(binary, &programs)? {
                    bad.push(binary.target.clone());
                }
            }
            if bad.is_empty() {
                Ok(())
            } else {
                bail!("failed: {}", bad.join(", "))
            }
        });
        if let Err(error) = result {
            failed.push(format!("{error:#}"));
        }
    }
    let minutes = clock.begun.elapsed().as_secs_f64() / 60.0;
    if !clock.over.is_empty() {
        println!("over budget: {}", clock.over.join(", "));
    }
    if failed.is_empty() {
        println!("all suites passed in {minutes:.1} min of {WHOLE_BUDGET}");
        return Ok(());
    }
    bail!(
        "{} after {minutes:.1} min of {WHOLE_BUDGET}",
        failed.join("; ")
    )
}

/// Builds every test binary; cargo tells where they are. Running them ourselves gives each package
/// its own time, in one profile and one resolution of features.
fn test_binaries() -> Result<Vec<Binary>> {
    let messages = json_messages(&["test", "--workspace", "--no-run"])?;
    let mut binaries = Vec::new();
    for message in messages {
        let is_test = message["profile"]["test"] == true;
        let (Some(path), true) = (message["executable"].as_str(), is_test) else {
            continue;
        };
        let manifest = PathBuf::from(message["manifest_path"].as_str().unwrap_or_default());
        let folder = manifest
            .parent()
            .context("a manifest has a folder")?
            .to_owned();
        binaries.push(Binary {
            package: package_name(&manifest)?,
            target: message["target"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            path: path.into(),
            folder,
        });
    }
    binaries.sort_by(|a, b| (&a.package, &a.target).cmp(&(&b.package, &b.target)));
    if binaries.is_empty() {
        bail!("cargo built no test");
    }
    Ok(binaries)
}

/// The programs that tests start, by name: `stolos`, `bookinfo`, …
fn built_programs() -> Result<BTreeMap<String, PathBuf>> {
    let messages = json_messages(&["build", "--workspace", "--bins"])?;
    let programs = messages.iter().filter_map(|message| {
        let name = message["target"]["name"].as_str()?;
        Some((
            name.to_owned(),
            PathBuf::from(message["executable"].as_str()?),
        ))
    });
    Ok(programs.collect())
}

fn json_messages(arguments: &[&str]) -> Result<Vec<Value>> {
    let mut command = cargo(arguments);
    command.args(["--quiet", "--message-format", "json-render-diagnostics"]);
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("cargo {} ended with {}", arguments.join(" "), output.status);
    }
    let text = String::from_utf8(output.stdout)?;
    Ok(text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect())
}

fn package_name(manifest: &std::path::Path) -> Result<String> {
    let text = std::fs::read_to_string(manifest)?;
    let name = text.lines().find_map(|line| line.strip_prefix("name = "));
    Ok(name
        .context("a package has a name")?
        .trim_matches('"')
        .to_owned())
}

/// Quiet while it passes, but for what did not run; everything when it fails.
fn passes(binary: &Binary, programs: &BTreeMap<String, PathBuf>) -> Result<bool> {
    let mut command = Command::new(&binary.path);
    command.current_dir(&binary.folder);
    for (name, path) in programs {
        command.env(format!("{}_BIN", name.to_ascii_uppercase()), path);
    }
    let manifest_folder = binary.folder.as_os_str();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    command
        .env("CARGO_MANIFEST_DIR", manifest_folder)
        .env("CARGO", cargo);
    // Tests print what they leave out; libtest would swallow the lines of those that pass.
    let own_harness = ["differential", "scenarios"].contains(&binary.target.as_str());
    if !own_harness {
        command.arg("--nocapture");
    }
    let output = command
        .output()
        .with_context(|| binary.path.display().to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        println!("{text}");
        return Ok(false);
    }
    let mut said = std::collections::BTreeSet::new();
    for line in text.lines() {
        let notable = line.contains("not run:")
            || line.starts_with("differential:")
            || line.starts_with("scenarios:");
        if notable && said.insert(line) {
            println!("       {line}");
        }
    }
    Ok(true)
}
