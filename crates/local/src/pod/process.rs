//! The supervisor's end of a pod's first process: starting it, giving orders, hearing events.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use daemon::tasks::{self, Task};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixStream, unix::OwnedWriteHalf};
use tokio::sync::{mpsc, watch};

use crate::error::LocalError;
use crate::init::protocol::{Container, Event, Exit, Order, Setup};
use crate::network;
use crate::node::Node;

/// What a new pod may take until its namespaces and mounts stand.
const SETUP_LIMIT: Duration = Duration::from_secs(30);
/// Orders and events under way at once.
const QUEUE: usize = 64;

/// What a container's process is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessState {
    Starting,
    Running,
    Exited(Exit),
}

/// A pod's namespaces and processes. Dropping it kills them all.
#[derive(Debug)]
pub struct PodProcess {
    pid: u32,
    network: File,
    orders: mpsc::Sender<Order>,
    containers: Arc<Mutex<BTreeMap<String, watch::Sender<ProcessState>>>>,
    ended: watch::Receiver<bool>,
    probes: AtomicU64,
    _tasks: Vec<Task<()>>,
}

impl PodProcess {
    /// Starts the first process, links the pod to the node and lets it build its view.
    pub async fn start(node: &Node, program: &Path, setup: Setup) -> Result<Self, LocalError> {
        let (ours, theirs) = StdStream::pair()
            .and_then(|(ours, theirs)| ours.set_nonblocking(true).map(|()| (ours, theirs)))
            .map_err(|error| LocalError::system("make a socket pair", error))?;
        let errors = File::options()
            .create(true)
            .append(true)
            .open(setup.logs.join("pod.log"))
            .map_err(|error| LocalError::system("open the pod's log", error))?;
        let mut command = Command::new(program);
        command
            .arg("_pod")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::from(errors));
        let mut child = node.spawn_pod(command).await?;
        let pid = child.id();
        let (ended_sender, ended) = watch::channel(false);
        // Waiting blocks; the thread ends with the pod.
        tokio::task::spawn_blocking(move || {
            let _ = child.wait();
            ended_sender.send_replace(true);
        });
        let killer = Killer(pid);
        let socket = UnixStream::from_std(ours)
            .map_err(|error| LocalError::system("use the pod's socket", error))?;
        let (reader, writer) = socket.into_split();
        let mut events = BufReader::new(reader).lines();
        let (orders, queue) = mpsc::channel(QUEUE);
        let writing = tasks::spawn("pod-orders", write_orders(writer, queue));
        let ready = async {
            expect(&mut events, &Event::Created).await?;
            network::link_pod(node, setup.ip, pid).await?;
            let _ = orders.send(Order::Setup(Box::new(setup))).await;
            expect(&mut events, &Event::Ready).await
        };
        tokio::time::timeout(SETUP_LIMIT, ready)
            .await
            .map_err(|_| LocalError::failed("its namespaces were not ready in 30s"))??;
        let network = File::open(format!("/proc/{pid}/ns/net"))
            .map_err(|error| LocalError::system("open the pod's network namespace", error))?;
        let containers = Arc::default();
        let reading = tasks::spawn("pod-events", read_events(events, Arc::clone(&containers)));
        std::mem::forget(killer); // from here on, dropping the PodProcess does this
        let probes = AtomicU64::new(0);
        let _tasks = vec![writing, reading];
        Ok(PodProcess {
            pid,
            network,
            orders,
            containers,
            ended,
            probes,
            _tasks,
        })
    }

    /// The first process's id on the host.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The pod's network namespace.
    pub fn network(&self) -> &File {
        &self.network
    }

    /// Starts a container; its state follows in the returned watch.
    pub async fn run(&self, container: Container) -> watch::Receiver<ProcessState> {
        let (sender, receiver) = watch::channel(ProcessState::Starting);
        self.lock().insert(container.name.clone(), sender);
        if self
            .orders
            .send(Order::Start(Box::new(container)))
            .await
            .is_err()
        {
            self.lock().clear();
        }
        receiver
    }

    /// Runs a container under a name of its own (several probes may run at once), to its end.
    pub async fn run_once(&self, mut container: Container) -> Exit {
        let number = self.probes.fetch_add(1, Ordering::Relaxed);
        container.name = format!("{}-{number}", container.name);
        let name = container.name.clone();
        let mut state = self.run(container).await;
        let exit = crate::pod::container::exited(&mut state).await;
        self.lock().remove(&name);
        exit
    }

    /// SIGTERM, then SIGKILL after `grace`; returns when the container's process is gone.
    pub async fn end(&self, container: &str, grace: Duration) {
        let state = self.lock().get(container).map(watch::Sender::subscribe);
        if let Some(mut state) = state {
            crate::pod::container::end(self, container, &mut state, grace).await;
        }
    }

    pub async fn signal(&self, container: &str, signal: Signal) {
        let order = Order::Signal {
            container: container.to_owned(),
            signal: signal as i32,
        };
        let _ = self.orders.send(order).await;
    }

    /// Returns once the first process, and with it every other one, is gone.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Kills all and waits until nothing is left.
    pub async fn destroy(self) {
        let mut ended = self.ended.clone();
        drop(self);
        let _ = ended.wait_for(|ended| *ended).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, watch::Sender<ProcessState>>> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PodProcess {
    fn drop(&mut self) {
        if !*self.ended.borrow() {
            drop(Killer(self.pid));
        }
    }
}

/// Kills the pid namespace by its first process, which is not reaped before `ended` says so.
struct Killer(u32);

impl Drop for Killer {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.0) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

type Events = tokio::io::Lines<BufReader<OwnedReadHalf>>;

async fn next_event(events: &mut Events) -> Option<Event> {
    let line = events.next_line().await.ok().flatten()?;
    serde_json::from_str(&line).ok()
}

async fn expect(events: &mut Events, wanted: &Event) -> Result<(), LocalError> {
    match next_event(events).await {
        Some(event) if event == *wanted => Ok(()),
        Some(Event::Failed { message }) => Err(LocalError::failed(message)),
        Some(other) => Err(LocalError::failed(format!("BUG: pod said {other:?}"))),
        None => Err(LocalError::failed(
            "its first process ended at its start (see pod.log)",
        )),
    }
}

async fn write_orders(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Order>) {
    while let Some(order) = queue.recv().await {
        let mut line = serde_json::to_vec(&order).unwrap_or_default();
        line.push(b'\n');
        if writer.write_all(&line).await.is_err() {
            return;
        }
    }
}

async fn read_events(
    mut events: Events,
    containers: Arc<Mutex<BTreeMap<String, watch::Sender<ProcessState>>>>,
) {
    while let Some(event) = next_event(&mut events).await {
        let (name, state) = match event {
            Event::Started { container, .. } => (container, ProcessState::Running),
            Event::Exited { container, exit } => (container, ProcessState::Exited(exit)),
            _ => continue,
        };
        let containers = containers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = containers.get(&name) {
            sender.send_replace(state);
        }
    }
    // The pod is gone: whoever waits for a container must learn of it.
    let containers = containers.lock().unwrap_or_else(PoisonError::into_inner);
    for sender in containers.values() {
        if !matches!(*sender.borrow(), ProcessState::Exited(_)) {
            sender.send_replace(ProcessState::Exited(Exit::Signal(Signal::SIGKILL as i32)));
        }
    }
}
