//! A running mesh: the node, the control plane, the pods, the published ports. One process owns
//! it all; when that process ends, however it ends, nothing of it is left.

pub mod api;
mod build;
mod configuration;
mod control_process;
mod envoy;
pub mod gateways;
mod outside;
mod status;
pub mod workloads;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use daemon::drain::Drain;
use daemon::tasks::{self, Task};
use mesh_api::Spec;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use crate::board::Board;
use crate::client::Client;
use crate::dns::{NameServer, host_resolver};
use crate::error::LocalError;
use crate::manifest::local_mesh::ProxyChoice;
use crate::manifest::{self, DesiredMesh};
use crate::network;
use crate::node::Node;
use crate::platform::{ADDRESSES, Platform};
use crate::pod::sidecar::MeshFacts;
use crate::publisher::{Catalog, Publisher, SharedCatalog};
use crate::services::{CONTROL_HOST, LocalService, wants_address};
use crate::state_dir::{self, MESH_CONFIG, StateDir, SupervisorLock};
use control_process::{ControlOptions, ControlProcess, DISCOVERY_PORT};
use gateways::Gateways;
use outside::Outside;
use workloads::Workloads;

/// What `up` asks for.
#[derive(Debug, Clone)]
pub struct UpOptions {
    pub folder: PathBuf,
    pub mesh: Option<String>,
    pub build: bool,
    /// A signing certificate and its key for the authority.
    pub authority: Option<(PathBuf, PathBuf)>,
}

/// A mesh that runs.
#[derive(Debug)]
pub struct Supervisor {
    pub(crate) platform: Arc<Platform>,
    pub(crate) workloads: Workloads,
    pub(crate) gateways: Arc<Gateways>,
    catalog: SharedCatalog,
    desired: Mutex<DesiredMesh>,
    control: tokio::sync::Mutex<Option<ControlProcess>>,
    outside: Outside,
    stop: Notify,
    stopping: AtomicBool,
    drain: Drain,
    _lock: SupervisorLock,
    background: Mutex<Vec<Task<()>>>,
}

/// Reads the folder, or says everything that is wrong with it.
pub fn read(options: &UpOptions) -> Result<DesiredMesh, LocalError> {
    let desired = manifest::read(&options.folder, options.mesh.as_deref())?;
    if !nix::unistd::geteuid().is_root() {
        return Err(LocalError::refused(
            "`stolos up` makes network and mount namespaces and needs root for that: \
             run it with sudo",
        ));
    }
    Ok(desired)
}

/// Runs the folder's build commands, as `up` does before the start.
pub async fn run_build(folder: &Path, mesh: Option<&str>) -> Result<(), LocalError> {
    build::run(&manifest::read(folder, mesh)?).await
}

/// Runs the build commands, then reads the folder again: a command's name is looked up beside
/// stolos when it is read, and on a fresh machine the build is what puts it there.
async fn built(options: &UpOptions, desired: DesiredMesh) -> Result<DesiredMesh, LocalError> {
    if !options.build {
        return Ok(desired);
    }
    build::run(&desired).await?;
    manifest::read(&options.folder, options.mesh.as_deref())
}

