//! Puts the parts of a control plane together, and takes them apart again in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use daemon::admin::Listener;
use daemon::drain::{Drain, DrainWatch};
use daemon::readiness::{Gate, Readiness};
use daemon::tasks::{Task, Tasks};
use pki::TrustBundle;
use pki::verify::{Expected, MeshClientVerifier};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::admin::{Surface, api, monitoring};
use crate::authority::ServingCertificate;
use crate::foundation::Foundation;
use crate::pipeline::{Pipeline, PublishedWatch, Source, Sources};
use crate::registry::local::LocalRegistry;
use crate::serve::authenticate::Tokens;
use crate::serve::connection::{Services, accept};
use crate::serve::proxies::Proxies;
use crate::store::applier::Writer;
use crate::store::directory::{DirectoryProblems, DirectoryStore};
use crate::store::mesh_config;
use crate::{ControlError, Options};

/// How long connections may take to end.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// A running control plane.
pub struct Control {
    /// Where discovery and certificates are served.
    pub xds_address: SocketAddr,
    /// Where metrics, readiness and debug are served.
    pub monitoring_address: SocketAddr,
    readiness: Readiness,
    tasks: Tasks,
    drain: Drain,
    pipeline: Task<Result<(), tokio::task::JoinError>>,
    sources: Option<Sources>,
}

impl Control {
    /// Returns once every source has reported: proxies are served from then on.
    pub async fn ready(&self) {
        self.readiness.ready().await;
    }

    /// Ends everything: no new connections, open streams are closed, commits are finished.
    pub async fn stop(mut self) -> Result<(), ControlError> {
        self.drain.start();
        self.sources = None;
        if let Err(left) = self.tasks.join_within(DRAIN_LIMIT).await {
            tracing::warn!(?left, "parts did not end in time");
        }
        let ended = tokio::time::timeout(DRAIN_LIMIT, self.pipeline).await;
        match ended {
            Ok(Err(error)) => Err(ControlError::Pipeline(error.to_string())),
            Ok(Ok(Err(error))) => Err(ControlError::Pipeline(error.to_string())),
            Ok(Ok(Ok(()))) => Ok(()),
            Err(_) => Err(ControlError::Pipeline("it did not end in time".to_owned())),
        }
    }
}

/// Runs a control plane until the drain starts.
pub async fn run(options: Options, drain: DrainWatch) -> Result<(), ControlError> {
    let _guard = drain.guard();
    let mut control = start(options).await?;
    tracing::info!(
        xds = %control.xds_address,
        monitoring = %control.monitoring_address,
        "control plane started"
    );
    tokio::select! {
        () = drain.started() => control.stop().await,
        // It never ends by itself, so this is a failure: better gone than deaf.
        ended = &mut control.pipeline => Err(ControlError::Pipeline(match ended {
            Err(error) => error.to_string(),
            Ok(Err(error)) => error.to_string(),
            Ok(Ok(())) => "it ended".to_owned(),
        })),
    }
}

/// Starts a control plane; port 0 takes a free port.
pub async fn start(options: Options) -> Result<Control, ControlError> {
    let (foundation, store) = Foundation::lay(&options).await?;
    let (drain, watch) = Drain::new();
    let tasks = Tasks::new();
    let (pipeline, sources, published) = Pipeline::new(
        foundation.mesh.clone(),
        &options.domain,
        wanted_sources(&options),
        foundation.metrics.clone(),
    );
    let pipeline = daemon::tasks::spawn("pipeline", async move {
        tokio::task::spawn_blocking(move || pipeline.run()).await
    });
    let readiness = Readiness::new();
    let opening = open_when_published(published.clone(), readiness.gate("sources"), watch.clone());
    tasks.spawn("readiness", opening);

    let tokens = Tokens::default();
    let problems = DirectoryProblems::default();
    let parts = Parts {
        options: &options,
        foundation: &foundation,
        tasks: &tasks,
        sources: &sources,
        watch: &watch,
    };
    parts.start_sources(&tokens, &problems);
    let clock = foundation.clock.clone();
    let (writer, applier) = Writer::new(store, sources.clone(), published.clone(), clock);
    tasks.spawn("object store", writer.run(watch.clone()));

    let proxies = Proxies::new();
    let services = foundation.services(published.clone(), tokens, &proxies, &watch);
    let xds_address = parts.start_discovery(services).await?;
    let surface = Surface {
        published,
        proxies,
        applier,
        directory: problems,
        metrics: foundation.metrics.clone(),
        readiness: readiness.clone(),
    };
    let monitoring_address = parts.start_surfaces(&Arc::new(surface)).await?;
    Ok(Control {
        xds_address,
        monitoring_address,
        readiness,
        tasks,
        drain,
        pipeline,
        sources: Some(sources),
    })
}

