//! One pod's agent from start to end: sockets, identity, relay, DNS, status, proxy; then the drain.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::admin::{self, Listener};
use daemon::drain::{Drain, DrainWatch};
use daemon::metrics::Registry;
use daemon::readiness::{Gate, Readiness};
use daemon::tasks::Tasks;
use envoy_api::istio::NameTable;
use pki::rotation::Schedule;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};

use crate::app_probes::AppProbes;
use crate::control_plane::ControlPlane;
use crate::dns::forward::Forwarder;
use crate::dns::{self, Client, ResolvConf, Zone};
use crate::engine::Running;
use crate::identity::{self, IdentityWatch, Renewal};
use crate::metrics_merge::Merged;
use crate::options::{Engine, Options, Role};
use crate::status_server::{Order, ProxyReadiness, StatusServer};
use crate::xds_relay::Relay;
use crate::{AgentError, sds};

/// The agent's own servers, once the proxy has ended.
const TASKS_LIMIT: Duration = Duration::from_secs(5);
const ORDERS: usize = 4;

/// Runs until the drain starts (or the pod is told to end), then drains the proxy and ends.
pub async fn run(options: Options, drain: DrainWatch) -> Result<(), AgentError> {
    // The services outlive the caller's drain: the proxy needs them while it drains.
    let (services, watch) = Drain::new();
    let tasks = Tasks::new();
    let result = serve(&options, &tasks, watch, drain).await;
    services.start();
    if let Err(left) = tasks.join_within(TASKS_LIMIT).await {
        tracing::debug!(?left, "tasks that did not end in time");
    }
    result
}

async fn serve(
    options: &Options,
    tasks: &Tasks,
    services: DrainWatch,
    drain: DrainWatch,
) -> Result<(), AgentError> {
    let registry = Registry::new();
    let readiness = Readiness::new();
    let alive = readiness.gate("the end of the shutdown");
    alive.open();
    create_folder(&options.paths.config).await?;
    let identity = start_identity(options, tasks, &services).await?;
    let (names, names_watch) = watch::channel(None);
    let names = options.dns.is_on.then(|| Arc::new(names));
    let socket = socket(&options.paths.xds_socket())?;
    let discovery = ControlPlane::discovery(options);
    let relay = Relay::new(discovery, identity, names, &registry);
    tasks.spawn("xDS relay", relay.serve(socket, services.clone()));
    if options.dns.is_on {
        let gate = readiness.gate("the DNS name table");
        let starting = start_dns(options, tasks, &registry, names_watch.clone(), gate);
        let (server, sockets) = starting.await?;
        tasks.spawn("DNS", server.serve(sockets, services.clone()));
    }
    let proxy = ProxyReadiness::new(&readiness, options.ports.admin);
    let (orders, mut ordered) = mpsc::channel(ORDERS);
    let status = StatusServer {
        readiness,
        proxy: proxy.clone(),
        app_probes: Arc::new(app_probes(options)?),
        metrics: Arc::new(Merged::new(
            registry,
            options.ports.prometheus,
            &options.prometheus_annotations,
        )?),
        names: names_watch,
        orders,
    };
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, options.ports.status));
    let listener = Listener::tcp(address)
        .await
        .map_err(AgentError::io(format!("status server on {address}")))?;
    tasks.spawn(
        "status server",
        admin::serve(listener, status.router(), services.clone()),
    );
    let mut running = Running::start(options, proxy).await?;
    let engine = match &options.engine {
        Engine::Stolos => "stolos",
        Engine::Envoy { .. } => "envoy",
    };
    tracing::info!(node = options.node_id(), engine, "agent started");
    let result = supervise(options, &mut running, &mut ordered, drain, alive).await;
    running.stop().await;
    result
}

/// Until the proxy ends, or somebody wants the end.
async fn supervise(
    options: &Options,
    running: &mut Running,
    orders: &mut mpsc::Receiver<Order>,
    drain: DrainWatch,
    alive: Gate,
) -> Result<(), AgentError> {
    let mut is_drained = false;
    loop {
        tokio::select! {
            error = running.ended() => return Err(error),
            () = drain.started() => break,
            order = orders.recv() => match order {
                Some(Order::Drain) => {
                    tracing::info!("drain was asked for");
                    alive.close();
                    running.start_drain().await;
                    is_drained = true;
                }
                Some(Order::Quit) | None => {
                    tracing::info!("quit was asked for");
                    return Ok(());
                }
            },
        }
    }
    alive.close();
    if is_drained {
        return Ok(());
    }
    tracing::info!("draining");
    running.start_drain().await;
    tokio::select! {
        error = running.ended() => Err(error),
        () = wind_down(options) => Ok(()),
    }
}

