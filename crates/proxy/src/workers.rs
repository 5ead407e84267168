//! Workers: threads with a runtime each. They share nothing on the request path but snapshots and
//! atomics; the main thread tells them what is in force and they confirm it.
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::cluster::shared::Endpoints;
use crate::cluster::{Cluster, ClusterEntry, ConnectionIds, pool};
use crate::listener::{ActiveChain, ActiveListener, DrainSignal, ListenerEntry};
use crate::parse::Environment;
use crate::parse::address::Address;
use crate::route::RouteTable;

/// Commands that wait for a worker; the main thread waits when it is full.
const QUEUED_COMMANDS: usize = 256;

/// What the main thread tells a worker.
#[derive(Debug)]
pub enum Command {
    Cluster(Arc<ClusterEntry>),
    ClusterRemoved(Arc<str>),
    Endpoints(Arc<str>, Arc<Endpoints>),
    Routes(Arc<str>, Arc<RouteTable>),
    /// Sockets come with a listener that binds and has none yet.
    Listener(Arc<ListenerEntry>, Vec<std::net::TcpListener>),
    ListenerRemoved(Arc<str>),
    /// Stop accepting (when told so) and ask all connections to finish.
    Drain {
        stop_listening: bool,
        inbound_only: bool,
    },
    /// All commands before this one are in force.
    Confirm(oneshot::Sender<()>),
    /// How many streams and TCP connections are in flight.
    Busy(oneshot::Sender<u64>),
    /// Close what is left and end.
    Stop,
}

/// What workers are made with.
#[derive(Clone)]
pub struct WorkerSettings {
    pub workers: usize,
    pub drain_time: Duration,
    pub environment: Environment,
    /// Of the whole process; `None` = no limit.
    pub max_connections: Option<u64>,
    pub connections: Arc<AtomicU64>,
}

/// The main thread's end of a worker.
pub struct WorkerHandle {
    pub commands: mpsc::Sender<Command>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl WorkerHandle {
    /// Waits for the thread, after `Command::Stop`.
    pub fn join(mut self) {
        drop(self.commands);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a worker ended with a panic");
        }
    }
}

/// Starts worker number `index`.
pub fn start(index: usize, settings: WorkerSettings) -> io::Result<WorkerHandle> {
    let (commands, receiver) = mpsc::channel(QUEUED_COMMANDS);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let thread = std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            crate::stats::set_worker(index);
            let local = tokio::task::LocalSet::new();
            let worker = Worker::new(index, settings);
            local.block_on(&runtime, worker.run(receiver));
        })?;
    Ok(WorkerHandle {
        commands,
        thread: Some(thread),
    })
}

/// A table as this worker's streams share it: its own count, not the process's.
#[derive(Debug)]
pub struct WorkerTable(Arc<RouteTable>);

impl WorkerTable {
    pub fn new(table: Arc<RouteTable>) -> Rc<WorkerTable> {
        Rc::new(WorkerTable(table))
    }
}

impl std::ops::Deref for WorkerTable {
    type Target = RouteTable;

    fn deref(&self) -> &RouteTable {
        &self.0
    }
}

/// A route table that RDS may replace; streams keep the one they began with.
#[derive(Debug, Default)]
pub struct RouteSlot(RefCell<Option<Rc<WorkerTable>>>);

impl RouteSlot {
    pub fn table(&self) -> Option<Rc<WorkerTable>> {
        self.0.borrow().clone()
    }
}

/// One worker's world.
pub struct Worker {
    pub index: usize,
    pub settings: WorkerSettings,
    pub ids: Rc<ConnectionIds>,
    /// The whole process drains.
    pub drain: DrainSignal,
    streams: Cell<u64>,
    clusters: RefCell<HashMap<Arc<str>, Rc<Cluster>>>,
    routes: RefCell<HashMap<Arc<str>, Rc<RouteSlot>>>,
    listeners: RefCell<BTreeMap<Arc<str>, Rc<ActiveListener>>>,
    by_address: RefCell<HashMap<SocketAddr, Arc<str>>>,
    acceptors: RefCell<HashMap<Arc<str>, Vec<tokio::task::AbortHandle>>>,
    draining: RefCell<Vec<Rc<ActiveChain>>>,
    /// Replaced chains whose connections moved on to a successor's settings.
    superseded: RefCell<Vec<Rc<ActiveChain>>>,
    random: Cell<u64>,
    date: RefCell<(u64, Vec<u8>)>,
}

impl Worker {
    fn new(index: usize, settings: WorkerSettings) -> Rc<Worker> {
        let mut seed = [0u8; 8];
        // Without entropy the time will do: nothing secret is made from this.
        if aws_lc_rs::rand::fill(&mut seed).is_err() {
            seed = Instant::now().elapsed().as_nanos().to_le_bytes()[..8]
                .try_into()
                .unwrap_or([1; 8]);
        }
        Rc::new(Worker {
            index,
            ids: Rc::new(ConnectionIds::new(index, settings.workers)),
            settings,
            drain: DrainSignal::default(),
            streams: Cell::new(0),
            clusters: RefCell::new(HashMap::new()),
            routes: RefCell::new(HashMap::new()),
            listeners: RefCell::new(BTreeMap::new()),
            by_address: RefCell::new(HashMap::new()),
            acceptors: RefCell::new(HashMap::new()),
            draining: RefCell::new(Vec::new()),
            superseded: RefCell::new(Vec::new()),
            random: Cell::new(u64::from_le_bytes(seed) | 1),
            date: RefCell::new((0, Vec::new())),
        })
    }

