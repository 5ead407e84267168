//! What must be subscribed to, from what is in force or warming.
use std::sync::Arc;

use super::{Needs, State};
use crate::parse::cluster::Discovery;
use crate::parse::config_source::SourceKind;
use crate::parse::http_connection_manager::RouteSource;
use crate::parse::network_filter::Terminal;
use crate::parse::tls::{CertificateSource, SdsSource, TlsContext};

/// The secrets that a context names.
pub fn sds_sources(context: &TlsContext) -> impl Iterator<Item = &SdsSource> {
    let certificates = context
        .certificates
        .iter()
        .filter_map(|source| match source {
            CertificateSource::Sds(source) => Some(source),
            CertificateSource::Inline(_) => None,
        });
    certificates.chain(&context.validation.sds)
}

pub fn secret_names(context: &TlsContext) -> impl Iterator<Item = &Arc<str>> {
    sds_sources(context).map(|source| &source.name)
}

impl State {
    pub fn needs(&self) -> Needs {
        let mut needs = Needs {
            listeners: self.clusters_are_warm(),
            ..Needs::default()
        };
        for state in self.clusters.values() {
            let active = state.active.as_ref().map(|(entry, _)| entry);
            for entry in active
                .into_iter()
                .chain(state.warming.as_ref().map(|one| &one.entry))
            {
                if let Discovery::Eds { service_name, .. } = &entry.config.discovery {
                    needs.endpoints.insert(service_name.to_string());
                }
                for context in &entry.tls {
                    add_secrets(&mut needs, &context.parsed().context);
                }
            }
        }
        for state in self.listeners.values() {
            let active = state.active.as_ref().map(|(entry, _)| entry);
            for entry in active
                .into_iter()
                .chain(state.warming.as_ref().map(|one| &one.entry))
            {
                for chain in entry.chains.iter().chain(&entry.default_chain) {
                    if let Terminal::Http(http) = &chain.config.terminal
                        && let RouteSource::Rds { name, .. } = &http.routes
                    {
                        needs.routes.insert(name.to_string());
                    }
                    if let Some(context) = &chain.tls {
                        add_secrets(&mut needs, &context.parsed().context);
                    }
                }
            }
        }
        needs
    }
}

fn add_secrets(needs: &mut Needs, context: &TlsContext) {
    for source in sds_sources(context) {
        let name = source.name.to_string();
        match source.source.as_ref().map(|source| &source.kind) {
            None | Some(SourceKind::Path(_)) => {}
            Some(SourceKind::Ads) => {
                needs.secrets.insert(name);
            }
            Some(SourceKind::Grpc(grpc)) => {
                needs
                    .sds
                    .entry(grpc.cluster.clone())
                    .or_default()
                    .insert(name);
            }
        }
    }
}