async fn wind_down(options: &Options) {
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, options.ports.admin));
    if !options.exit_on_zero_active_connections {
        tokio::time::sleep(options.proxy_config.termination_drain_duration).await;
        return;
    }
    tokio::time::sleep(options.minimum_drain_duration).await;
    let begin = Instant::now();
    while let Some(active) = crate::engine::active_connections(admin).await
        && active > 0
    {
        tracing::info!(active, waited = ?begin.elapsed(), "connections are still open");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Own certificates on our own socket, unless another agent (SPIRE) serves that socket already.
async fn start_identity(
    options: &Options,
    tasks: &Tasks,
    services: &DrainWatch,
) -> Result<IdentityWatch, AgentError> {
    let (publisher, identity) = identity::channel();
    let renewal = Renewal {
        authority: ControlPlane::authority(options),
        id: options.id.clone(),
        ttl: options.certificate_ttl,
        schedule: Schedule::default(),
    };
    tasks.spawn(
        "certificate renewal",
        renewal.run(publisher, services.clone()),
    );
    let path = &options.paths.sds_socket;
    if let Some(folder) = path.parent() {
        create_folder(folder).await?;
    }
    match socket(path) {
        Ok(listener) => {
            tasks.spawn(
                "SDS",
                sds::serve(listener, identity.clone(), services.clone()),
            );
        }
        Err(AgentError::Io { source, .. }) if source.kind() == std::io::ErrorKind::AddrInUse => {
            tracing::info!(socket = %path.display(), "another agent serves the certificates");
        }
        Err(error) => return Err(error),
    }
    Ok(identity)
}

async fn start_dns(
    options: &Options,
    tasks: &Tasks,
    registry: &Registry,
    mut names: watch::Receiver<Option<Arc<NameTable>>>,
    gate: Gate,
) -> Result<(dns::Server, dns::Sockets), AgentError> {
    let error = || AgentError::io(format!("DNS on {}", options.dns.address));
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(&options.dns.address)
        .await
        .map_err(error())?
        .collect();
    // Of "localhost", the address to which this pod's captured queries are redirected.
    let is_v4 = options.pod.ips.iter().any(|ip| ip.is_ipv4());
    let same_family = addresses.iter().find(|address| address.is_ipv4() == is_v4);
    let address = same_family
        .or(addresses.first())
        .copied()
        .ok_or_else(|| AgentError::setting("DNS_PROXY_ADDR", "resolves to nothing"))?;
    let sockets = dns::Sockets::bind(address).await.map_err(error())?;
    let resolv_conf = tokio::fs::read_to_string(&options.paths.resolv_conf).await;
    let resolv_conf = ResolvConf::parse(&resolv_conf.unwrap_or_default());
    let client = Client {
        namespace: options.pod.namespace.clone(),
        dns_domain: options.dns_domain.clone(),
        search: resolv_conf.search,
    };
    let (zone, zone_watch) = watch::channel(None);
    tasks.spawn("name table", async move {
        while names.changed().await.is_ok() {
            let Some(table) = names.borrow_and_update().clone() else {
                continue;
            };
            zone.send_replace(Some(Arc::new(Zone::from_name_table(&table, &client))));
            gate.open();
        }
    });
    let forwarder = Forwarder {
        is_parallel: options.dns.forward_to_all,
        ..Forwarder::new(resolv_conf.servers, address, options.dns.forward_timeout)
    };
    Ok((dns::Server::new(zone_watch, forwarder, registry), sockets))
}

fn app_probes(options: &Options) -> Result<AppProbes, AgentError> {
    let ip = options.pod.ips[0];
    let mode = options
        .metadata
        .get("INTERCEPTION_MODE")
        .and_then(|mode| mode.as_str());
    let is_captured = options.role == Role::Sidecar && mode != Some("NONE");
    AppProbes::new(&options.app_probers, ip, is_captured)
}

async fn create_folder(path: &Path) -> Result<(), AgentError> {
    tokio::fs::create_dir_all(path)
        .await
        .map_err(AgentError::io(path.display().to_string()))
}

/// Only this user (root, or the proxy's) may connect: whoever can is the pod.
fn socket(path: &Path) -> Result<UnixListener, AgentError> {
    let listener =
        Listener::unix(path, 0o600).map_err(AgentError::io(path.display().to_string()))?;
    match listener {
        Listener::Unix(listener) => Ok(listener),
        Listener::Tcp(_) => Err(AgentError::NotSupported("a TCP socket here".to_string())),
    }
}
