//! Where the programs under test are: real Envoy, our own binaries; builds ours when asked.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Set wherever absence of a part means failure instead of "not run".
pub fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty())
}

/// The workspace's root folder.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Foreign test data: a setting, or beside the checkout; none in a bare clone.
pub fn testdata() -> Option<PathBuf> {
    let folder = match std::env::var_os("STOLOS_TESTDATA") {
        Some(set) => PathBuf::from(set),
        None => workspace().parent()?.join("shared/testdata"),
    };
    folder.is_dir().then_some(folder)
}

/// `STOLOS_ENVOY_PATH`, the venv that `cargo xtask test` makes, or one on the PATH.
pub fn envoy() -> Option<PathBuf> {
    if let Some(set) = std::env::var_os("STOLOS_ENVOY_PATH") {
        return Some(PathBuf::from(set)).filter(|path| path.is_file());
    }
    let cached = cache_folder().map(|cache| cache.join("envoy-venv"));
    let lib = cached.map(|venv| venv.join("lib"));
    let pythons = lib
        .and_then(|lib| std::fs::read_dir(lib).ok())
        .into_iter()
        .flatten();
    let binaries = pythons
        .filter_map(Result::ok)
        .map(|python| python.path().join("site-packages/envoy/_bin/envoy"));
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let found: Vec<PathBuf> = std::env::split_paths(&on_path)
        .map(|dir| dir.join("envoy"))
        .collect();
    binaries.chain(found).find(|path| path.is_file())
}

/// `$XDG_CACHE_HOME/stolos`, else `~/.cache/stolos`.
pub fn cache_folder() -> Option<PathBuf> {
    let set = std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty());
    let base = set.map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME")?;
        Some(PathBuf::from(home).join(".cache"))
    });
    base.map(|base| base.join("stolos"))
}

/// A binary of this workspace, built once per process: `package`'s `name`.
pub fn built(package: &str, name: &str) -> Result<PathBuf> {
    static BUILT: OnceLock<std::sync::Mutex<std::collections::BTreeSet<String>>> = OnceLock::new();
    let variable = format!("{}_BIN", name.to_ascii_uppercase());
    if let Some(set) = std::env::var_os(&variable) {
        return Ok(PathBuf::from(set));
    }
    let this = std::env::current_exe()?;
    let deps = this.parent().context("a test binary has a folder")?;
    let folder = deps.parent().context("deps has a parent")?;
    let path = folder.join(name);
    let built = BUILT.get_or_init(Default::default);
    let mut built = built.lock().map_err(|_| anyhow::anyhow!("BUG: poisoned"))?;
    if built.contains(name) {
        return Ok(path);
    }
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let target = folder.parent().context("a profile folder has a parent")?;
    let status = Command::new(cargo)
        .args(["build", "--quiet", "-p", package, "--bin", name])
        .current_dir(workspace())
        .env("CARGO_TARGET_DIR", target)
        .status()
        .context("cargo build")?;
    if !status.success() {
        bail!("cargo build -p {package} --bin {name} failed");
    }
    built.insert(name.to_owned());
    Ok(path)
}