    pub fn cluster(&self, name: &str) -> Option<Rc<Cluster>> {
        self.clusters.borrow().get(name).cloned()
    }

    /// The slot of an RDS route table; empty until the table arrives.
    pub fn route_slot(&self, name: &Arc<str>) -> Rc<RouteSlot> {
        if let Some(slot) = self.routes.borrow().get(name) {
            return slot.clone();
        }
        self.routes
            .borrow_mut()
            .entry(name.clone())
            .or_default()
            .clone()
    }

    /// The listener of that name as it is now; `None`: it was removed.
    pub fn listener(&self, name: &str) -> Option<Rc<ActiveListener>> {
        self.listeners.borrow().get(name).cloned()
    }

    /// The listener for a restored destination: its address, else the wildcard of its port.
    pub fn listener_for(&self, destination: SocketAddr) -> Option<Rc<ActiveListener>> {
        let any: IpAddr = match destination {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let by_address = self.by_address.borrow();
        let name = by_address
            .get(&destination)
            .or_else(|| by_address.get(&SocketAddr::new(any, destination.port())))?;
        self.listeners.borrow().get(name).cloned()
    }

    /// A random number (xorshift64*), good for balancing and request ids.
    pub fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// The `Date` header's value, made once a second.
    pub fn with_date<T>(&self, use_it: impl FnOnce(&[u8]) -> T) -> T {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let mut date = self.date.borrow_mut();
        if date.0 != now {
            *date = (now, http_date(now).into_bytes());
        }
        use_it(&date.1)
    }

    async fn run(self: Rc<Worker>, mut commands: mpsc::Receiver<Command>) {
        let mut sweep = tokio::time::interval(pool::SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    None | Some(Command::Stop) => return,
                    Some(command) => self.obey(command),
                },
                now = sweep.tick() => {
                    for cluster in self.clusters.borrow().values() {
                        cluster.sweep(now.into_std());
                        if self.index == 0 {
                            cluster.judge(now.into_std(), self.random());
                        }
                    }
                    self.draining.borrow_mut().retain(|chain| chain.connections.get() > 0);
                    self.superseded.borrow_mut().retain(|chain| chain.connections.get() > 0);
                }
            }
        }
    }

    fn obey(self: &Rc<Worker>, command: Command) {
        match command {
            Command::Cluster(entry) => self.set_cluster(entry),
            Command::ClusterRemoved(name) => {
                if let Some(cluster) = self.clusters.borrow_mut().remove(&name) {
                    cluster.retire();
                }
            }
            Command::Endpoints(name, endpoints) => {
                if let Some(cluster) = self.cluster(&name) {
                    cluster.set_endpoints(endpoints, self.random());
                }
            }
            Command::Routes(name, table) => {
                *self.route_slot(&name).0.borrow_mut() = Some(WorkerTable::new(table));
            }
            Command::Listener(entry, sockets) => self.set_listener(entry, sockets),
            Command::ListenerRemoved(name) => self.remove_listener(&name),
            Command::Drain {
                stop_listening,
                inbound_only,
            } => {
                self.start_drain(stop_listening, inbound_only);
            }
            Command::Confirm(done) => {
                let _ = done.send(());
            }
            Command::Busy(answer) => {
                let _ = answer.send(self.busy());
            }
            Command::Stop => {}
        }
    }

    fn set_cluster(&self, entry: Arc<ClusterEntry>) {
        let name = entry.config.name.clone();
        let cluster = Cluster::new(entry, self.ids.clone());
        if let Some(old) = self.clusters.borrow_mut().insert(name, cluster.clone()) {
            cluster.set_endpoints(old.endpoints(), self.random());
            old.retire();
        }
    }

    fn set_listener(
        self: &Rc<Worker>,
        entry: Arc<ListenerEntry>,
        sockets: Vec<std::net::TcpListener>,
    ) {
        let name = entry.config.name.clone();
        let previous = self.listeners.borrow().get(&name).cloned();
        let (listener, replaced) = ActiveListener::new(entry.clone(), previous.as_deref());
        self.listeners.borrow_mut().insert(name.clone(), listener);
        self.by_address
            .borrow_mut()
            .retain(|_, owner| *owner != name);
        for address in entry.config.addresses.iter().filter_map(Address::socket) {
            self.by_address.borrow_mut().insert(address, name.clone());
        }
        for socket in sockets {
            match tokio::net::TcpListener::from_std(socket) {
                Ok(socket) => self.accept_on(name.clone(), socket),
                Err(error) => tracing::error!(listener = %name, %error, "cannot listen"),
            }
        }
        // New streams of their connections use the successor: nothing has to close.
        let (moved_on, ended): (Vec<_>, Vec<_>) = replaced
            .into_iter()
            .partition(|chain| chain.has_successor());
        self.superseded.borrow_mut().extend(moved_on);
        self.drain_chains(ended);
    }

    fn accept_on(self: &Rc<Worker>, name: Arc<str>, socket: tokio::net::TcpListener) {
        if let Ok(address) = socket.local_addr() {
            self.by_address.borrow_mut().insert(address, name.clone());
        }
        let (worker, owner) = (self.clone(), name.clone());
        let task = tokio::task::spawn_local(async move {
            loop {
                match socket.accept().await {
                    Ok((stream, remote)) => {
                        let Some(listener) = worker.listener(&owner) else {
                            return;
                        };
                        let exempt = listener.entry.config.ignore_global_connection_limit;
                        let Some(count) = worker.admit(exempt) else {
                            continue;
                        };
                        let worker = worker.clone();
                        tokio::task::spawn_local(async move {
                            crate::listener::serve(worker, listener, stream, remote).await;
                            drop(count);
                        });
                    }
                    Err(error) => {
                        // Out of descriptors: give connections time to end.
                        tracing::warn!(listener = %owner, %error, "cannot accept");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            }
        });
        self.acceptors
            .borrow_mut()
            .entry(name)
            .or_default()
            .push(task.abort_handle());
    }

    /// A place among the process's connections; `None` when all are taken.
    fn admit(&self, exempt: bool) -> Option<GlobalCount> {
        let open = &self.settings.connections;
        let before = open.fetch_add(1, Ordering::Relaxed);
        let count = GlobalCount(open.clone());
        let full = self
            .settings
            .max_connections
            .is_some_and(|most| before >= most);
        (!full || exempt).then_some(count)
    }

    fn stop_accepting(&self, name: &str) {
        for task in self
            .acceptors
            .borrow_mut()
            .remove(name)
            .into_iter()
            .flatten()
        {
            task.abort();
        }
    }

    fn remove_listener(self: &Rc<Worker>, name: &str) {
        self.stop_accepting(name);
        self.by_address
            .borrow_mut()
            .retain(|_, owner| &**owner != name);
        if let Some(listener) = self.listeners.borrow_mut().remove(name) {
            let chains = listener.all();
            chains.iter().for_each(|chain| chain.retire());
            self.drain_chains(chains);
        }
    }

    /// Asks connections to finish and closes those that have not when the drain time is over.
    fn drain_chains(self: &Rc<Worker>, chains: Vec<Rc<ActiveChain>>) {
        let ends = |one: &Rc<ActiveChain>| chains.iter().any(|end| Rc::ptr_eq(end, one));
        let old: Vec<_> = self
            .superseded
            .borrow()
            .iter()
            .filter(|one| ends(&one.latest()))
            .cloned()
            .collect();
        let all = chains.iter().chain(&old).cloned();
        let busy: Vec<_> = all.filter(|one| one.connections.get() > 0).collect();
        if busy.is_empty() {
            return;
        }
        for chain in &busy {
            chain.drain.drain();
        }
        self.draining.borrow_mut().extend(busy.iter().cloned());
        let limit = self.settings.drain_time;
        tokio::task::spawn_local(async move {
            tokio::time::sleep(limit).await;
            for chain in busy {
                chain.drain.close();
            }
        });
    }

    fn start_drain(self: &Rc<Worker>, stop_listening: bool, inbound_only: bool) {
        use crate::parse::listener::Direction;
        let listeners: Vec<_> = self.listeners.borrow().values().cloned().collect();
        for listener in listeners {
            let config = &listener.entry.config;
            if inbound_only && config.direction != Direction::Inbound {
                continue;
            }
            if stop_listening {
                self.stop_accepting(&config.name);
            }
            self.drain_chains(listener.all());
            for chain in listener.all() {
                chain.drain.drain();
            }
        }
        if !inbound_only {
            self.drain.drain();
        }
    }

    /// Streams and TCP connections in flight.
    fn busy(&self) -> u64 {
        self.streams.get()
    }
}

/// Counts a connection of the process while it lives.
struct GlobalCount(Arc<AtomicU64>);

impl Drop for GlobalCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a stream or TCP connection while it lives.
pub struct StreamCount(Rc<Worker>);

impl StreamCount {
    pub fn new(worker: Rc<Worker>) -> StreamCount {
        worker.streams.set(worker.streams.get() + 1);
        StreamCount(worker)
    }
}

impl Drop for StreamCount {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
    }
}

/// IMF-fixdate of a time in seconds since 1970.
fn http_date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let timestamp = jiff::Timestamp::from_second(seconds as i64).unwrap_or_default();
    let date = timestamp.to_zoned(jiff::tz::TimeZone::UTC);
    let day = DAYS[(seconds / 86_400 % 7) as usize];
    format!("{day}, {}", date.strftime("%d %b %Y %H:%M:%S GMT"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates_are_imf_fixdates() {
        assert_eq!(
            super::http_date(784_111_777),
            "Sun, 06 Nov 1994 08:49:37 GMT"
        );
    }
}
