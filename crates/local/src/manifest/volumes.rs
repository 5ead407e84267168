//! Volumes of a pod: emptyDir, ConfigMap and Secret; every other source is refused by name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine;
use mesh_api::decode::Oneof;
use mesh_api::kinds::core::container::Container;
use mesh_api::kinds::core::volume::{KeyToPath, VolumeSource};

use crate::init::protocol::{Mount, Volume, VolumeFile};
use crate::manifest::problems::Problems;
use crate::manifest::resolve::{PodSource, Sources};

const DEFAULT_FILE_MODE: u32 = 0o644;

/// The pod's volumes with their content.
pub fn resolve(
    source: &PodSource<'_>,
    sources: &Sources<'_>,
    problems: &mut Problems,
) -> Vec<Volume> {
    let namespace = &source.object.meta.namespace;
    let mut volumes = Vec::new();
    for (index, volume) in source.spec.volumes.iter().enumerate() {
        let path = format!("{}.volumes[{index}]", source.path);
        let named = |mode: u32, files| Volume {
            name: volume.name.clone(),
            owner: 0,
            mode,
            files,
        };
        match &volume.source {
            None | Some(VolumeSource::EmptyDir(_)) => {
                volumes.push(named(0o1777, BTreeMap::new()));
            }
            Some(VolumeSource::ConfigMap(map)) => {
                let values = sources.config_map(namespace, &map.name);
                if values.is_none() && map.optional != Some(true) {
                    let message = format!("there is no ConfigMap {}", map.name);
                    problems.error(source.object, &format!("{path}.configMap.name"), message);
                }
                let mode = mode(map.default_mode);
                volumes.push(named(
                    0o755,
                    files(values.unwrap_or_default(), &map.items, mode),
                ));
            }
            Some(VolumeSource::Secret(secret)) => {
                let values = sources.secret(namespace, &secret.secret_name);
                if values.is_none() && secret.optional != Some(true) {
                    let message = format!("there is no Secret {}", secret.secret_name);
                    problems.error(source.object, &format!("{path}.secret.secretName"), message);
                }
                let mode = mode(secret.default_mode);
                volumes.push(named(
                    0o755,
                    files(values.unwrap_or_default(), &secret.items, mode),
                ));
            }
            Some(other) => {
                let path = format!("{path}.{}", other.member());
                problems.error(
                    source.object,
                    &path,
                    "is not supported on the local platform",
                );
                problems.allow("emptyDir | configMap | secret");
            }
        }
    }
    volumes
}

/// Where a container sees its volumes.
pub fn mounts(
    source: &PodSource<'_>,
    container: &Container,
    path: &str,
    problems: &mut Problems,
) -> Vec<Mount> {
    let mut mounts = Vec::new();
    for (index, mount) in container.volume_mounts.iter().enumerate() {
        let path = format!("{path}.volumeMounts[{index}]");
        if !source
            .spec
            .volumes
            .iter()
            .any(|volume| volume.name == mount.name)
        {
            let message = format!("there is no volume {}", mount.name);
            problems.error(source.object, &format!("{path}.name"), message);
        }
        let leaves = |text: &str| text.split('/').any(|part| part == "..");
        if leaves(&mount.sub_path) || leaves(&mount.mount_path) {
            problems.error(source.object, &path, "must not contain `..`");
            continue;
        }
        if !mount.sub_path_expr.is_empty() {
            let path = format!("{path}.subPathExpr");
            problems.error(
                source.object,
                &path,
                "is not supported on the local platform",
            );
        }
        mounts.push(Mount {
            volume: mount.name.clone(),
            path: PathBuf::from("/").join(&mount.mount_path),
            sub_path: mount.sub_path.trim_start_matches('/').to_owned(),
            read_only: mount.read_only,
        });
    }
    mounts
}

fn mode(value: Option<i32>) -> u32 {
    value
        .and_then(|value| u32::try_from(value).ok())
        .unwrap_or(DEFAULT_FILE_MODE)
}

/// Every key as a file, or the chosen ones under the paths given.
fn files(
    values: BTreeMap<String, Vec<u8>>,
    items: &[KeyToPath],
    mode: u32,
) -> BTreeMap<String, VolumeFile> {
    let file = |value: &[u8], mode: u32| VolumeFile {
        content: base64::engine::general_purpose::STANDARD.encode(value),
        mode,
    };
    if items.is_empty() {
        return values
            .iter()
            .map(|(key, value)| (key.clone(), file(value, mode)))
            .collect();
    }
    let chosen = items
        .iter()
        .filter(|item| !item.path.split('/').any(|part| part == ".."));
    chosen
        .filter_map(|item| {
            let value = values.get(&item.key)?;
            let own = item.mode.and_then(|value| u32::try_from(value).ok());
            let path = item.path.trim_start_matches('/').to_owned();
            Some((path, file(value, own.unwrap_or(mode))))
        })
        .collect()
}
