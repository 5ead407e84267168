//! `stolos.yaml`: the LocalMesh, which says how this machine runs a folder of manifests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mesh_api::{enumeration, message};
use serde_json::Value as Json;

pub const FILE: &str = "stolos.yaml";
pub const API_VERSION: &str = "local.stolos.dev/v1alpha1";
pub const KIND: &str = "LocalMesh";

message! {
    /// The `spec` of a LocalMesh.
    pub struct LocalMesh {
        /// Commands that run in the folder before the start; `--no-build` skips them.
        build: Vec<Vec<String>>,
        /// Files, or folders of files, that are read besides the folder's own.
        include: Vec<String>,
        images: Vec<ImageRule>,
        proxy: ProxyChoice,
        /// The real Envoy's path; unset: found on PATH or in the cache folder.
        envoy_path: String,
        mesh_config: Option<Json>,
        /// `SERVICE[.NAMESPACE]:PORT` to a port of 127.0.0.1; 0 is any free one.
        publish: BTreeMap<String, u16>,
        /// Names outside of the mesh that pods resolve to an IP or to `SERVICE.NAMESPACE`.
        hosts: BTreeMap<String, String>,
        /// PEM files of authorities that pods trust besides the host's.
        trusted_certificates: Vec<String>,
        inject: Injection,
    }
}

message! {
    /// What stands for a container image on this machine.
    pub struct ImageRule {
        /// A glob on the image; `*` matches any characters, `/` too.
        r#match: String,
        /// The image's entry point.
        command: Vec<String>,
        /// The image's default arguments, which a container's `args` replace.
        args: Vec<String>,
        env: BTreeMap<String, String>,
        working_dir: String,
    }
}

enumeration! {
    /// Which proxy a pod gets.
    pub enum ProxyChoice {
        Stolos = "stolos",
        Envoy = "envoy",
    }
}

enumeration! {
    /// Which pods get a sidecar when neither their labels nor their annotations say.
    pub enum Injection {
        All = "all",
        /// Those of namespaces labelled `istio-injection: enabled`, as in a cluster.
        Labelled = "labelled",
    }
}

impl LocalMesh {
    /// The first rule whose glob matches.
    pub fn image(&self, image: &str) -> Option<&ImageRule> {
        self.images
            .iter()
            .find(|rule| glob_matches(&rule.r#match, image))
    }
}

/// `*` stands for any characters, none too; everything else for itself.
pub fn glob_matches(glob: &str, text: &str) -> bool {
    let mut parts = glob.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = glob.rsplit('*').next().filter(|_| glob.contains('*')) else {
        return rest.is_empty();
    };
    let middle: Vec<&str> = parts.collect();
    for part in &middle[..middle.len() - 1] {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

/// A program named in a manifest: a path is relative to the folder; a bare name is looked for
/// beside the running `stolos` (where cargo puts both), else it is left to the pod's PATH.
pub fn resolve_program(program: &str, folder: &Path) -> String {
    if program.starts_with('/') {
        return program.to_owned();
    }
    let found: Option<PathBuf> = if program.contains('/') {
        Some(folder.join(program))
    } else {
        std::env::current_exe()
            .ok()
            .and_then(|own| own.parent().map(|parent| parent.join(program)))
            .filter(|path| path.is_file())
    };
    found.map_or_else(
        || program.to_owned(),
        |path| path.to_string_lossy().into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (glob, text, want, why) in [
            (
                "*/productpage-v1:*",
                "docker.io/istio/productpage-v1:1.20",
                true,
                "over slashes",
            ),
            (
                "*/productpage-v1:*",
                "productpage-v1:1.20",
                false,
                "the slash is asked for",
            ),
            ("app", "app", true, "no star: equal"),
            ("app", "app:1", false, "no star: equal, not a prefix"),
            ("*", "", true, "nothing is any characters too"),
            ("a*b*c", "a-b-b-c", true, "the last part is at the end"),
            ("a*b*c", "a-c", false, "the middle is missing"),
            ("ab*ba", "aba", false, "parts do not overlap"),
            (
                "*:1",
                "x:1:1",
                true,
                "the last part is matched from the end",
            ),
        ] {
            assert_eq!(glob_matches(glob, text), want, "{glob} {text}: {why}");
        }
    }
}