fn wanted_sources(options: &Options) -> Vec<Source> {
    let mut wanted = vec![Source::Applied];
    wanted.extend(options.registry.is_some().then_some(Source::Registry));
    wanted.extend(options.config_dir.is_some().then_some(Source::Directory));
    wanted
}

async fn open_when_published(mut published: PublishedWatch, gate: Gate, drain: DrainWatch) {
    let waiting = published.wait_for(Option::is_some);
    if let Some(Ok(_)) = drain.unless_draining(waiting).await {
        gate.open();
    }
}

/// What the starting functions share.
struct Parts<'a> {
    options: &'a Options,
    foundation: &'a Foundation,
    tasks: &'a Tasks,
    sources: &'a Sources,
    watch: &'a DrainWatch,
}

impl Parts<'_> {
    fn start_sources(&self, tokens: &Tokens, problems: &DirectoryProblems) {
        let trust_domain = &self.foundation.trust_domain;
        let Options {
            registry,
            config_dir,
            mesh_config,
            domain,
            ..
        } = self.options;
        if let Some(path) = registry {
            let registry = LocalRegistry {
                path: path.clone(),
                domain: domain.clone(),
                trust_domain: trust_domain.clone(),
                tokens: tokens.clone(),
            };
            self.tasks.spawn(
                "registry",
                registry.run(self.sources.clone(), self.watch.clone()),
            );
        }
        if let Some(path) = config_dir {
            let store = DirectoryStore {
                path: path.clone(),
                problems: problems.clone(),
            };
            self.tasks.spawn(
                "directory",
                store.run(self.sources.clone(), self.watch.clone()),
            );
        }
        if let Some(path) = mesh_config {
            let (sources, drain) = (self.sources.clone(), self.watch.clone());
            let trust_domain = trust_domain.clone();
            let path = path.clone();
            self.tasks.spawn("mesh configuration", async move {
                mesh_config::watch(&path, &trust_domain, sources, drain).await;
            });
        }
    }

    async fn start_discovery(&self, services: Services) -> Result<SocketAddr, ControlError> {
        let Foundation {
            authority, clock, ..
        } = self.foundation;
        let mut names = self.options.discovery_names.clone();
        let address = self.options.xds_address;
        if !address.ip().is_unspecified() {
            names.push(address.ip().to_string());
        }
        let (serving, leaf) = ServingCertificate::issue(authority, &names, clock.now())?;
        let rotation =
            serving
                .clone()
                .rotate(authority.clone(), leaf, clock.clone(), self.watch.clone());
        self.tasks.spawn("serving certificate", rotation);
        let pki_error = |error: pki::PkiError| ControlError::Authority(error.to_string());
        let roots = TrustBundle::from_pem(authority.roots_pem()).map_err(pki_error)?;
        let verifier = MeshClientVerifier::optional(roots, Expected::Any);
        let config = pki::tls::server_config(verifier, serving, &[b"h2"]).map_err(pki_error)?;
        let listener = TcpListener::bind(address)
            .await
            .map_err(ControlError::io(address))?;
        let address = listener.local_addr().map_err(ControlError::io(address))?;
        let accepting = accept(
            listener,
            TlsAcceptor::from(config),
            Arc::new(services),
            self.options.max_connections,
            self.watch.clone(),
        );
        self.tasks.spawn("discovery", accepting);
        Ok(address)
    }

    async fn start_surfaces(&self, surface: &Arc<Surface>) -> Result<SocketAddr, ControlError> {
        let socket = &self.options.admin_socket;
        let listener = Listener::unix(socket, 0o600).map_err(ControlError::io(socket.display()))?;
        let serving = daemon::admin::serve(listener, api(surface.clone()), self.watch.clone());
        self.tasks.spawn("admin socket", serving);
        let address = self.options.monitoring_address;
        let listener = Listener::tcp(address)
            .await
            .map_err(ControlError::io(address))?;
        let bound = listener.tcp_address().unwrap_or(address);
        let serving =
            daemon::admin::serve(listener, monitoring(surface.clone()), self.watch.clone());
        self.tasks.spawn("monitoring", serving);
        Ok(bound)
    }
}
