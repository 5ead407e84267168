//! The local platform's registry: one JSON file, replaced by rename, watched. Services and pods
//! in, services, workloads and endpoints out; endpoints are selector times pods.

mod convert;
mod file;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use daemon::drain::DrainWatch;
use pilot::model::{Endpoint, ServiceKey, WorkloadKey};
use pilot::{Event, model};

pub use file::{ContainerPort, NamespaceEntry, PodEntry, RegistryFile};

use crate::pipeline::{Source, Sources};
use crate::serve::authenticate::Tokens;
use crate::watch::DirectoryWatch;

/// The shard of this registry's endpoints.
const SHARD: &str = "local";

/// What a registry file means: the mesh's services, workloads and endpoints.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Contents {
    pub namespaces: BTreeMap<mesh_api::ObjectKey, Arc<mesh_api::Object>>,
    pub services: BTreeMap<ServiceKey, Arc<model::Service>>,
    pub workloads: BTreeMap<WorkloadKey, Arc<model::Workload>>,
    pub endpoints: BTreeMap<ServiceKey, Vec<Endpoint>>,
}

/// Reads the file now and at each change, until the drain starts.
pub(crate) struct LocalRegistry {
    pub path: PathBuf,
    pub domain: String,
    pub trust_domain: pki::TrustDomain,
    pub tokens: Tokens,
}

impl LocalRegistry {
    pub async fn run(self, sources: Sources, drain: DrainWatch) {
        let mut watch = DirectoryWatch::file(&self.path);
        let mut last_text = None;
        let mut known = Contents::default();
        loop {
            let text = tokio::fs::read_to_string(&self.path).await;
            if let Err(error) = &text
                && last_text.is_none()
            {
                tracing::info!(path = %self.path.display(), %error, "no registry file yet");
            }
            if let Ok(text) = text
                && last_text.as_ref() != Some(&text)
            {
                match RegistryFile::parse(&text) {
                    Ok(file) => {
                        self.tokens.replace(file.pods.iter());
                        let new = self.convert(&file);
                        let events = differences(&known, &new);
                        known = new;
                        if !sources.send(Source::Registry, events).await {
                            return;
                        }
                    }
                    // The last good contents stay in force.
                    Err(error) => {
                        let path = self.path.display();
                        tracing::warn!(%path, %error, "the registry file is not understood");
                    }
                }
                last_text = Some(text);
            }
            if drain.unless_draining(watch.changed()).await.is_none() {
                return;
            }
        }
    }

    fn convert(&self, file: &RegistryFile) -> Contents {
        let (contents, problems) = convert::contents(file, &self.domain, &self.trust_domain);
        for problem in problems {
            tracing::warn!(%problem, "an entry of the registry file is left out");
        }
        contents
    }
}

/// Removals of endpoints go before those of services, additions the other way round.
pub(crate) fn differences(old: &Contents, new: &Contents) -> Vec<Event> {
    let mut events = Vec::new();
    for (key, object) in &new.namespaces {
        if old.namespaces.get(key) != Some(object) {
            events.push(Event::Object(object.clone()));
        }
    }
    for (key, service) in &new.services {
        if old.services.get(key) != Some(service) {
            events.push(Event::Service(service.clone()));
        }
    }
    for (key, workload) in &new.workloads {
        if old.workloads.get(key) != Some(workload) {
            events.push(Event::Workload(workload.clone()));
        }
    }
    let endpoints = |service: &ServiceKey, endpoints: Vec<Endpoint>| Event::Endpoints {
        service: service.clone(),
        shard: SHARD.to_owned(),
        endpoints,
    };
    for (key, set) in &new.endpoints {
        if old.endpoints.get(key) != Some(set) {
            events.push(endpoints(key, set.clone()));
        }
    }
    for key in old
        .endpoints
        .keys()
        .filter(|key| !new.endpoints.contains_key(*key))
    {
        events.push(endpoints(key, Vec::new()));
    }
    let gone = old
        .workloads
        .keys()
        .filter(|key| !new.workloads.contains_key(*key));
    events.extend(gone.cloned().map(Event::WorkloadRemoved));
    let gone = old
        .services
        .keys()
        .filter(|key| !new.services.contains_key(*key));
    events.extend(gone.cloned().map(Event::ServiceRemoved));
    let gone = old
        .namespaces
        .keys()
        .filter(|key| !new.namespaces.contains_key(*key));
    events.extend(gone.cloned().map(Event::ObjectRemoved));
    events
}

#[cfg(test)]
mod tests;
