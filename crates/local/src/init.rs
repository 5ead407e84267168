//! `stolos _pod`: a pod's first process. It makes the pod's namespaces and view, starts the
//! containers it is told to, reaps, and ends (and with it the pod) when the supervisor is gone.

pub mod container;
pub mod logs;
mod mounts;
pub mod protocol;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use protocol::{Container, Event, Exit, LINK_GATEWAY, Order, STOLOS_IN_POD, Setup};

/// Runs until the supervisor closes the socket on standard input. Must be called before any
/// thread exists.
pub fn run() -> io::Result<()> {
    let flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut orders = BufReader::new(socket.try_clone()?).lines();
    let speaker = Speaker(Arc::new(Mutex::new(socket)));
    unshare(flags)?;
    speaker.say(&Event::Created);
    let Some(Order::Setup(setup)) = next_order(&mut orders)? else {
        return Err(io::Error::other("the first order must be Setup"));
    };
    let logs = match set_up(&setup) {
        Ok(logs) => logs,
        Err(error) => {
            speaker.say(&Event::Failed {
                message: error.to_string(),
            });
            return Err(error);
        }
    };
    let children = Arc::new(Children::default());
    std::thread::Builder::new().name("reaper".into()).spawn({
        let (children, speaker) = (children.clone(), speaker.clone());
        move || children.reap(&speaker)
    })?;
    speaker.say(&Event::Ready);
    while let Some(order) = next_order(&mut orders)? {
        match order {
            Order::Setup(_) => {}
            Order::Start(container) => children.start(&container, &logs, &speaker),
            Order::Signal { container, signal } => children.signal(&container, signal),
        }
    }
    Ok(()) // the supervisor is gone; the kernel ends the rest of this pid namespace
}

fn next_order(orders: &mut impl Iterator<Item = io::Result<String>>) -> io::Result<Option<Order>> {
    match orders.next() {
        None => Ok(None),
        Some(line) => serde_json::from_str(&line?)
            .map(Some)
            .map_err(io::Error::other),
    }
}

/// The log directory as it can be reached from inside: by descriptor, past the change of root.
fn set_up(setup: &Setup) -> io::Result<PathBuf> {
    let logs = File::open(&setup.logs)?;
    nix::unistd::sethostname(&setup.hostname)?;
    configure_network(setup)?;
    mounts::enter(setup)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", logs.as_raw_fd()));
    // Kept open for as long as the process lives; closed in children by its close-on-exec flag.
    std::mem::forget(logs);
    Ok(path)
}

/// The supervisor has moved `eth0` in before it sends Setup.
fn configure_network(setup: &Setup) -> io::Result<()> {
    fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
    let batch = format!(
        "link set lo up\naddress add {ip}/32 dev eth0\nlink set eth0 up\n\
         route add {LINK_GATEWAY} dev eth0 scope link src {ip}\n\
         route add default via {LINK_GATEWAY} dev eth0 src {ip}\n",
        ip = setup.ip
    );
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]);
    crate::node::feed_command(command, &batch)
        .map_err(|error| io::Error::other(format!("configure the pod's network: {error}")))
}

#[derive(Clone)]
struct Speaker(Arc<Mutex<UnixStream>>);

impl Speaker {
    /// A supervisor that is gone is noticed by the reader of orders.
    fn say(&self, event: &Event) {
        let mut line = serde_json::to_vec(event).unwrap_or_default();
        line.push(b'\n');
        let mut socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = socket.write_all(&line);
    }
}

/// The containers' first processes. The lock is held while one is spawned, so that the reaper
/// cannot take a failed exec's status away from the standard library.
#[derive(Default)]
struct Children {
    running: Mutex<BTreeMap<i32, String>>,
    changed: Condvar,
}

