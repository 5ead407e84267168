//! Updates of each resource type: parse, compare, take over. Errors are the NACK's text; what was
//! good in an update is in force all the same.
use std::sync::Arc;

use bytes::Bytes;
use envoy_api::ResourceType;
use prost::Message;
use xds::client::{Received, Update};

use super::{AssignmentState, ClusterState, Raw, RouteState, State, Warming};
use crate::cluster::ClusterEntry;
use crate::cluster::dns;
use crate::cluster::endpoints;
use crate::cluster::shared::ClusterBlock;
use crate::parse;
use crate::parse::cluster::{Cluster, Discovery};
use crate::parse::config_source::{ConfigSource, SourceKind};
use crate::tls::TlsError;
use crate::workers::Command;

impl State {
    /// Applies an update; the error names each resource that was refused.
    pub async fn apply(&mut self, update: &Update) -> Result<(), String> {
        let mut problems = Vec::new();
        for received in &update.added {
            if let Err(problem) = self.add(update.kind, received).await {
                problems.push(problem);
            }
        }
        for name in &update.removed {
            self.remove(update.kind, name).await;
        }
        match update.kind {
            ResourceType::Cluster => self.clusters_known = true,
            ResourceType::Listener => self.listeners_known = true,
            _ => {}
        }
        self.progress().await;
        problems.extend(self.take_bind_failures());
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems.join("\n"))
        }
    }

    async fn add(&mut self, kind: ResourceType, received: &Received) -> Result<(), String> {
        let raw = Raw::new(received.body.clone(), &received.version, false);
        match kind {
            ResourceType::Cluster => {
                let message = decode(&received.body, &received.name)?;
                let parsed = parse::cluster::cluster(&message).map_err(|e| e.to_string())?;
                self.add_cluster(Arc::new(parsed), raw)
            }
            ResourceType::Endpoint => self.add_endpoints(received, raw).await,
            ResourceType::Listener => {
                let message = decode(&received.body, &received.name)?;
                self.add_listener(&message, raw)
            }
            ResourceType::Route => self.add_routes(received, raw).await,
            ResourceType::Secret => {
                let message = decode(&received.body, &received.name)?;
                let secret = parse::tls::secret(&message).map_err(|e| e.to_string())?;
                self.add_secret(secret, raw)
            }
            other => Err(format!(
                "{}: type {} is not supported",
                received.name,
                other.type_url()
            )),
        }
    }

    async fn remove(&mut self, kind: ResourceType, name: &str) {
        match kind {
            ResourceType::Cluster => self.remove_cluster(name).await,
            ResourceType::Listener => self.remove_listener(name).await,
            ResourceType::Endpoint => {
                self.assignments.remove(name);
            }
            ResourceType::Route => {
                self.routes.remove(name);
            }
            ResourceType::Secret => {
                self.secrets.remove(name);
                self.raw_secrets.remove(name);
            }
            _ => {}
        }
    }

    /// Static clusters come this way too.
    pub fn add_cluster(&mut self, config: Arc<Cluster>, raw: Raw) -> Result<(), String> {
        let name = config.name.clone();
        refuse_sources(&config).map_err(|problem| format!("cluster '{name}': {problem}"))?;
        let state = self.clusters.entry(name.clone()).or_default();
        if let Some((_, active)) = &state.active
            && active.is_static
            && !raw.is_static
        {
            return Ok(());
        }
        if is_same(state, &raw) {
            return Ok(());
        }
        let config = with_default_bind(config, self.bootstrap.upstream_bind.as_ref());
        let block = state
            .block
            .get_or_insert_with(|| Arc::new(ClusterBlock::new(&name)))
            .clone();
        let entry = Arc::new(ClusterEntry::new(config, block, &self.environment.stats));
        for context in &entry.tls {
            match context.refresh(&self.secrets) {
                Ok(()) | Err(TlsError::Missing(_)) => {}
                Err(error) => {
                    if state.active.is_none() {
                        self.clusters.remove(&name);
                    }
                    return Err(format!("cluster '{name}': transport_socket: {error}"));
                }
            }
        }
        self.begin_resolving(&name, &entry);
        let since = tokio::time::Instant::now();
        if let Some(state) = self.clusters.get_mut(&name) {
            state.warming = Some(Warming {
                entry,
                raw,
                since,
                deadline: None,
            });
        }
        Ok(())
    }

    fn begin_resolving(&mut self, name: &Arc<str>, entry: &ClusterEntry) {
        let (own, logical) = match &entry.config.discovery {
            Discovery::StrictDns(own) => (own, false),
            Discovery::LogicalDns(own) => (own, true),
            _ => return,
        };
        let Some(state) = self.clusters.get_mut(name) else {
            return;
        };
        if let Some(old) = state.resolver.take() {
            old.abort();
        }
        let names = endpoints::names(own);
        if names.is_empty() {
            state.resolved = Some(endpoints::Resolved::new());
            return;
        }
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let (name, internal) = (name.clone(), self.internal.clone());
        let settings = entry.config.dns.clone();
        let task = tokio::spawn(async move {
            let forward = async {
                while let Some(resolved) = receiver.recv().await {
                    let event = super::Internal::Resolved(name.clone(), resolved);
                    if internal.send(event).await.is_err() {
                        return;
                    }
                }
            };
            tokio::join!(
                forward,
                dns::keep_resolved(names, settings, logical, sender)
            );
        });
        state.resolver = Some(task.abort_handle());
    }

    async fn remove_cluster(&mut self, name: &str) {
        let is_static = self
            .clusters
            .get(name)
            .and_then(|state| state.active.as_ref())
            .is_some_and(|(_, raw)| raw.is_static);
        if is_static {
            return;
        }
        if let Some((name, state)) = self.clusters.remove_entry(name) {
            if let Some(resolver) = state.resolver {
                resolver.abort();
            }
            self.tell(|| Command::ClusterRemoved(name.clone())).await;
        }
    }

    async fn add_endpoints(&mut self, received: &Received, raw: Raw) -> Result<(), String> {
        let message = decode(&received.body, &received.name)?;
        let parsed = parse::endpoint::load_assignment(&message).map_err(|e| e.to_string())?;
        let service = parsed.cluster_name.clone();
        let state = AssignmentState {
            assignment: Arc::new(parsed),
            raw,
        };
        self.assignments.insert(service.clone(), state);
        let concerned: Vec<Arc<str>> = self
            .clusters
            .iter()
            .filter(|(_, state)| {
                let active = state.active.as_ref().map(|(entry, _)| entry);
                let entries = active
                    .into_iter()
                    .chain(state.warming.as_ref().map(|w| &w.entry));
                entries
                    .into_iter()
                    .any(|entry| match &entry.config.discovery {
                        Discovery::Eds { service_name, .. } => *service_name == service,
                        _ => false,
                    })
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in concerned {
            self.refresh_endpoints(&name).await;
        }
        Ok(())
    }

    async fn add_routes(&mut self, received: &Received, raw: Raw) -> Result<(), String> {
        if let Some(old) = self.routes.get(received.name.as_str())
            && old.raw.body == raw.body
        {
            return Ok(());
        }
        let message = decode(&received.body, &received.name)?;
        let table = crate::route::parse::route_table(&message, &self.environment)
            .map_err(|error| error.to_string())?;
        if table.vhds.is_some() {
            return Err(format!(
                "route configuration '{}': vhds: is not supported",
                table.name
            ));
        }
        let (name, table): (Arc<str>, _) = (received.name.as_str().into(), Arc::new(table));
        self.routes.insert(name.clone(), RouteState { raw });
        self.tell(|| Command::Routes(name.clone(), table.clone()))
            .await;
        Ok(())
    }

    /// Static secrets come this way too.
    pub fn add_secret(&mut self, secret: parse::tls::Secret, raw: Raw) -> Result<(), String> {
        let name = secret.name.clone();
        let previous = self.secrets.by_name(&name).cloned();
        self.secrets.insert(Arc::new(secret));
        match self.refresh_contexts(&name) {
            Ok(()) => {
                self.raw_secrets.insert(name, raw);
                Ok(())
            }
            Err(problem) => {
                // The old one stays in force.
                match previous {
                    Some(previous) => self.secrets.insert(previous),
                    None => self.secrets.remove(&name),
                }
                Err(format!("secret '{name}': {problem}"))
            }
        }
    }

    /// Rebuilds every TLS context that uses a secret.
    fn refresh_contexts(&self, secret: &str) -> Result<(), TlsError> {
        let mut result = Ok(());
        let mut note = |refreshed: Result<(), TlsError>| match refreshed {
            Ok(()) | Err(TlsError::Missing(_)) => {}
            Err(error) => result = Err(error),
        };
        for state in self.clusters.values() {
            let active = state.active.as_ref().map(|(entry, _)| entry);
            for entry in active
                .into_iter()
                .chain(state.warming.as_ref().map(|one| &one.entry))
            {
                for context in &entry.tls {
                    if super::needs::secret_names(&context.parsed().context).any(|n| &**n == secret)
                    {
                        note(context.refresh(&self.secrets));
                    }
                }
            }
        }
        for state in self.listeners.values() {
            let active = state.active.as_ref().map(|(entry, _)| entry);
            for entry in active
                .into_iter()
                .chain(state.warming.as_ref().map(|one| &one.entry))
            {
                for context in super::listeners::contexts(entry) {
                    if super::needs::secret_names(&context.parsed().context).any(|n| &**n == secret)
                    {
                        note(context.refresh(&self.secrets));
                    }
                }
            }
        }
        result
    }
}

fn is_same(state: &ClusterState, raw: &Raw) -> bool {
    match (&state.warming, &state.active) {
        (Some(warming), _) => warming.raw.body == raw.body,
        (None, Some((_, active))) => active.body == raw.body,
        (None, None) => false,
    }
}

fn with_default_bind(
    config: Arc<Cluster>,
    default: Option<&parse::address::BindConfig>,
) -> Arc<Cluster> {
    match (config.bind.is_none(), default) {
        (true, Some(bind)) => {
            let mut config = Cluster::clone(&config);
            config.bind = Some(bind.clone());
            Arc::new(config)
        }
        _ => config,
    }
}

/// Sources that nothing here serves are refused instead of waited for.
fn refuse_sources(config: &Cluster) -> Result<(), String> {
    let transports = std::iter::once(&config.transport)
        .chain(config.transport_matches.iter().map(|one| &one.transport));
    for transport in transports {
        if let parse::cluster::Transport::Tls(tls) = transport {
            refuse_secret_sources(&tls.context)?;
        }
    }
    match &config.discovery {
        Discovery::Eds { source, .. } => {
            only_ads(source, "eds_cluster_config.eds_config").map_err(str::to_owned)
        }
        _ => Ok(()),
    }
}

/// Secrets come over gRPC or are static; a watched file is refused.
pub fn refuse_secret_sources(context: &parse::tls::TlsContext) -> Result<(), String> {
    for source in super::needs::sds_sources(context) {
        if matches!(
            source.source.as_ref().map(|one| &one.kind),
            Some(SourceKind::Path(_))
        ) {
            let name = &source.name;
            return Err(format!(
                "secret '{name}': path_config_source: is not supported"
            ));
        }
    }
    Ok(())
}

pub fn only_ads(source: &ConfigSource, field: &'static str) -> Result<(), &'static str> {
    match (&source.kind, field) {
        (SourceKind::Ads, _) => Ok(()),
        (_, "rds.config_source") => Err("rds.config_source: only ADS is supported"),
        (_, _) => Err("eds_cluster_config.eds_config: only ADS is supported"),
    }
}

pub fn decode<M: Message + Default>(body: &Bytes, name: &str) -> Result<M, String> {
    M::decode(body.clone()).map_err(|error| format!("{name}: {error}"))
}
