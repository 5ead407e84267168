//! What waits for what: clusters for endpoints and secrets, listeners for clusters, routes and
//! secrets. After each event everything that can go into force does.
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Notice, State, assignment_of, needs};
use crate::cluster::ClusterEntry;
use crate::listener::ListenerEntry;
use crate::parse::cluster::{Cluster, Discovery};
use crate::parse::http_connection_manager::RouteSource;
use crate::parse::network_filter::Terminal;
use crate::parse::tls::TlsContext;
use crate::workers::Command;

/// The longest that a cluster waits for what is missing; `None` = for ever.
fn cluster_timeout(config: &Cluster, has_endpoints: bool) -> Option<Duration> {
    let eds = match &config.discovery {
        Discovery::Eds { source, .. } if !has_endpoints => source.initial_fetch_timeout,
        _ => Some(Duration::from_secs(15)),
    };
    let transports = std::iter::once(&config.transport)
        .chain(config.transport_matches.iter().map(|one| &one.transport));
    transports.fold(eds, |longest, transport| match transport {
        crate::parse::cluster::Transport::Raw => longest,
        crate::parse::cluster::Transport::Tls(tls) => longer(longest, secret_timeout(&tls.context)),
    })
}

/// The longest that a listener waits for what is missing; what has come no longer counts.
fn listener_timeout(entry: &ListenerEntry, has_routes: impl Fn(&str) -> bool) -> Option<Duration> {
    let mut longest = Some(Duration::ZERO);
    for chain in entry.chains.iter().chain(&entry.default_chain) {
        if let Terminal::Http(http) = &chain.config.terminal
            && let RouteSource::Rds { source, name } = &http.routes
            && !has_routes(name)
        {
            longest = longer(longest, source.initial_fetch_timeout);
        }
        if let Some(tls) = chain.tls.as_ref().filter(|tls| !tls.is_ready()) {
            longest = longer(longest, secret_timeout(&tls.parsed().context));
        }
    }
    longest
}

fn secret_timeout(context: &TlsContext) -> Option<Duration> {
    // Not `try_fold`: one source that waits for ever makes the whole wait endless.
    #[allow(clippy::manual_try_fold)]
    needs::sds_sources(context).fold(Some(Duration::ZERO), |longest, source| {
        let own = source
            .source
            .as_ref()
            .map_or(Some(Duration::ZERO), |s| s.initial_fetch_timeout);
        longer(longest, own)
    })
}

fn longer(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    a.zip(b).map(|(a, b)| a.max(b))
}

impl State {
    /// When something must go into force though it is not complete.
    pub fn next_deadline(&self) -> Option<Instant> {
        let clusters = self
            .clusters
            .values()
            .filter_map(|one| one.warming.as_ref()?.deadline);
        let listeners = self
            .listeners
            .values()
            .filter_map(|one| one.warming.as_ref()?.deadline);
        let outliers = self.clusters.values().filter_map(|one| one.outlier_due);
        let listeners = listeners.filter(|_| self.clusters_are_warm());
        clusters.chain(listeners).chain(outliers).min()
    }

    /// Outlier detection's periodic part, once per process.
    fn tick_outliers(&mut self, now: Instant) {
        for (name, state) in &mut self.clusters {
            if state.outlier_due.is_none_or(|due| due > now) {
                continue;
            }
            let outlier = state
                .active
                .as_ref()
                .and_then(|(entry, _)| entry.outlier.as_ref());
            state.outlier_due = outlier.map(|one| now + one.interval());
            if let Some(outlier) = outlier {
                let nanos = self.started.elapsed().as_nanos() as u64;
                let random = xxhash_rust::xxh64::xxh64(name.as_bytes(), nanos);
                outlier.tick(&state.endpoints, random);
            }
        }
    }

    /// All that was known at the start is in force, so listeners may follow.
    pub(super) fn clusters_are_warm(&self) -> bool {
        let first = |state: &super::ClusterState| state.active.is_none();
        self.clusters_known
            && !self
                .clusters
                .values()
                .any(|one| one.warming.is_some() && first(one))
    }

    /// How long to wait follows from what is still missing.
    fn set_deadlines(&mut self) {
        for warming in self
            .clusters
            .values_mut()
            .filter_map(|one| one.warming.as_mut())
        {
            let config = &warming.entry.config;
            let known = assignment_of(&self.assignments, config).is_some();
            warming.deadline = cluster_timeout(config, known).map(|wait| warming.since + wait);
        }
        let routes = &self.routes;
        for warming in self
            .listeners
            .values_mut()
            .filter_map(|one| one.warming.as_mut())
        {
            let wait = listener_timeout(&warming.entry, |name| routes.contains_key(name));
            warming.deadline = wait.map(|wait| warming.since + wait);
        }
    }

    /// Puts into force whatever is ready.
    pub async fn progress(&mut self) {
        let now = Instant::now();
        self.set_deadlines();
        self.tick_outliers(now);
        let warm: Vec<Arc<str>> = self
            .clusters
            .iter()
            .filter(|(_, state)| {
                state.warming.as_ref().is_some_and(|warming| {
                    let late = warming.deadline.is_some_and(|deadline| deadline <= now);
                    late || self.cluster_is_warm(&warming.entry, state.resolved.is_some())
                })
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in warm {
            self.activate_cluster(&name).await;
        }
        if self.clusters_are_warm() {
            let warm: Vec<Arc<str>> = self
                .listeners
                .iter()
                .filter(|(_, state)| {
                    state.warming.as_ref().is_some_and(|warming| {
                        let late = warming.deadline.is_some_and(|deadline| deadline <= now);
                        late || self.listener_is_warm(&warming.entry)
                    })
                })
                .map(|(name, _)| name.clone())
                .collect();
            for name in warm {
                self.activate_listener(&name).await;
            }
        }
        let waiting = self.listeners.values().any(|one| one.active.is_none());
        if !self.ready && self.clusters_are_warm() && self.listeners_known && !waiting {
            self.ready = true;
            self.confirmed().await;
            self.notice(Notice::Ready);
        }
    }

    fn cluster_is_warm(&self, entry: &ClusterEntry, resolved: bool) -> bool {
        let has_endpoints = match &entry.config.discovery {
            Discovery::StrictDns(_) | Discovery::LogicalDns(_) => resolved,
            Discovery::Eds { .. } => assignment_of(&self.assignments, &entry.config).is_some(),
            Discovery::Static(_) | Discovery::OriginalDst(_) => true,
        };
        has_endpoints && entry.tls.iter().all(|context| context.is_ready())
    }

    fn listener_is_warm(&self, entry: &ListenerEntry) -> bool {
        let chains = entry.chains.iter().chain(&entry.default_chain);
        chains.into_iter().all(|chain| {
            let routes = match &chain.config.terminal {
                Terminal::Http(http) => match &http.routes {
                    RouteSource::Rds { name, .. } => self.routes.contains_key(name),
                    RouteSource::Inline(_) => true,
                },
                _ => true,
            };
            routes && chain.tls.as_ref().is_none_or(|context| context.is_ready())
        })
    }

    async fn activate_cluster(&mut self, name: &Arc<str>) {
        let Some(state) = self.clusters.get_mut(name) else {
            return;
        };
        let Some(warming) = state.warming.take() else {
            return;
        };
        let entry = warming.entry.clone();
        let outlier = entry.outlier.as_ref();
        state.outlier_due = outlier.map(|one| Instant::now() + one.interval());
        state.active = Some((warming.entry, warming.raw));
        self.tell(|| Command::Cluster(entry.clone())).await;
        self.refresh_endpoints(name).await;
    }
}
