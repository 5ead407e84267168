//! Counters, gauges and histograms under Envoy's names. Every worker adds to memory of its own;
//! a scrape sums. Nothing on the request path takes a lock or looks a name up.

use std::any::{Any, TypeId};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

pub mod histogram;
pub mod istio;
pub mod prometheus;
pub mod rbac;
pub mod record;
mod snapshot;
pub mod tables;
pub mod tags;

pub use histogram::{Histogram, Recorded};
pub use snapshot::{Family, Sample, Snapshot, Value};
pub use tags::StatsConfig;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A fixed set of statistics that live and die together.
pub trait StatSet: Copy + Send + Sync + 'static {
    const TABLE: &'static [(&'static str, Kind)];
    fn index(self) -> usize;
}

thread_local! {
    static WORKER: Cell<usize> = const { Cell::new(0) };
}

/// Says which worker this thread is; the main thread shares slot 0.
pub fn set_worker(index: usize) {
    WORKER.set(index);
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Slots beyond this are shared.
const MAX_WORKERS: usize = 64;

/// All statistics of one proxy.
#[derive(Debug)]
pub struct Stats {
    workers: usize,
    /// By type and prefix. Weak: a set goes with the last configuration that counts in it.
    groups: Mutex<BTreeMap<(TypeId, String), Weak<dyn Readable>>>,
    istio: OnceLock<Arc<istio::SeriesStore>>,
    /// Statistics with names made at run time, by name.
    singles: Mutex<BTreeMap<String, Arc<Single>>>,
    config: OnceLock<StatsConfig>,
}

/// One statistic with a name made at run time; for rare events.
#[derive(Debug)]
pub struct Single {
    kind: Kind,
    value: AtomicU64,
}

impl Single {
    pub fn add(&self, count: u64) {
        self.value.fetch_add(count, Ordering::Relaxed);
    }

    pub fn sub(&self, count: u64) {
        self.value.fetch_sub(count, Ordering::Relaxed);
    }

    pub fn set(&self, value: u64) {
        self.value.store(value, Ordering::Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

impl Default for Stats {
    fn default() -> Self {
        Stats::new(1)
    }
}

/// What a scrape reads.
pub(crate) trait Readable: Send + Sync + std::fmt::Debug {
    fn any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
    fn read(&self, snapshot: &mut Snapshot);
    fn reset_counters(&self);
}

impl Stats {
    pub fn new(workers: usize) -> Stats {
        Stats {
            workers: workers.clamp(1, MAX_WORKERS),
            groups: Mutex::default(),
            istio: OnceLock::new(),
            singles: Mutex::default(),
            config: OnceLock::new(),
        }
    }

    /// Tags, inclusion list and buckets; only the first call counts.
    pub fn configure(&self, config: StatsConfig) {
        let _ = self.config.set(config);
    }

    pub fn config(&self) -> &StatsConfig {
        self.config.get_or_init(StatsConfig::default)
    }

    /// The set under `prefix` (with its dot): the one that is there, so that values outlive a
    /// change of configuration, else a new one. It is listed until the last `Arc` is gone.
    pub fn group<S: StatSet + std::fmt::Debug>(&self, prefix: &str) -> Arc<Group<S>> {
        let key = (TypeId::of::<S>(), prefix.to_owned());
        let mut groups = locked(&self.groups);
        let known = groups.get(&key).and_then(Weak::upgrade);
        if let Some(group) = known.and_then(|group| group.any().downcast::<Group<S>>().ok()) {
            return group;
        }
        let group = Arc::new(Group::new(prefix, self.workers));
        let listed: Arc<dyn Readable> = group.clone();
        groups.insert(key, Arc::downgrade(&listed));
        group
    }

    /// Where `istio.stats` filters keep their series: longer than any configuration.
    pub(crate) fn istio(&self) -> Arc<istio::SeriesStore> {
        self.istio
            .get_or_init(|| Arc::new(istio::SeriesStore::new(self.workers)))
            .clone()
    }

    /// The sets that are alive; the dead are forgotten.
    fn members(&self) -> Vec<Arc<dyn Readable>> {
        let mut groups = locked(&self.groups);
        groups.retain(|_, group| group.strong_count() > 0);
        let istio = self.istio.get().cloned();
        groups
            .values()
            .filter_map(Weak::upgrade)
            .chain(istio.map(|store| store as Arc<dyn Readable>))
            .collect()
    }

    pub fn counter(&self, name: &str) -> Arc<Single> {
        self.single(name, Kind::Counter)
    }

    pub fn gauge(&self, name: &str) -> Arc<Single> {
        self.single(name, Kind::Gauge)
    }

    fn single(&self, name: &str, kind: Kind) -> Arc<Single> {
        let mut singles = locked(&self.singles);
        if let Some(single) = singles.get(name) {
            return single.clone();
        }
        let single = Arc::new(Single {
            kind,
            value: AtomicU64::new(0),
        });
        singles.insert(name.to_owned(), single.clone());
        single
    }

    /// All values now, filtered by the inclusion list.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (name, single) in locked(&self.singles).iter() {
            snapshot.add(name, single.kind, single.value());
        }
        for member in self.members() {
            member.read(&mut snapshot);
        }
        snapshot.retain(self.config());
        snapshot
    }

    pub fn reset_counters(&self) {
        for single in locked(&self.singles).values() {
            if single.kind == Kind::Counter {
                single.set(0);
            }
        }
        self.members()
            .iter()
            .for_each(|member| member.reset_counters());
    }

    pub fn workers(&self) -> usize {
        self.workers
    }
}

/// Values of a `StatSet`, one row per worker.
#[derive(Debug)]
pub struct Group<S> {
    prefix: Box<str>,
    rows: Box<[Box<[AtomicU64]>]>,
    histograms: Box<[OnceLock<Histogram>]>,
    set: std::marker::PhantomData<S>,
}

impl<S: StatSet> Group<S> {
    fn new(prefix: &str, workers: usize) -> Group<S> {
        let row = || S::TABLE.iter().map(|_| AtomicU64::new(0)).collect();
        let histograms = S::TABLE
            .iter()
            .filter(|(_, kind)| *kind == Kind::Histogram)
            .count();
        Group {
            prefix: prefix.into(),
            rows: (0..workers).map(|_| row()).collect(),
            histograms: (0..histograms).map(|_| OnceLock::new()).collect(),
            set: std::marker::PhantomData,
        }
    }

    fn cell(&self, stat: S) -> &AtomicU64 {
        &self.rows[WORKER.get() % self.rows.len()][stat.index()]
    }

    pub fn inc(&self, stat: S) {
        self.add(stat, 1);
    }

    pub fn add(&self, stat: S, count: u64) {
        self.cell(stat).fetch_add(count, Ordering::Relaxed);
    }

    /// For gauges; rows may go below zero, their sum does not.
    pub fn dec(&self, stat: S) {
        self.cell(stat).fetch_sub(1, Ordering::Relaxed);
    }

    pub fn sub(&self, stat: S, count: u64) {
        self.cell(stat).fetch_sub(count, Ordering::Relaxed);
    }

    /// For gauges that one thread owns.
    pub fn set(&self, stat: S, value: u64) {
        for row in &self.rows {
            row[stat.index()].store(0, Ordering::Relaxed);
        }
        self.rows[0][stat.index()].store(value, Ordering::Relaxed);
    }

    pub fn record(&self, stat: S, value: u64) {
        let before = &S::TABLE[..stat.index()];
        let position = before
            .iter()
            .filter(|(_, kind)| *kind == Kind::Histogram)
            .count();
        if let Some(cell) = self.histograms.get(position) {
            cell.get_or_init(|| Histogram::new(self.rows.len()))
                .record(WORKER.get(), value);
        }
    }

    pub fn value(&self, stat: S) -> u64 {
        self.sum(stat.index())
    }

    fn sum(&self, index: usize) -> u64 {
        let cells = self
            .rows
            .iter()
            .map(|row| row[index].load(Ordering::Relaxed));
        cells.fold(0, u64::wrapping_add)
    }
}

impl<S: StatSet + std::fmt::Debug> Readable for Group<S> {
    fn any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }

    fn read(&self, snapshot: &mut Snapshot) {
        let mut name = String::with_capacity(self.prefix.len() + 32);
        let mut position = 0;
        for (index, (stat, kind)) in S::TABLE.iter().enumerate() {
            name.clear();
            name.push_str(&self.prefix);
            name.push_str(stat);
            if *kind == Kind::Histogram {
                snapshot.histogram(&name, self.histograms[position].get());
                position += 1;
            } else {
                snapshot.add(&name, *kind, self.sum(index));
            }
        }
    }

    fn reset_counters(&self) {
        for (index, (_, kind)) in S::TABLE.iter().enumerate() {
            if *kind == Kind::Counter {
                self.rows
                    .iter()
                    .for_each(|row| row[index].store(0, Ordering::Relaxed));
            }
        }
    }
}

pub(crate) fn compat_rows() -> Vec<crate::parse::compat::MessageSupport> {
    tags::compat_rows()
}
