//! The picture of the state for the admin endpoints: cheap to make, consistent, immutable.
use std::sync::Arc;

use super::{Raw, State};
use crate::admin::{ClusterPicture, ListenerPicture, RawPicture, ResourcePicture};
use crate::cluster::shared::Endpoints;

/// The resources of a `Picture`.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub clusters: Vec<ClusterPicture>,
    pub listeners: Vec<ListenerPicture>,
    pub routes: Vec<ResourcePicture>,
    pub endpoints: Vec<ResourcePicture>,
    pub secrets: Vec<ResourcePicture>,
    pub ready: bool,
    pub draining: bool,
}

fn picture(raw: &Raw) -> RawPicture {
    RawPicture {
        body: raw.body.clone(),
        version: raw.version.clone(),
        updated: raw.updated,
        is_static: raw.is_static,
    }
}

impl State {
    pub fn view(&self) -> View {
        let resource = |name: &Arc<str>, raw: &Raw| ResourcePicture {
            name: name.clone(),
            raw: picture(raw),
        };
        View {
            clusters: self.cluster_pictures(),
            listeners: self.listener_pictures(),
            routes: self
                .routes
                .iter()
                .map(|(name, one)| resource(name, &one.raw))
                .collect(),
            endpoints: self
                .assignments
                .iter()
                .map(|(name, one)| resource(name, &one.raw))
                .collect(),
            secrets: self
                .raw_secrets
                .iter()
                .map(|(name, raw)| resource(name, raw))
                .collect(),
            ready: self.ready,
            draining: self.draining,
        }
    }

    fn cluster_pictures(&self) -> Vec<ClusterPicture> {
        let mut pictures = Vec::with_capacity(self.clusters.len());
        for state in self.clusters.values() {
            let active = state
                .active
                .as_ref()
                .map(|(entry, raw)| (entry, raw, false));
            let warming = state
                .warming
                .as_ref()
                .map(|one| (&one.entry, &one.raw, true));
            for (entry, raw, warming) in active.into_iter().chain(warming) {
                let endpoints: Arc<Endpoints> = state.endpoints.clone();
                pictures.push(ClusterPicture {
                    config: entry.config.clone(),
                    block: Some(entry.block.clone()),
                    endpoints,
                    raw: picture(raw),
                    warming,
                });
            }
        }
        pictures
    }

    fn listener_pictures(&self) -> Vec<ListenerPicture> {
        let mut pictures = Vec::with_capacity(self.listeners.len());
        for state in self.listeners.values() {
            let active = state
                .active
                .as_ref()
                .map(|(entry, raw)| (entry, raw, false));
            let warming = state
                .warming
                .as_ref()
                .map(|one| (&one.entry, &one.raw, true));
            for (entry, raw, warming) in active.into_iter().chain(warming) {
                let configured = entry.config.addresses.iter().filter_map(|one| one.socket());
                let addresses = match state.bound.is_empty() {
                    true => configured.collect(),
                    false => state.bound.clone(),
                };
                let (config, raw) = (entry.config.clone(), picture(raw));
                pictures.push(ListenerPicture {
                    config,
                    addresses,
                    raw,
                    warming,
                });
            }
        }
        pictures
    }
}
