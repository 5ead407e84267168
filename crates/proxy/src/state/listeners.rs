//! Listeners on the main thread: entries, sockets for each worker, going into force, removal.
use std::net::SocketAddr;
use std::sync::Arc;

use envoy_api::listener as wire;
use prost::Message;

use super::apply::{only_ads, refuse_secret_sources};
use super::{Notice, Raw, State, Warming};
use crate::listener::{ChainEntry, ListenerEntry};
use crate::parse;
use crate::parse::address::Address;
use crate::parse::http_connection_manager::RouteSource;
use crate::parse::listener::{FilterChain, Listener};
use crate::parse::network_filter::Terminal;
use crate::tls::{ServerContext, TlsError};
use crate::workers::Command;

/// The TLS contexts of a listener's chains.
pub fn contexts(entry: &ListenerEntry) -> impl Iterator<Item = &Arc<ServerContext>> {
    entry
        .chains
        .iter()
        .chain(&entry.default_chain)
        .filter_map(|chain| chain.tls.as_ref())
}

impl State {
    /// A listener of LDS, or of the bootstrap.
    pub fn add_listener(&mut self, message: &wire::Listener, raw: Raw) -> Result<(), String> {
        let parsed = parse::listener::listener(message, &self.environment)
            .map_err(|error| error.to_string())?;
        let name = parsed.name.clone();
        let state = self.listeners.entry(name.clone()).or_default();
        let same = match (&state.warming, &state.active) {
            (Some(warming), _) => warming.raw.body == raw.body,
            (None, Some((_, active))) => active.body == raw.body,
            (None, None) => false,
        };
        if same {
            return Ok(());
        }
        let result = self.listener_entry(message, Arc::new(parsed));
        let entry = match result {
            Ok(entry) => Arc::new(entry),
            Err(problem) => {
                self.listeners
                    .retain(|_, one| one.active.is_some() || one.warming.is_some());
                return Err(format!("listener '{name}': {problem}"));
            }
        };
        let since = tokio::time::Instant::now();
        if let Some(state) = self.listeners.get_mut(&name) {
            state.warming = Some(Warming {
                entry,
                raw,
                since,
                deadline: None,
            });
        }
        Ok(())
    }

    /// Chains equal to those in force are the same entries.
    fn listener_entry(
        &self,
        message: &wire::Listener,
        config: Arc<Listener>,
    ) -> Result<ListenerEntry, String> {
        let active = self
            .listeners
            .get(&config.name)
            .and_then(|state| state.active.as_ref());
        let old: Vec<Arc<ChainEntry>> = active
            .map(|(entry, _)| {
                entry
                    .chains
                    .iter()
                    .chain(&entry.default_chain)
                    .cloned()
                    .collect()
            })
            .unwrap_or_default();
        let outside = outside_hash(message);
        let chain = |wire: &wire::FilterChain, parsed: &Arc<FilterChain>| {
            let hash = hash(outside, &wire.encode_to_vec());
            if let Some(same) = old.iter().find(|one| one.hash == hash) {
                return Ok(same.clone());
            }
            self.chain_entry(outside, wire, parsed, hash)
        };
        let chains = message
            .filter_chains
            .iter()
            .zip(&config.filter_chains)
            .map(|(wire, parsed)| chain(wire, parsed))
            .collect::<Result<Vec<_>, String>>()?;
        let default_chain = match (&message.default_filter_chain, &config.default_filter_chain) {
            (Some(wire), Some(parsed)) => Some(chain(wire, parsed)?),
            _ => None,
        };
        Ok(ListenerEntry {
            config,
            chains,
            default_chain,
        })
    }

