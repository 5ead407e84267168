//! The node: a network namespace that belongs to one thread, and everything made inside it
//! (processes, sockets). It lives as long as the supervisor, which is why nothing has to be
//! cleaned up after a kill.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use tokio::sync::oneshot;

use crate::error::LocalError;
use crate::sys::{self, ChildSetup};

type Job = Box<dyn FnOnce() + Send>;

/// A handle to the node's thread; clones share it.
#[derive(Debug, Clone)]
pub struct Node {
    jobs: mpsc::Sender<Job>,
    /// `/proc/PID/task/TID/ns/net`, for programs that join a namespace by path.
    namespace_path: String,
}

impl Node {
    /// Makes the namespace and its thread.
    pub fn create() -> Result<Node, LocalError> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (started, start) = mpsc::channel();
        std::thread::Builder::new()
            .name("node".into())
            .spawn(move || {
                let made = unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
                let path = std::fs::read_link("/proc/thread-self")
                    .map(|link| format!("/proc/{}/ns/net", link.display()));
                let ok = made.is_ok();
                let _ = started.send(made.and(path));
                while ok && let Ok(job) = queue.recv() {
                    job();
                }
            })
            .map_err(|error| LocalError::system("start the node's thread", error))?;
        let namespace_path = start
            .recv()
            .map_err(|_| LocalError::failed("the node's thread ended at its start"))?
            .map_err(|error| LocalError::system("make the node's network namespace", error))?;
        Ok(Node {
            jobs,
            namespace_path,
        })
    }

    pub fn namespace_path(&self) -> &str {
        &self.namespace_path
    }

    /// Runs a short job on the node's thread, that is in its namespace.
    pub async fn run<T, F>(&self, job: F) -> Result<T, LocalError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move || {
            let _ = done.send(job());
        });
        self.jobs
            .send(job)
            .map_err(|_| LocalError::failed("the node's thread is gone"))?;
        result
            .await
            .map_err(|_| LocalError::failed("the node's thread is gone"))
    }

    /// Spawns a process in the node's network namespace that cannot outlive the supervisor.
    pub async fn spawn(&self, mut command: Command) -> Result<Child, LocalError> {
        let name = command.get_program().to_string_lossy().into_owned();
        sys::prepare(
            &mut command,
            ChildSetup {
                dies_with_parent: true,
                new_session: true,
            },
        );
        self.run(move || command.spawn())
            .await?
            .map_err(|error| LocalError::system(&format!("start {name}"), error))
    }

    /// The same, as process 1 of a new pid namespace.
    pub async fn spawn_pod(&self, mut command: Command) -> Result<Child, LocalError> {
        sys::prepare(
            &mut command,
            ChildSetup {
                dies_with_parent: true,
                new_session: true,
            },
        );
        self.run(move || sys::spawn_in_new_pid_namespace(&mut command))
            .await?
            .map_err(|error| LocalError::system("start a pod's first process", error))
    }

    /// Runs a program to its end with `input` on its stdin; an error holds what it printed.
    pub async fn feed(&self, program: &[&str], input: String) -> Result<(), LocalError> {
        let name = program.join(" ");
        let mut command = Command::new(program[0]);
        command.args(&program[1..]);
        self.run(move || feed_command(command, &input))
            .await?
            .map_err(|error| LocalError::system(&format!("run {name}"), error))
    }

    /// A connection whose socket lives in the node's namespace.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<tokio::net::TcpStream> {
        let socket = self
            .run(tokio_socket)
            .await
            .map_err(|error| io::Error::other(error.to_string()))??;
        let socket = tokio::net::TcpSocket::from_std_stream(socket.into());
        let connect = socket.connect(address);
        tokio::time::timeout(Duration::from_secs(10), connect)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

/// A non-blocking TCP socket of this thread's network namespace.
fn tokio_socket() -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Runs `command` with `input`; what it says on stderr becomes the error.
pub(crate) fn feed_command(mut command: Command, input: &str) -> io::Result<()> {
    use std::io::Write;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // An early exit shows in its status; what it said matters more than the broken pipe.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "{}: {}",
        output.status,
        text.trim()
    )))
}

/// Runs `job` on a thread of its own inside the network namespace `namespace`.
pub async fn in_network<T, F>(namespace: &File, job: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> io::Result<T> + Send + 'static,
{
    let namespace = namespace.try_clone()?;
    let (done, result) = oneshot::channel();
    std::thread::Builder::new()
        .name("pod-network".into())
        .spawn(move || {
            let entered = setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
            let _ = done.send(entered.and_then(|()| job()));
        })?;
    result
        .await
        .map_err(|_| io::Error::other("the thread in the pod's namespace ended"))?
}

/// The same for callers without a runtime (the command line).
pub fn in_network_of<T, F>(pid: u32, job: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> io::Result<T> + Send + 'static,
{
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    let thread = std::thread::spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
        job()
    });
    thread
        .join()
        .map_err(|_| io::Error::other("the thread in the pod's namespace ended"))?
}