impl Supervisor {
    /// Starts everything; returns when the control plane runs and the pods are being started.
    /// `None`: another supervisor runs this mesh.
    pub async fn start(
        options: &UpOptions,
        desired: DesiredMesh,
    ) -> Result<Option<Arc<Supervisor>>, LocalError> {
        let state = StateDir::of_mesh(&desired.name)?;
        state.create()?;
        let Some(lock) = state.lock()? else {
            return Ok(None);
        };
        clean_up(&state);
        let _ = std::fs::remove_dir_all(state.pods()); // logs: worth keeping until now
        let desired = built(options, desired).await?;
        let program = build::keep_program(&state)?;
        let node = Node::create()?;
        network::set_up_node(&node).await?;
        let outside = Outside::open(&node).await;
        let upstream = outside.is_open().then(host_resolver).flatten();
        let names = NameServer::start(&node, upstream).await?;
        let (published_sender, published) = watch::channel(0);
        let platform = Arc::new(Platform {
            node: node.clone(),
            state_root: state_dir::root()?,
            program: program.clone(),
            board: Board::default(),
            control: Client::new(&state.control_socket(), "the control plane"),
            envoy: envoy::find(&desired.settings),
            addresses: Mutex::new(state.load(ADDRESSES)),
            facts: Mutex::new(facts(&desired)),
            closing: AtomicBool::new(false),
            published,
            state: state.clone(),
        });
        let catalog = SharedCatalog::default();
        let supervisor = Arc::new(Supervisor {
            workloads: Workloads::new(Arc::clone(&platform)),
            gateways: Arc::new(Gateways::new(
                Arc::clone(&platform),
                Arc::clone(&catalog),
                desired.settings.clone(),
            )),
            catalog: Arc::clone(&catalog),
            desired: Mutex::new(desired.clone()),
            control: tokio::sync::Mutex::default(),
            outside,
            stop: Notify::new(),
            stopping: AtomicBool::new(false),
            drain: Drain::new().0,
            _lock: lock,
            background: Mutex::default(),
            platform,
        });
        supervisor.set_catalog(&desired)?;
        let publisher = Publisher {
            node: node.clone(),
            board: supervisor.platform.board.clone(),
            state: state.clone(),
            catalog,
            names,
            published: published_sender,
        };
        supervisor.keep(tasks::spawn("publisher", publisher.run()));
        supervisor.start_control(&node, options, program).await?;
        supervisor.serve_api();
        supervisor.bring_about(desired).await?;
        let gateways = Arc::clone(&supervisor.gateways);
        supervisor.keep(tasks::spawn("gateways", gateways.run()));
        Ok(Some(supervisor))
    }

    async fn start_control(
        &self,
        node: &Node,
        options: &UpOptions,
        program: PathBuf,
    ) -> Result<(), LocalError> {
        let state = self.platform.state.clone();
        self.set_mesh_config(&self.desired())?;
        // The registry must be there before control asks for it: an empty one means no pods.
        let mut published = self.platform.published.clone();
        self.platform.board.changed();
        let _ = published.wait_for(|version| *version > 0).await;
        let authority = options.authority.clone();
        let control = ControlOptions {
            program,
            state: state.clone(),
            authority,
        };
        let control = ControlProcess::start(node, control).await?;
        let path = state.root_certificate();
        let root_certificate = std::fs::read_to_string(&path)
            .map_err(|error| LocalError::system(&format!("read {}", path.display()), error))?;
        let facts = &self.platform.facts;
        facts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .root_certificate = root_certificate;
        *self.control.lock().await = Some(control);
        Ok(())
    }