    fn chain_entry(
        &self,
        outside: u64,
        wire: &wire::FilterChain,
        parsed: &Arc<FilterChain>,
        hash_of_all: u64,
    ) -> Result<Arc<ChainEntry>, String> {
        if let Terminal::Http(http) = &parsed.terminal
            && let RouteSource::Rds { source, .. } = &http.routes
        {
            only_ads(source, "rds.config_source")?;
        }
        let tls = match &parsed.tls {
            None => None,
            Some(tls) => {
                refuse_secret_sources(&tls.context)?;
                let context = ServerContext::new(tls.clone());
                match context.refresh(&self.secrets) {
                    Ok(()) | Err(TlsError::Missing(_)) => {}
                    Err(error) => {
                        let chain = &parsed.name;
                        return Err(format!("filter chain '{chain}': transport_socket: {error}"));
                    }
                }
                Some(Arc::new(context))
            }
        };
        let transport = wire::FilterChain {
            filter_chain_match: wire.filter_chain_match.clone(),
            transport_socket: wire.transport_socket.clone(),
            ..wire::FilterChain::default()
        };
        let is_http = matches!(parsed.terminal, Terminal::Http(_));
        // Only HTTP streams can move on to a new chain; a TCP connection is one stream.
        let seed = if is_http {
            outside
        } else {
            outside ^ hash_of_all
        };
        Ok(Arc::new(ChainEntry {
            config: parsed.clone(),
            tls,
            hash: hash_of_all,
            transport_hash: hash(seed, &transport.encode_to_vec()),
        }))
    }

    /// Puts a warm listener into force on all workers.
    pub(super) async fn activate_listener(&mut self, name: &Arc<str>) {
        let Some(state) = self.listeners.get_mut(name) else {
            return;
        };
        let Some(warming) = state.warming.take() else {
            return;
        };
        let entry = warming.entry;
        let moved = state
            .active
            .as_ref()
            .is_some_and(|(old, _)| old.config.addresses != entry.config.addresses);
        let fresh = state.active.is_none() || moved;
        let sockets = if fresh && entry.config.bind_to_port {
            match bind(&entry.config, self.workers.len()) {
                Ok(sockets) => sockets,
                Err(error) => {
                    let addresses: Vec<String> = entry
                        .config
                        .addresses
                        .iter()
                        .map(Address::to_string)
                        .collect();
                    let addresses = addresses.join(", ");
                    tracing::error!(listener = %name, %error, addresses, "cannot listen");
                    self.bind_failures.push(format!(
                        "listener '{name}': cannot bind '{addresses}': {error}"
                    ));
                    if state.active.is_none() {
                        self.listeners.remove(name);
                    }
                    return;
                }
            }
        } else {
            (0..self.workers.len()).map(|_| Vec::new()).collect()
        };
        let bound: Vec<SocketAddr> = sockets
            .first()
            .map(|own| own.iter().filter_map(|one| one.local_addr().ok()).collect())
            .unwrap_or_default();
        if fresh {
            state.bound = bound.clone();
        }
        state.active = Some((entry.clone(), warming.raw));
        if moved {
            self.tell(|| Command::ListenerRemoved(name.clone())).await;
        }
        for (worker, own) in self.workers.iter().zip(sockets) {
            let _ = worker.send(Command::Listener(entry.clone(), own)).await;
        }
        self.confirmed().await;
        for address in bound {
            self.notice(Notice::Listening {
                name: name.clone(),
                address,
            });
        }
    }

    pub(super) async fn remove_listener(&mut self, name: &str) {
        let is_static = self
            .listeners
            .get(name)
            .and_then(|state| state.active.as_ref())
            .is_some_and(|(_, raw)| raw.is_static);
        if !is_static && let Some((name, _)) = self.listeners.remove_entry(name) {
            self.tell(|| Command::ListenerRemoved(name.clone())).await;
        }
    }
}

/// Sockets for each worker, all on the same ports.
fn bind(config: &Listener, workers: usize) -> std::io::Result<Vec<Vec<std::net::TcpListener>>> {
    let mut sockets: Vec<Vec<std::net::TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    for address in &config.addresses {
        let Address::Socket(mut address) = *address else {
            return Err(std::io::Error::other(
                "only IP addresses can be listened on",
            ));
        };
        for own in &mut sockets {
            let socket = crate::sys::listening_socket(address, config)?;
            // Port 0: the first socket chooses, the others share.
            address = socket.local_addr()?;
            own.push(socket);
        }
    }
    Ok(sockets)
}

/// Everything of a listener but its chains, its name and its version.
fn outside_hash(message: &wire::Listener) -> u64 {
    let mut outside = message.clone();
    outside.filter_chains.clear();
    outside.default_filter_chain = None;
    hash(0, &outside.encode_to_vec())
}

fn hash(seed: u64, bytes: &[u8]) -> u64 {
    xxhash_rust::xxh64::xxh64(bytes, seed)
}
