//! `stolos _container`: the last step before a container's program. It mounts the container's
//! volumes, gives up privileges and becomes the program. Runs before any thread exists.

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::fchown;
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::init::protocol::{Container, Privilege, VOLUMES_IN_POD};
use crate::sys;

/// The environment variable that carries the JSON of a `Container`.
pub const SPECIFICATION: &str = "STOLOS_CONTAINER";
/// The number of the descriptor that tells the pod's first process whether the program started.
pub const STEP: &str = "STOLOS_STEP";
const NOTHING: Option<&str> = None;

/// Never returns when all goes well; the text says what did not, and the code is a shell's.
pub fn run() -> (String, i32) {
    let step = std::env::var(STEP)
        .ok()
        .and_then(|number| number.parse().ok());
    let mut step = step.and_then(|number| sys::take_step(number).ok());
    let (text, code) = run_program();
    if let Some(step) = &mut step {
        let _ = step.write_all(text.as_bytes());
    }
    (text, code)
}

fn run_program() -> (String, i32) {
    let spec = std::env::var(SPECIFICATION).unwrap_or_default();
    let container: Container = match serde_json::from_str(&spec) {
        Ok(container) => container,
        Err(error) => return (format!("BUG: container specification: {error}"), 126),
    };
    if let Err(error) = prepare(&container) {
        return (
            format!("cannot prepare container {}: {error}", container.name),
            126,
        );
    }
    let error = become_program(&container);
    let code = if error.kind() == io::ErrorKind::NotFound {
        127
    } else {
        126
    };
    let program = container.command.first().map_or("", String::as_str);
    (format!("cannot start {program}: {error}"), code)
}

fn prepare(container: &Container) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(
        NOTHING,
        "/",
        NOTHING,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        NOTHING,
    )?;
    for one in &container.mounts {
        let source = Path::new(VOLUMES_IN_POD)
            .join(&one.volume)
            .join(&one.sub_path);
        place(&source, &one.path, one.read_only).map_err(|error| {
            let text = format!(
                "mount volume {} at {}: {error}",
                one.volume,
                one.path.display()
            );
            io::Error::new(error.kind(), text)
        })?;
    }
    if container.privilege == Privilege::Default {
        // Other containers' volumes (tokens among them) stay out of sight.
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
        fs::create_dir_all(VOLUMES_IN_POD)?;
        mount(
            Some("tmpfs"),
            VOLUMES_IN_POD,
            Some("tmpfs"),
            flags,
            Some("size=4k,mode=0700"),
        )?;
        sys::drop_capabilities()?;
    }
    Ok(())
}

fn place(source: &Path, target: &Path, read_only: bool) -> io::Result<()> {
    if !source.exists() {
        fs::create_dir_all(source)?; // a subPath of an emptyDir
    }
    if source.is_dir() {
        fs::create_dir_all(target)?;
    } else if !target.exists() {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::File::create(target)?;
    }
    mount(Some(source), target, NOTHING, MsFlags::MS_BIND, NOTHING)?;
    if read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(NOTHING, target, NOTHING, flags, NOTHING)?;
    }
    Ok(())
}

fn become_program(container: &Container) -> io::Error {
    let Some((program, arguments)) = container.command.split_first() else {
        return io::Error::new(io::ErrorKind::NotFound, "the command is empty");
    };
    let result = lower_privileges(container).and_then(|()| {
        std::env::set_current_dir(container.directory.as_deref().unwrap_or(Path::new("/")))
    });
    if let Err(error) = result {
        return error;
    }
    let path = find(program, &container.env);
    Command::new(path)
        .args(arguments)
        .env_clear()
        .envs(container.env.iter().cloned())
        .exec()
}

/// Group first: a user other than root may not change it any more.
fn lower_privileges(container: &Container) -> io::Result<()> {
    if let Some(group) = container.group.or(container.user) {
        let group = Gid::from_raw(group);
        setgroups(&[group])?;
        setresgid(group, group, group)?;
    }
    if let Some(user) = container.user {
        // As container runtimes do: a program may open /dev/stdout anew, which for a pipe asks for
        // its owner. Not ours to give away (a terminal, a file): then it stays as it is.
        for output in [io::stdout().as_fd(), io::stderr().as_fd()] {
            let _ = fchown(output, Some(user), container.group);
        }
        let user = Uid::from_raw(user);
        setresuid(user, user, user)?;
    }
    if container.privilege == Privilege::Default {
        nix::sys::prctl::set_no_new_privs()?;
    }
    Ok(())
}

/// A bare name is looked for in the container's PATH, as the container's own exec would.
fn find(program: &str, env: &[(String, String)]) -> PathBuf {
    let mut parts = Path::new(program).components();
    let bare = matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(_)), None)
    );
    let path = env.iter().rev().find(|(name, _)| name == "PATH");
    if let (true, Some((_, path))) = (bare, path) {
        let found = std::env::split_paths(path).map(|one| one.join(program));
        if let Some(found) = found.into_iter().find(|one| one.is_file()) {
            return found;
        }
    }
    PathBuf::from(program)
}
