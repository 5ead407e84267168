//! Puts the parts of a control plane together, and takes them apart again in order.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use daemon::admin::Listener;
use daemon::clock::Clock;
use daemon::drain::{Drain, DrainWatch};
use daemon::readiness::{Gate, Readiness};
use daemon::tasks::{Task, Tasks};
use mesh_api::mesh_config::MeshConfig;
use pilot::Event;
use pki::verify::{Expected, MeshClientVerifier};
use pki::{TrustBundle, TrustDomain};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::admin::{Surface, api, monitoring};
use crate::authority::ServingCertificate;
use crate::ca_service::CertificateService;
use crate::metrics::Metrics;
use crate::pipeline::{Pipeline, PublishedWatch, Source, Sources};
use crate::registry::local::LocalRegistry;
use crate::serve::authenticate::{Authenticator, Tokens};
use crate::serve::connection::{Services, accept};
use crate::serve::discovery::Discovery;
use crate::serve::proxies::Proxies;
use crate::store::applier::Writer;
use crate::store::directory::{DirectoryProblems, DirectoryStore};
use crate::store::objects::ObjectStore;
use crate::watch::DirectoryWatch;
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
    let Foundation {
        clock,
        metrics,
        mesh,
        trust_domain,
        authority,
        store,
    } = Foundation::lay(&options).await?;
    let (drain, watch) = Drain::new();
    let tasks = Tasks::new();
    let (pipeline, sources, published) = Pipeline::new(
        mesh,
        &options.domain,
        wanted_sources(&options),
        metrics.clone(),
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
        tasks: &tasks,
        sources: &sources,
        watch: &watch,
    };
    parts.start_sources(&trust_domain, &tokens, &problems);
    let (writer, applier) = Writer::new(store, sources.clone(), published.clone(), clock.clone());
    tasks.spawn("object store", writer.run(watch.clone()));

    let proxies = Proxies::new();
    let authenticator = Authenticator {
        tokens,
        trust_domain,
    };
    let discovery = Discovery {
        published: published.clone(),
        authenticator: authenticator.clone(),
        proxies: proxies.clone(),
        metrics: metrics.clone(),
        clock: clock.clone(),
        translations: Arc::new(Semaphore::new(processors())),
        drain: watch.clone(),
        process: format!("{:x}", clock.now().as_microsecond()),
    };
    let certificates = CertificateService {
        authority: authority.clone(),
        authenticator,
        clock: clock.clone(),
        metrics: metrics.clone(),
    };
    let services = Services {
        discovery: Arc::new(discovery),
        certificates: Arc::new(certificates),
    };
    let xds_address = parts.start_discovery(services, &authority, &clock).await?;
    let directory = problems;
    let ready = readiness.clone();
    let surface = Surface {
        published,
        proxies,
        applier,
        directory,
        metrics,
        readiness: ready,
    };
    let monitoring_address = parts.start_surfaces(&Arc::new(surface)).await?;
    let sources = Some(sources);
    Ok(Control {
        xds_address,
        monitoring_address,
        readiness,
        tasks,
        drain,
        pipeline,
        sources,
    })
}

/// What must be there before anything runs.
struct Foundation {
    clock: Clock,
    metrics: Metrics,
    mesh: Arc<MeshConfig>,
    trust_domain: TrustDomain,
    authority: Arc<pki::Authority>,
    store: ObjectStore,
}

impl Foundation {
    async fn lay(options: &Options) -> Result<Foundation, ControlError> {
        std::fs::create_dir_all(&options.state_dir)
            .map_err(ControlError::io(options.state_dir.display()))?;
        let clock = Clock::system();
        let metrics = Metrics::new();
        let mesh = Arc::new(read_mesh_config(options.mesh_config.as_deref())?);
        let trust_domain = TrustDomain::new(&mesh.trust_domain)
            .map_err(|error| ControlError::MeshConfig(error.to_string()))?;
        let authority = crate::authority::load(options, &trust_domain, clock.now())?;
        crate::authority::measure(&authority, &metrics);
        let path = options.state_dir.join("objects.redb");
        let opened = tokio::task::spawn_blocking(move || ObjectStore::open(&path)).await;
        let store = opened.map_err(|error| ControlError::io("objects")(error.into()))??;
        Ok(Foundation {
            clock,
            metrics,
            mesh,
            trust_domain,
            authority: Arc::new(authority),
            store,
        })
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

fn wanted_sources(options: &Options) -> Vec<Source> {
    let mut wanted = vec![Source::Applied];
    wanted.extend(options.registry.is_some().then_some(Source::Registry));
    wanted.extend(options.config_dir.is_some().then_some(Source::Directory));
    wanted
}

fn read_mesh_config(path: Option<&Path>) -> Result<MeshConfig, ControlError> {
    let Some(path) = path else {
        return Ok(MeshConfig::default());
    };
    let text = std::fs::read_to_string(path).map_err(ControlError::io(path.display()))?;
    parse_mesh_config(path, &text).map_err(ControlError::MeshConfig)
}

fn parse_mesh_config(path: &Path, text: &str) -> Result<MeshConfig, String> {
    MeshConfig::parse(&path.display().to_string(), text).map_err(|diagnostics| {
        let lines: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })
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
    tasks: &'a Tasks,
    sources: &'a Sources,
    watch: &'a DrainWatch,
}

impl Parts<'_> {
    fn start_sources(
        &self,
        trust_domain: &TrustDomain,
        tokens: &Tokens,
        problems: &DirectoryProblems,
    ) {
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
                watch_mesh_config(&path, &trust_domain, sources, drain).await;
            });
        }
    }

    async fn start_discovery(
        &self,
        services: Services,
        authority: &Arc<pki::Authority>,
        clock: &Clock,
    ) -> Result<SocketAddr, ControlError> {
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

/// A bad or unfitting mesh configuration is reported, and the last good one stays.
async fn watch_mesh_config(
    path: &Path,
    trust_domain: &TrustDomain,
    sources: Sources,
    drain: DrainWatch,
) {
    let mut watch = DirectoryWatch::file(path);
    let mut last = None;
    loop {
        let text = tokio::fs::read_to_string(path).await.ok();
        if let Some(text) = text.filter(|text| last.as_ref() != Some(text)) {
            match parse_mesh_config(path, &text) {
                Ok(mesh) if mesh.trust_domain != trust_domain.as_str() => {
                    tracing::warn!("a changed trust domain needs a restart; nothing was changed");
                }
                Ok(mesh) => {
                    let event = Event::MeshConfig(Arc::new(mesh));
                    if !sources.send(Source::MeshConfig, vec![event]).await {
                        return;
                    }
                }
                Err(reason) => tracing::warn!(%reason, "the mesh configuration is not changed"),
            }
            last = Some(text);
        }
        if drain.unless_draining(watch.changed()).await.is_none() {
            return;
        }
    }
}
