//! The build commands of a LocalMesh, and the copy of our own binary that pods run.

use std::fs;
use std::process::Stdio;

use crate::error::LocalError;
use crate::manifest::DesiredMesh;
use crate::manifest::template::expand;
use crate::state_dir::StateDir;

/// `$(STOLOS_CARGO_PROFILE)` in a build command: the profile we were built with ourselves.
const PROFILE: &str = "STOLOS_CARGO_PROFILE";

/// Runs the commands in the folder; their output is the user's to see.
pub async fn run(desired: &DesiredMesh) -> Result<(), LocalError> {
    let env: Vec<(String, String)> = std::env::vars()
        .chain([(PROFILE.to_owned(), profile().to_owned())])
        .collect();
    for words in &desired.settings.build {
        let words: Vec<String> = words.iter().map(|word| expand(word, &env)).collect();
        let text = words.join(" ");
        let Some((program, arguments)) = words.split_first() else {
            continue;
        };
        let status = tokio::process::Command::new(program)
            .args(arguments)
            .current_dir(&desired.folder)
            .env(PROFILE, profile())
            .stdin(Stdio::null())
            .status()
            .await
            .map_err(|error| {
                LocalError::system(&format!("run the build command `{text}`"), error)
            })?;
        if !status.success() {
            return Err(LocalError::refused(format!(
                "the build command `{text}` of {} failed ({status}); --no-build skips it",
                desired.folder.display()
            )));
        }
    }
    Ok(())
}

/// Cargo names the folder `debug` for its profile `dev`.
fn profile() -> &'static str {
    let own = std::env::current_exe().ok();
    let folder = own
        .as_deref()
        .and_then(|path| path.parent())
        .and_then(|path| path.file_name());
    if folder.is_some_and(|name| name == "debug") {
        "dev"
    } else {
        "release"
    }
}

/// Our own binary under a name of the state folder's: it stays the same while the mesh runs,
/// whatever a build does to the original.
pub fn keep_program(state: &StateDir) -> Result<std::path::PathBuf, LocalError> {
    let own = std::env::current_exe()
        .map_err(|error| LocalError::system("find our own binary", error))?;
    let target = state.program();
    let keep = || {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        if target.exists() {
            fs::remove_file(&target)?;
        }
        fs::hard_link(&own, &target).or_else(|_| fs::copy(&own, &target).map(|_| ()))
    };
    keep().map_err(|error| LocalError::system("keep a copy of our own binary", error))?;
    Ok(target)
}