impl Children {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, String>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(self: &Arc<Self>, container: &Container, logs: &std::path::Path, speaker: &Speaker) {
        let name = container.name.clone();
        let log = logs.join(format!("{name}.log"));
        let mut running = self.lock();
        match spawn(container, log) {
            Ok((pid, starting)) => {
                running.insert(pid, name);
                self.changed.notify_all();
                let (children, speaker) = (Arc::clone(self), speaker.clone());
                let announce = move || children.announce(pid, starting, &speaker);
                if std::thread::Builder::new().spawn(announce).is_err() {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
            Err(error) => {
                let exit = Exit::NotStarted(error.to_string());
                speaker.say(&Event::Exited {
                    container: name,
                    exit,
                });
            }
        }
    }

    /// Says that the program runs, unless it has ended since and the reaper has said so.
    fn announce(&self, pid: i32, starting: io::PipeReader, speaker: &Speaker) {
        if !has_started(starting) {
            return;
        }
        let running = self.lock();
        if let Some(container) = running.get(&pid) {
            speaker.say(&Event::Started {
                container: container.clone(),
                pid,
            });
        }
    }

    /// SIGKILL goes to the whole process group: a shell may have left children behind.
    fn signal(&self, container: &str, signal: i32) {
        let Ok(signal) = Signal::try_from(signal) else {
            return;
        };
        for (pid, name) in self.lock().iter() {
            if name == container {
                let group = if signal == Signal::SIGKILL {
                    -pid
                } else {
                    *pid
                };
                let _ = kill(Pid::from_raw(group), signal);
            }
        }
    }

    fn reap(&self, speaker: &Speaker) {
        loop {
            let exited = waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
            let mut running = self.lock();
            if exited == Err(Errno::ECHILD) {
                // Nothing to wait for; a start wakes this up.
                let (guard, _) = self
                    .changed
                    .wait_timeout(running, std::time::Duration::from_secs(1))
                    .unwrap_or_else(PoisonError::into_inner);
                drop(guard);
                continue;
            }
            while let Some((pid, exit)) = reap_one() {
                if let Some(container) = running.remove(&pid) {
                    speaker.say(&Event::Exited { container, exit });
                }
            }
        }
    }
}

fn reap_one() -> Option<(i32, Exit)> {
    match waitpid(None, Some(WaitPidFlag::WNOHANG)).ok()? {
        WaitStatus::Exited(pid, code) => Some((pid.as_raw(), Exit::Code(code))),
        WaitStatus::Signaled(pid, signal, _) => Some((pid.as_raw(), Exit::Signal(signal as i32))),
        _ => None,
    }
}

/// The other end closes when the container's program takes the place of our own step before it;
/// a step that fails writes why. Its exit is then told by the reaper.
fn has_started(mut starting: io::PipeReader) -> bool {
    let mut text = String::new();
    matches!(starting.read_to_string(&mut text), Ok(0))
}

/// The process, and what tells whether its program could be started.
fn spawn(container: &Container, log: PathBuf) -> io::Result<(i32, io::PipeReader)> {
    use std::os::unix::process::CommandExt;
    let spec = serde_json::to_string(container).map_err(io::Error::other)?;
    let (reader, writer) = io::pipe()?;
    let errors = writer.try_clone()?;
    let (output, errors) = if container.quiet {
        (Stdio::null(), Stdio::null())
    } else {
        (Stdio::from(writer), Stdio::from(errors))
    };
    let (starting, step) = io::pipe()?;
    let mut command = Command::new(STOLOS_IN_POD);
    command
        .arg("_container")
        // Not an argument: those can be read by every user of the host, and secrets are in it.
        .env(container::SPECIFICATION, &spec)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .process_group(0)
        .env(container::STEP, step.as_raw_fd().to_string());
    crate::sys::inherit(&mut command, step.as_fd());
    let child = command.spawn()?;
    drop(step);
    let output = OwnedFd::from(reader);
    std::thread::Builder::new()
        .name("log".into())
        .spawn(move || logs::copy_to_log(output, log))?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    Ok((pid, starting))
}