    fn serve_api(self: &Arc<Self>) {
        let path = self.platform.state.supervisor_socket();
        let serving = api::serve(Arc::clone(self), path, self.drain.watch());
        self.keep(tasks::spawn("supervisor-api", async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the supervisor's interface is not available");
            }
        }));
    }

    /// Reads the folder again and makes it so; the findings that are only warnings.
    pub async fn converge(&self, folder: Option<&Path>) -> Result<Vec<String>, LocalError> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(LocalError::refused(
                "the mesh is being stopped: wait for `stolos down` to return",
            ));
        }
        let known = self.desired();
        let folder = folder.unwrap_or(&known.folder);
        let desired = manifest::read(folder, Some(&known.name))?;
        let warnings = desired.warnings.iter().map(ToString::to_string).collect();
        self.set_catalog(&desired)?;
        self.set_mesh_config(&desired)?;
        self.gateways.set_settings(desired.settings.clone());
        *self.desired.lock().unwrap_or_else(PoisonError::into_inner) = desired.clone();
        self.bring_about(desired).await?;
        Ok(warnings)
    }

    async fn bring_about(&self, desired: DesiredMesh) -> Result<(), LocalError> {
        self.apply(&desired).await?;
        let mut wanted = gateways::workloads(&desired.settings);
        wanted.extend(desired.workloads);
        let wants_envoy = |workload: &crate::manifest::Workload| {
            workload.template.proxy.choice() == Some(ProxyChoice::Envoy)
        };
        if self.platform.envoy.is_none() && wanted.iter().any(wants_envoy) {
            return Err(LocalError::refused(envoy::MISSING));
        }
        self.workloads.converge(wanted).await;
        self.gateways.refresh().await;
        Ok(())
    }

    /// For the control plane, which watches the file, and for proxies started from now on.
    fn set_mesh_config(&self, desired: &DesiredMesh) -> Result<(), LocalError> {
        let config = desired.settings.mesh_config.clone();
        let config = config.unwrap_or_else(|| json!({}));
        self.platform.state.store(MESH_CONFIG, &config)?;
        let mut known = self
            .platform
            .facts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.proxy_config = facts(desired).proxy_config;
        known
            .trusted_certificates
            .clone_from(&desired.trusted_certificates);
        Ok(())
    }

    /// Services with their addresses, namespaces, hosts.
    fn set_catalog(&self, desired: &DesiredMesh) -> Result<(), LocalError> {
        let mut objects = desired.services.clone();
        for name in gateways::names() {
            let known = objects.iter().any(|object| {
                object.meta.namespace == gateways::NAMESPACE && object.meta.name == name
            });
            if !known {
                objects.push(gateways::service(name, &BTreeSet::new())?);
            }
        }
        let mut services = Vec::new();
        for object in objects {
            let key = format!("{}/{}", object.meta.namespace, object.meta.name);
            let Spec::Service(spec) = &object.spec else {
                continue;
            };
            let address = if wants_address(spec) {
                let wanted = spec.cluster_ip.parse().ok();
                Some(
                    self.platform
                        .with_addresses(|all| all.service(&key, wanted))?,
                )
            } else {
                None
            };
            services.push(LocalService { object, address });
        }
        let keys = services.iter().map(LocalService::key).collect();
        self.platform.with_addresses(|all| {
            all.keep_services(&keys);
            Ok(())
        })?;
        *self.catalog.lock().unwrap_or_else(PoisonError::into_inner) = Catalog {
            services,
            namespaces: desired.namespaces.clone(),
            hosts: desired.settings.hosts.clone(),
        };
        self.platform.board.changed();
        Ok(())
    }

    /// Kubernetes' Service objects, their virtual IPs filled in.
    pub fn services(&self) -> Vec<Value> {
        let catalog = self.catalog.lock().unwrap_or_else(PoisonError::into_inner);
        catalog
            .services
            .iter()
            .map(crate::publisher::service_json)
            .collect()
    }

    /// The changes of what `status` shows.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.platform.board.version()
    }

    pub fn ask_to_stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.stop.notify_one();
    }

    /// Returns once someone has asked to stop.
    pub async fn stop_asked(&self) {
        self.stop.notified().await;
    }

    /// Ends everything gracefully: pods first, then the control plane.
    pub async fn shut_down(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.platform.closing.store(true, Ordering::Relaxed);
        self.workloads.stop().await;
        if let Some(control) = self.control.lock().await.take() {
            control.stop().await;
        }
        self.drain.start();
        self.background
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        clean_up(&self.platform.state);
    }

    fn desired(&self) -> DesiredMesh {
        self.desired
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn keep(&self, task: Task<()>) {
        self.background
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(task);
    }
}

fn facts(desired: &DesiredMesh) -> MeshFacts {
    let config = desired
        .settings
        .mesh_config
        .clone()
        .unwrap_or_else(|| json!({}));
    let trust_domain = config.get("trustDomain").and_then(Value::as_str);
    MeshFacts {
        trust_domain: trust_domain.unwrap_or("cluster.local").to_owned(),
        cluster: "Kubernetes".to_owned(),
        discovery: format!("{CONTROL_HOST}:{DISCOVERY_PORT}"),
        proxy_config: config
            .get("defaultConfig")
            .cloned()
            .unwrap_or_else(|| json!({})),
        root_certificate: String::new(),
        trusted_certificates: desired.trusted_certificates.clone(),
    }
}

/// Sockets and the pods' folders of a supervisor that has ended. Its processes, namespaces,
/// links and rules ended with it.
fn clean_up(state: &StateDir) {
    let _ = std::fs::remove_file(state.supervisor_socket());
    let _ = std::fs::remove_file(state.control_socket());
    let _ = std::fs::remove_file(state.registry());
}

/// The last lines of a log.
pub(crate) fn tail(path: &Path, count: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
