//! A pod's private view of the host's file system: an overlay of `/` whose writes go to a memory
//! file system, with a `/proc`, `/dev`, `/sys` and `/run` of its own.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use base64::Engine;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::init::protocol::{Setup, VOLUMES_IN_POD, Volume};

/// What a pod may write to its file system in all, in bytes.
const WRITABLE_LIMIT: &str = "size=1g,mode=0755";
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const NOTHING: Option<&str> = None;

/// Builds the view and moves into it; afterwards nothing of the host's tree can be reached.
pub fn enter(setup: &Setup) -> io::Result<()> {
    mount(
        NOTHING,
        "/",
        NOTHING,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        NOTHING,
    )?;
    let elsewhere = mounted_elsewhere(&fs::read_to_string("/proc/self/mountinfo")?);
    let scratch = setup.root.as_path();
    mount(
        Some("tmpfs"),
        scratch,
        Some("tmpfs"),
        MsFlags::empty(),
        Some(WRITABLE_LIMIT),
    )
    .map_err(|error| named("mount the pod's writable layer", error.into()))?;
    std::env::set_current_dir(scratch)?;
    for directory in ["upper", "work", "root"] {
        fs::create_dir(directory)?;
    }
    let layers = "lowerdir=/,upperdir=upper,workdir=work";
    mount(
        Some("overlay"),
        "root",
        Some("overlay"),
        MsFlags::empty(),
        Some(layers),
    )
    .map_err(|error| named("mount an overlay of / (kernel: overlayfs)", error.into()))?;
    let root = scratch.join("root");
    for point in elsewhere {
        show_read_only(&point, &root);
    }
    own_file_systems(&root)?;
    for directory in &setup.hidden {
        let target = inside(&root, directory);
        if target.is_dir() {
            let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount(
                Some("tmpfs"),
                &target,
                Some("tmpfs"),
                flags,
                Some("size=4k,mode=0700"),
            )?;
        }
    }
    for (target, source) in &setup.programs {
        show_program(source, &inside(&root, target))
            .map_err(|error| named(&format!("show {} in the pod", source.display()), error))?;
    }
    pivot(&root)?;
    write_files(setup)?;
    setup.volumes.iter().try_for_each(make_volume)
}

/// Mount points of ordinary file systems other than `/`, which an overlay of `/` does not show.
fn mounted_elsewhere(mountinfo: &str) -> Vec<PathBuf> {
    const OWN: [&str; 4] = ["/proc", "/sys", "/dev", "/run"];
    let mut points: Vec<PathBuf> = mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(unescape(point)))
        .filter(|point| point != Path::new("/") && !OWN.iter().any(|own| point.starts_with(own)))
        .collect();
    points.sort();
    points.dedup();
    points
}

/// mountinfo writes space, tab, newline and backslash as octal escapes.
fn unescape(text: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (escape, plain)| {
        text.replace(escape, plain)
    })
}

/// A mount that cannot be shown is missing in the pod; the pod works without it.
fn show_read_only(point: &Path, root: &Path) {
    let target = inside(root, point);
    let bound = mount(Some(point), &target, NOTHING, MsFlags::MS_BIND, NOTHING);
    if bound.is_ok() {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        if mount(NOTHING, &target, NOTHING, flags, NOTHING).is_err() {
            let _ = umount2(&target, MntFlags::MNT_DETACH);
        }
    }
}

fn own_file_systems(root: &Path) -> io::Result<()> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let tmpfs = |path: &str, options: &str, flags: MsFlags| {
        mount(
            Some("tmpfs"),
            &root.join(path),
            Some("tmpfs"),
            flags,
            Some(options),
        )
        .map_err(|error| named(&format!("mount /{path}"), error.into()))
    };
    mount(
        Some("proc"),
        &root.join("proc"),
        Some("proc"),
        plain,
        NOTHING,
    )
    .map_err(|error| named("mount /proc", error.into()))?;
    let read_only = plain | MsFlags::MS_RDONLY;
    mount(
        Some("sysfs"),
        &root.join("sys"),
        Some("sysfs"),
        read_only,
        NOTHING,
    )
    .map_err(|error| named("mount /sys", error.into()))?;
    tmpfs(
        "run",
        "size=64m,mode=0755",
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
    )?;
    tmpfs("dev", "size=64k,mode=0755", MsFlags::MS_NOSUID)?;
    for device in DEVICES {
        let target = root.join("dev").join(device);
        fs::File::create(&target)?;
        let source = Path::new("/dev").join(device);
        mount(Some(&source), &target, NOTHING, MsFlags::MS_BIND, NOTHING)?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, root.join("dev").join(name))?;
    }
    fs::create_dir(root.join("dev/shm"))?;
    tmpfs(
        "dev/shm",
        "size=64m,mode=1777",
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
    )?;
    fs::create_dir(root.join("dev/pts"))?;
    let options = Some("newinstance,ptmxmode=0666,mode=0620");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(
        Some("devpts"),
        &root.join("dev/pts"),
        Some("devpts"),
        flags,
        options,
    )?;
    Ok(())
}

fn show_program(source: &Path, target: &Path) -> io::Result<()> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::File::create(target)?;
    mount(Some(source), target, NOTHING, MsFlags::MS_BIND, NOTHING)?;
    Ok(())
}

/// Makes `root` the root; the old one is detached, so that no path leads to it.
fn pivot(root: &Path) -> io::Result<()> {
    std::env::set_current_dir(root)?;
    nix::unistd::pivot_root(".", ".").map_err(|error| named("change the root", error.into()))?;
    umount2(".", MntFlags::MNT_DETACH)?;
    std::env::set_current_dir("/")
}

fn write_files(setup: &Setup) -> io::Result<()> {
    for (path, text) in &setup.files {
        // The host's may be a link into /run (systemd-resolved), which is the pod's own here.
        if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
            fs::remove_file(path)?;
        }
        fs::write(path, text)
            .map_err(|error| named(&format!("write {}", path.display()), error))?;
    }
    Ok(())
}

fn make_volume(volume: &Volume) -> io::Result<()> {
    let directory = Path::new(VOLUMES_IN_POD).join(&volume.name);
    fs::create_dir_all(&directory)?;
    for (name, file) in &volume.files {
        let path = directory.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let content = base64::engine::general_purpose::STANDARD
            .decode(&file.content)
            .map_err(io::Error::other)?;
        fs::write(&path, content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))?;
        chown(&path, Some(volume.owner), Some(volume.owner))?;
    }
    fs::set_permissions(&directory, fs::Permissions::from_mode(volume.mode))?;
    chown(&directory, Some(volume.owner), Some(volume.owner))
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn named(action: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{action}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_ordinary_mounts_once() {
        let text = "21 1 254:0 / / rw - ext4 /dev/vda rw\n\
                    22 21 0:5 / /dev rw - devtmpfs devtmpfs rw\n\
                    23 21 0:6 / /dev/shm rw - tmpfs tmpfs rw\n\
                    24 21 0:7 / /home rw - ext4 /dev/vdb rw\n\
                    25 21 0:8 / /mnt/a\\040b rw - ext4 /dev/vdc rw\n\
                    26 21 0:8 / /home rw - ext4 /dev/vdc rw\n";
        let want = [PathBuf::from("/home"), PathBuf::from("/mnt/a b")];
        assert_eq!(
            mounted_elsewhere(text),
            want,
            "neither / nor the pod's own file systems"
        );
    }
}
