//! The only unsafe code of this crate: what runs between fork and exec, and capability calls.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;

/// What a child gets on its way to exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChildSetup {
    /// SIGKILL when the thread that spawned it ends (a killed supervisor leaves nothing behind).
    pub dies_with_parent: bool,
    /// A session of its own, so that Ctrl-C on the terminal reaches the supervisor only.
    pub new_session: bool,
}

/// Applies `setup` to `command`.
pub fn prepare(command: &mut Command, setup: ChildSetup) {
    let hook = move || -> io::Result<()> {
        if setup.dies_with_parent {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        }
        if setup.new_session {
            nix::unistd::setsid()?;
        }
        Ok(())
    };
    // SAFETY: the hook runs in the forked child and makes two system calls; it neither allocates
    // nor takes a lock, which is what a child of a multi-threaded process must not do.
    unsafe {
        command.pre_exec(hook);
    }
}

/// Whoever reads our output may stop doing so (`| head`): from now on that ends the process
/// without a word, as it does with every other command.
pub fn end_when_nobody_reads() {
    // SAFETY: the default action runs none of our code.
    let _ =
        unsafe { nix::sys::signal::signal(Signal::SIGPIPE, nix::sys::signal::SigHandler::SigDfl) };
}

/// Lets the child inherit this descriptor under its number.
pub fn inherit(command: &mut Command, descriptor: BorrowedFd<'_>) {
    let number = descriptor.as_raw_fd();
    let hook = move || -> io::Result<()> {
        // SAFETY: fcntl(F_SETFD) takes integers only; on a bad descriptor it returns an error.
        let result = unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    // SAFETY: as in `prepare`: one system call, no allocation, no lock.
    unsafe {
        command.pre_exec(hook);
    }
}

/// Takes over an inherited descriptor, which from now on closes on exec. Called once, by a process
/// that was given the number by its parent and has opened nothing itself.
pub fn take_step(number: RawFd) -> io::Result<File> {
    // SAFETY: fcntl takes integers only; on a number that is not open it returns an error.
    let result = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the number is open (fcntl has just succeeded) and nobody else in this process owns
    // it: it was inherited for this purpose.
    Ok(unsafe { File::from_raw_fd(number) })
}

/// Spawns `command` as process 1 of a new pid namespace. Only this thread's children-to-be are
/// concerned, and only for the time of the call.
pub fn spawn_in_new_pid_namespace(command: &mut Command) -> io::Result<Child> {
    let own: OwnedFd = File::open("/proc/thread-self/ns/pid")?.into();
    unshare(CloneFlags::CLONE_NEWPID)?;
    let child = command.spawn();
    setns(own.as_fd(), CloneFlags::CLONE_NEWPID)?;
    child
}

/// The capabilities a container keeps: Docker's default set without MKNOD, because a pod here has
/// no device cgroup between it and the host's disks.
const KEPT: [u32; 13] = [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 29, 31];
const LAST_CAPABILITY: u32 = 63;

/// Takes all other capabilities out of the bounding set, so that the next exec loses them.
pub fn drop_capabilities() -> io::Result<()> {
    for capability in (0..=LAST_CAPABILITY).filter(|one| !KEPT.contains(one)) {
        let number = libc::c_ulong::from(capability);
        // SAFETY: prctl(PR_CAPBSET_DROP) takes integers only and touches no memory of ours.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
        if result != 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::EINVAL) {
                return Ok(()); // the first number that this kernel does not know: the end
            }
            return Err(error);
        }
    }
    Ok(())
}
