//! Who is connected and how far each has come: written by the streams, read by `wait`, status
//! and debug.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use envoy_api::ResourceType;
use envoy_api::core::Node;
use jiff::Timestamp;
use pilot::ProxyView;
use tokio::sync::watch;
use xds::server::Stream;

/// A connected proxy.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Unique among connections: the node's id and a number.
    pub connection: String,
    /// `NAME.NAMESPACE`, as tools show it.
    pub id: String,
    /// The node as it announced itself, without the list of extensions.
    pub node: Arc<Node>,
    /// What is translated for it.
    pub view: Arc<ProxyView>,
    /// Where it connects from.
    pub address: SocketAddr,
    /// Since when.
    pub connected_at: Timestamp,
    /// The newest generation of which it has acknowledged everything.
    pub synced: u64,
    /// Nothing is on its way to it.
    pub is_idle: bool,
    /// By type: the newest generation sent, and acknowledged.
    pub types: BTreeMap<ResourceType, (u64, u64)>,
    /// What it refuses now.
    pub rejections: Vec<Rejected>,
}

/// A resource that a proxy refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The resource's type.
    pub kind: ResourceType,
    /// The resource.
    pub name: String,
    /// The generation that brought it.
    pub generation: u64,
    /// The proxy's text.
    pub message: String,
}

/// All connected proxies. Clones are the same table.
#[derive(Clone)]
pub struct Proxies {
    inner: Arc<Inner>,
}

struct Inner {
    table: Mutex<Table>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Table {
    next: u64,
    proxies: BTreeMap<u64, Proxy>,
}

/// A proxy's place in the table, given up when dropped.
pub(crate) struct Connected {
    proxies: Proxies,
    number: u64,
}

impl Proxies {
    pub(crate) fn new() -> Proxies {
        let (changed, _) = watch::channel(0);
        Proxies {
            inner: Arc::new(Inner {
                table: Mutex::default(),
                changed,
            }),
        }
    }

    /// All of them, by time of connection.
    pub fn list(&self) -> Vec<Proxy> {
        self.table().proxies.values().cloned().collect()
    }

    /// Wakes at every change of the table.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    pub(crate) fn connect(
        &self,
        node: &Arc<Node>,
        view: &Arc<ProxyView>,
        address: SocketAddr,
        now: Timestamp,
    ) -> Connected {
        let mut table = self.table();
        table.next += 1;
        let number = table.next;
        let proxy = Proxy {
            connection: format!("{}-{number}", node.id),
            id: format!("{}.{}", view.name, view.namespace),
            node: node.clone(),
            view: view.clone(),
            address,
            connected_at: now,
            synced: 0,
            is_idle: false,
            types: BTreeMap::new(),
            rejections: Vec::new(),
        };
        table.proxies.insert(number, proxy);
        drop(table);
        self.notify();
        Connected {
            proxies: self.clone(),
            number,
        }
    }

    /// How far a proxy had come at its last update.
    pub(crate) fn synced(&self, connected: &Connected) -> u64 {
        self.table()
            .proxies
            .get(&connected.number)
            .map_or(0, |proxy| proxy.synced)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.inner
            .table
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        self.inner.changed.send_modify(|count| *count += 1);
    }
}

impl Connected {
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Takes over what the stream knows.
    pub fn update(&self, stream: &Stream, view: &Arc<ProxyView>) {
        let types = stream
            .kinds()
            .filter_map(|kind| Some((kind, stream.progress(kind)?)));
        let types: BTreeMap<_, _> = types.collect();
        let rejections: Vec<Rejected> = stream
            .rejections()
            .map(|(kind, name, rejection)| Rejected {
                kind,
                name: name.to_owned(),
                generation: rejection.generation,
                message: rejection.message.clone(),
            })
            .collect();
        let mut table = self.proxies.table();
        if let Some(proxy) = table.proxies.get_mut(&self.number) {
            proxy.synced = stream.synced();
            proxy.is_idle = stream.is_idle();
            proxy.types = types;
            proxy.rejections = rejections;
            proxy.view = view.clone();
        }
        drop(table);
        self.proxies.notify();
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.proxies.table().proxies.remove(&self.number);
        self.proxies.notify();
    }
}
