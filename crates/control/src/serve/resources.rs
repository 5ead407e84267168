//! One client's side of the mesh: its view, its stream's state machine, and the generation they
//! are at. Everything here computes and nothing waits, so it may run off the async threads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use envoy_api::core::Node;
use envoy_api::{Resource, ResourceType};
use pilot::{Changes, NodeError, ProxyView};
use pki::SpiffeId;
use xds::server::{Response, Scope, Source, Stream};

use crate::metrics::Metrics;
use crate::pipeline::Published;

pub(crate) struct Client {
    pub stream: Stream,
    pub view: Arc<ProxyView>,
    pub node: Arc<Node>,
    pub published: Arc<Published>,
    id: SpiffeId,
    metrics: Metrics,
}

impl Client {
    /// A client whose node may speak for the identity.
    pub fn new(
        mut stream: Stream,
        node: Node,
        id: SpiffeId,
        published: Arc<Published>,
        metrics: Metrics,
    ) -> Result<Client, NodeError> {
        let view = Arc::new(ProxyView::from_node(&node, Some(&id), &published.snapshot)?);
        let node = Arc::new(Node {
            extensions: Vec::new(),
            ..node
        });
        stream.changed(published.generation(), &BTreeMap::new());
        Ok(Client {
            stream,
            view,
            node,
            published,
            id,
            metrics,
        })
    }

    /// Goes on to a newer generation.
    pub fn adopt(&mut self, published: Arc<Published>) {
        let before = self.published.generation();
        let concerned = match published.changes_since(before) {
            None => all(),
            Some(changes) => {
                let changes: Vec<&Changes> = changes.collect();
                let view_changes = changes
                    .iter()
                    .any(|changes| changes.everything || !changes.workloads.is_empty());
                match view_changes && self.rebuild_view(&published) {
                    true => all(),
                    false => self.concerned(&changes),
                }
            }
        };
        self.stream.changed(published.generation(), &concerned);
        self.published = published;
    }

    /// All responses that may be written now.
    pub fn responses(&mut self) -> Vec<Response> {
        let mut source = Translator {
            published: &self.published,
            view: &self.view,
            metrics: &self.metrics,
        };
        let now = Instant::now();
        let mut responses = Vec::new();
        while let Some(response) = self.stream.next_response(&mut source, now) {
            responses.push(response);
        }
        responses
    }

    /// Labels come from the registry and change with it; whether the view is another one now.
    fn rebuild_view(&mut self, published: &Published) -> bool {
        // The announced extensions are only in the first node; capabilities never change.
        let view = ProxyView::from_node(&self.node, Some(&self.id), &published.snapshot);
        let Ok(mut view) = view else { return false };
        view.capabilities = self.view.capabilities.clone();
        if view == *self.view {
            return false;
        }
        self.view = Arc::new(view);
        true
    }

    fn concerned(&self, changes: &[&Changes]) -> BTreeMap<ResourceType, Scope> {
        let mut concerned = BTreeMap::new();
        for changes in changes {
            for kind in pilot::impact(changes, &self.view) {
                match self.endpoint_names(kind, changes) {
                    Some(names) => add_names(&mut concerned, kind, names),
                    None => {
                        concerned.insert(kind, Scope::All);
                    }
                }
            }
        }
        concerned
    }

    /// The fast lane: which of the client's endpoint sets a change of endpoints concerns.
    fn endpoint_names(&self, kind: ResourceType, changes: &Changes) -> Option<BTreeSet<String>> {
        let is_narrow = kind == ResourceType::Endpoint
            && !changes.everything
            && !changes.mesh
            && changes.objects.is_empty()
            && changes.services.is_empty();
        if !is_narrow {
            return None;
        }
        let hosts: BTreeSet<&str> = changes
            .endpoints
            .iter()
            .map(|service| service.hostname.as_str())
            .collect();
        let concerns = |name: &&String| {
            let host = name.rsplit('|').next().unwrap_or(name);
            hosts.contains(host) || name.starts_with("outbound_.")
        };
        let names = self.stream.names(kind)?;
        Some(names.iter().filter(concerns).cloned().collect())
    }
}

fn all() -> BTreeMap<ResourceType, Scope> {
    ResourceType::ALL
        .iter()
        .map(|kind| (*kind, Scope::All))
        .collect()
}

fn add_names(
    concerned: &mut BTreeMap<ResourceType, Scope>,
    kind: ResourceType,
    names: BTreeSet<String>,
) {
    match concerned
        .entry(kind)
        .or_insert_with(|| Scope::Names(BTreeSet::new()))
    {
        Scope::All => {}
        Scope::Names(known) => known.extend(names),
    }
}

/// pilot as the stream asks for it.
struct Translator<'a> {
    published: &'a Published,
    view: &'a ProxyView,
    metrics: &'a Metrics,
}

impl Source for Translator<'_> {
    fn generation(&self) -> u64 {
        self.published.generation()
    }

    fn generate(&mut self, kind: ResourceType, names: Option<&BTreeSet<String>>) -> Vec<Resource> {
        let started = Instant::now();
        let resources = pilot::generate(&self.published.snapshot, self.view, kind, names);
        let label = Metrics::type_label(kind);
        self.metrics
            .push_time
            .with(&[&label])
            .observe(started.elapsed().as_secs_f64());
        resources
    }
}
