//! The process: bootstrap, workers, the main task that owns the state, and the orderly end.
use std::sync::Arc;
use std::time::Duration;

use daemon::drain::DrainWatch;
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use xds::grpc::client::Event;

use crate::admin_server::Admin;
use crate::discovery::{Discovery, Origin};
use crate::parse::bootstrap::Bootstrap;
use crate::parse::{self, Environment};
use crate::state::{Internal, Notice, Observer, Raw, State, View};
use crate::stats::Stats;
use crate::workers::{self, WorkerHandle, WorkerSettings};

/// How to run, beside the bootstrap.
#[derive(Clone)]
pub struct Options {
    /// Worker threads; `None` = one for each core.
    pub concurrency: Option<usize>,
    /// How long connections of replaced or removed chains may go on.
    pub drain_time: Duration,
    /// How long the process waits for its connections at the end.
    pub shutdown_time: Duration,
    pub observer: Option<Observer>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            concurrency: None,
            drain_time: Duration::from_secs(600),
            shutdown_time: Duration::from_secs(5),
            observer: None,
        }
    }
}

/// Why the proxy did not start or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("{0}")]
    Config(String),
    #[error("cannot start: {0}")]
    Io(#[from] std::io::Error),
}

/// What admin endpoints (and tests) ask the main task for.
#[derive(Debug)]
pub enum Request {
    View(oneshot::Sender<Box<View>>),
    Drain {
        stop_listening: bool,
        inbound_only: bool,
        done: oneshot::Sender<()>,
    },
    Quit,
}

/// The main task's queue of requests.
const QUEUED_REQUESTS: usize = 64;
/// How long the end of the process waits for the disk, per log.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Runs the proxy until it is told to stop. Blocks; starts its own threads.
pub fn run(
    bootstrap: envoy_api::bootstrap::Bootstrap,
    options: Options,
    drain: DrainWatch,
) -> Result<(), ProxyError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, main_task(bootstrap, options, drain))
}

/// Whether the bootstrap and its static resources are accepted; nothing is opened or connected.
pub fn validate(message: &envoy_api::bootstrap::Bootstrap) -> Result<(), ProxyError> {
    let environment = Environment {
        stats: Arc::new(Stats::new(1)),
        node: Arc::new(message.node.clone().unwrap_or_default()),
        ..Environment::default()
    };
    let bootstrap = parse::bootstrap::bootstrap(message, &environment)
        .map_err(|error| ProxyError::Config(error.to_string()))?;
    refuse_sources(&bootstrap)?;
    let bootstrap = Arc::new(bootstrap);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (internal, _events) = mpsc::channel(QUEUED_REQUESTS);
        let mut state = State::new(environment, bootstrap.clone(), Vec::new(), None, internal);
        add_static(&mut state, &bootstrap, message)
    })
}

// tidy: long function: the order in which a proxy starts, then its one loop.
async fn main_task(
    message: envoy_api::bootstrap::Bootstrap,
    options: Options,
    drain: DrainWatch,
) -> Result<(), ProxyError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = options
        .concurrency
        .filter(|count| *count > 0)
        .unwrap_or(cores);
    let environment = Environment {
        stats: Arc::new(Stats::new(count)),
        node: Arc::new(message.node.clone().unwrap_or_default()),
        ..Environment::default()
    };
    let bootstrap = parse::bootstrap::bootstrap(&message, &environment)
        .map_err(|error| ProxyError::Config(error.to_string()))?;
    refuse_sources(&bootstrap)?;
    let bootstrap = Arc::new(bootstrap);
    environment.stats.configure(bootstrap.stats.clone());
    let workers = start_workers(count, &environment, &bootstrap, &options)?;
    let (internal, mut internal_events) = mpsc::channel(QUEUED_REQUESTS);
    let senders = workers
        .iter()
        .map(|worker| worker.commands.clone())
        .collect();
    let mut state = State::new(
        environment.clone(),
        bootstrap.clone(),
        senders,
        options.observer.clone(),
        internal,
    );
    let (requests, mut asked) = mpsc::channel(QUEUED_REQUESTS);
    let message = Arc::new(message);
    let admin = crate::admin_server::start(Admin {
        bootstrap: bootstrap.clone(),
        message: message.clone(),
        environment: environment.clone(),
        concurrency: count,
        drain_time: options.drain_time,
        requests: requests.clone(),
    });
    let admin = admin.await?;
    if let (Some(observer), Some(address)) = (&options.observer, admin) {
        observer(Notice::Admin(address));
    }
    let (mut discovery, mut events) = Discovery::new(bootstrap.clone(), environment.stats.clone());
    add_static(&mut state, &bootstrap, &message)?;
    state.progress().await;
    discovery.start().map_err(ProxyError::Config)?;
    discovery.subscribe(state.needs());
    loop {
        let deadline = state.next_deadline();
        tokio::select! {
            event = events.recv() => {
                if let Some((origin, event)) = event {
                    on_event(&mut state, &mut discovery, &origin, event).await;
                }
            }
            event = internal_events.recv() => {
                if let Some(Internal::Resolved(name, resolved)) = event {
                    state.resolved(&name, resolved).await;
                }
            }
            request = asked.recv() => match request {
                Some(Request::View(answer)) => {
                    let _ = answer.send(Box::new(state.view()));
                }
                Some(Request::Drain { stop_listening, inbound_only, done }) => {
                    state.drain(stop_listening, inbound_only).await;
                    let _ = done.send(());
                }
                Some(Request::Quit) | None => break,
            },
            () = sleep_until(deadline) => state.progress().await,
            () = drain.started() => {
                wind_down(&mut state, &mut asked, options.shutdown_time).await;
                break;
            }
        }
        discovery.subscribe(state.needs());
    }
    state.stop().await;
    drop(state);
    let sinks = environment.sinks.clone();
    tokio::task::spawn_blocking(move || {
        workers.into_iter().for_each(WorkerHandle::join);
        // What the last streams logged.
        sinks.flush(LAST_LINES);
    })
    .await
    .ok();
    Ok(())
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn start_workers(
    count: usize,
    environment: &Environment,
    bootstrap: &Bootstrap,
    options: &Options,
) -> Result<Vec<WorkerHandle>, ProxyError> {
    let settings = WorkerSettings {
        workers: count,
        drain_time: options.drain_time,
        environment: environment.clone(),
        max_connections: bootstrap.max_downstream_connections,
        connections: Arc::default(),
    };
    (0..count)
        .map(|index| Ok(workers::start(index, settings.clone())?))
        .collect()
}

