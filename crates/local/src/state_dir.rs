//! Where a mesh keeps its state: `$XDG_STATE_HOME/stolos/MESH`. Files are replaced by rename.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::LocalError;

/// The folder that holds the folders of all meshes.
pub fn root() -> Result<PathBuf, LocalError> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    set("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".local/state")))
        .map(|base| base.join("stolos"))
        .ok_or_else(|| LocalError::refused("neither XDG_STATE_HOME nor HOME is set"))
}

/// The file with the MeshConfig.
pub const MESH_CONFIG: &str = "mesh-config.json";

/// One mesh's folder.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

/// Held by the one supervisor of a mesh; the kernel lets go of it when the process ends.
#[derive(Debug)]
pub struct SupervisorLock {
    _lock: Flock<File>,
}

impl StateDir {
    pub fn of_mesh(mesh: &str) -> Result<StateDir, LocalError> {
        Ok(StateDir {
            path: root()?.join(mesh),
        })
    }

    pub fn at(path: PathBuf) -> StateDir {
        StateDir { path }
    }

    /// Makes the folder, readable by its owner only: keys and tokens are below it.
    pub fn create(&self) -> Result<(), LocalError> {
        let make = || {
            fs::create_dir_all(self.logs())?;
            fs::create_dir_all(self.pods())?;
            fs::set_permissions(&self.path, fs::Permissions::from_mode(0o700))
        };
        make().map_err(|error| {
            LocalError::system(
                &format!("make the state folder {}", self.path.display()),
                error,
            )
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn registry(&self) -> PathBuf {
        self.path.join("registry.json")
    }

    pub fn control_socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    pub fn supervisor_socket(&self) -> PathBuf {
        self.path.join("supervisor.sock")
    }

    pub fn mesh_config(&self) -> PathBuf {
        self.path.join(MESH_CONFIG)
    }

    pub fn root_certificate(&self) -> PathBuf {
        self.path.join("root-cert.pem")
    }

    pub fn program(&self) -> PathBuf {
        self.path.join("bin/stolos")
    }

    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    pub fn pods(&self) -> PathBuf {
        self.path.join("pods")
    }

    pub fn pod(&self, namespace: &str, name: &str) -> PathBuf {
        self.pods().join(namespace).join(name)
    }

    /// `None` when another process holds it.
    pub fn lock(&self) -> Result<Option<SupervisorLock>, LocalError> {
        let path = self.path.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| LocalError::system(&format!("open {}", path.display()), error))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(SupervisorLock { _lock: lock })),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(LocalError::system("lock the mesh", error.into())),
        }
    }

    pub fn is_running(&self) -> bool {
        self.path.is_dir() && matches!(self.lock(), Ok(None))
    }

    /// A JSON file's content; a missing or unreadable one is the default.
    pub fn load<T: DeserializeOwned + Default>(&self, name: &str) -> T {
        let text = fs::read_to_string(self.path.join(name)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    pub fn store<T: Serialize>(&self, name: &str, value: &T) -> Result<(), LocalError> {
        let path = self.path.join(name);
        let text = serde_json::to_vec(value).map_err(|error| LocalError::failed(error.to_string()));
        replace_file(&path, &text?)
            .map_err(|error| LocalError::system(&format!("write {}", path.display()), error))
    }

    /// Removes everything.
    pub fn purge(&self) -> Result<(), LocalError> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let action = format!("remove {}", self.path.display());
                Err(LocalError::system(&action, error))
            }
            _ => Ok(()),
        }
    }
}

/// The names of all meshes that have state, and whether their supervisors run.
pub fn meshes() -> Result<Vec<(String, bool)>, LocalError> {
    let Ok(entries) = fs::read_dir(root()?) else {
        return Ok(Vec::new());
    };
    let mut found: Vec<(String, bool)> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().join("lock").is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .map(|name| {
            (
                name.clone(),
                StateDir::of_mesh(&name).is_ok_and(|dir| dir.is_running()),
            )
        })
        .collect();
    found.sort();
    Ok(found)
}

/// Whole or not at all: written beside the target, then renamed over it.
pub fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    drop(file);
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lock_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::at(folder.path().join("mesh"));
        state.create().unwrap();
        let lock = state.lock().unwrap();
        assert!(lock.is_some() && state.is_running());
        assert!(
            state.lock().unwrap().is_none(),
            "a second supervisor is told so"
        );
        drop(lock);
        assert!(!state.is_running(), "free again");
    }
}