/// Static resources go the same way as dynamic ones; here a problem ends the start.
fn add_static(
    state: &mut State,
    bootstrap: &Bootstrap,
    message: &envoy_api::bootstrap::Bootstrap,
) -> Result<(), ProxyError> {
    let resources = message.static_resources.clone().unwrap_or_default();
    let bytes = |encoded: Vec<u8>| Raw::new(encoded.into(), "", true);
    for (secret, message) in bootstrap.secrets.iter().zip(&resources.secrets) {
        let raw = bytes(message.encode_to_vec());
        state
            .add_secret(secret.clone(), raw)
            .map_err(ProxyError::Config)?;
    }
    for (cluster, message) in bootstrap.clusters.iter().zip(&resources.clusters) {
        let raw = bytes(message.encode_to_vec());
        state
            .add_cluster(cluster.clone(), raw)
            .map_err(ProxyError::Config)?;
    }
    for message in &resources.listeners {
        let raw = bytes(message.encode_to_vec());
        state
            .add_listener(message, raw)
            .map_err(ProxyError::Config)?;
    }
    Ok(())
}

fn refuse_sources(bootstrap: &Bootstrap) -> Result<(), ProxyError> {
    use crate::parse::config_source::SourceKind;
    for (field, source) in [
        ("lds_config", &bootstrap.lds),
        ("cds_config", &bootstrap.cds),
    ] {
        match source.as_ref().map(|source| &source.kind) {
            None => {}
            Some(SourceKind::Ads) if bootstrap.ads.is_some() => {}
            Some(SourceKind::Ads) => {
                let reason =
                    format!("bootstrap: dynamic_resources.{field}: there is no ads_config");
                return Err(ProxyError::Config(reason));
            }
            Some(_) => {
                let reason = format!("bootstrap: dynamic_resources.{field}: only ADS is supported");
                return Err(ProxyError::Config(reason));
            }
        }
    }
    Ok(())
}

async fn on_event(state: &mut State, discovery: &mut Discovery, origin: &Origin, event: Event) {
    match event {
        Event::Connected => {
            discovery.count(origin, true);
            tracing::info!(?origin, "discovery stream is open");
        }
        Event::Disconnected { reason } => {
            discovery.count(origin, false);
            tracing::info!(?origin, %reason, "discovery stream ended")
        }
        Event::Update(update) => {
            let result = state.apply(&update).await;
            // Names that became needed are asked for before the acknowledgement, so that the
            // server answers both in one go.
            discovery.subscribe(state.needs());
            state.confirmed().await;
            count_update(state, update.kind, result.is_ok());
            let Some(handle) = discovery.handle(origin) else {
                return;
            };
            match result {
                Ok(()) => handle.accept(&update),
                Err(message) => {
                    tracing::warn!(kind = ?update.kind, %message, "configuration refused");
                    handle.reject(&update, message);
                }
            }
        }
    }
}

/// Envoy's counters of discovery; an agent's readiness check asks for these.
fn count_update(state: &State, kind: envoy_api::ResourceType, accepted: bool) {
    let prefix = match kind {
        envoy_api::ResourceType::Cluster => "cluster_manager.cds",
        envoy_api::ResourceType::Listener => "listener_manager.lds",
        _ => return,
    };
    let stats = &state.environment.stats;
    let result = if accepted {
        "update_success"
    } else {
        "update_rejected"
    };
    stats.counter(&format!("{prefix}.update_attempt")).add(1);
    stats.counter(&format!("{prefix}.{result}")).add(1);
}

/// In-flight work finishes, new work is refused, within the time allowed.
async fn wind_down(state: &mut State, asked: &mut mpsc::Receiver<Request>, limit: Duration) {
    state.drain(true, false).await;
    let deadline = tokio::time::Instant::now() + limit;
    while state.busy().await > 0 && tokio::time::Instant::now() < deadline {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
            request = asked.recv() => match request {
                Some(Request::View(answer)) => {
                    let _ = answer.send(Box::new(state.view()));
                }
                Some(Request::Quit) | None => return,
                Some(Request::Drain { done, .. }) => {
                    let _ = done.send(());
                }
            },
        }
    }
}
