//! The proxy that carries the traffic: ours on threads of this process, or Envoy as a child.
//! Both are drained through their admin interface and then ended.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use daemon::drain::Drain;
use http::Method;
use tokio::sync::oneshot;

use crate::envoy_process::EnvoyProcess;
use crate::http_client::Call;
use crate::options::{Engine, Options, Role};
use crate::status_server::ProxyReadiness;
use crate::{AgentError, bootstrap};

/// For what our proxy still has open when its drain time is over.
const LAST_CONNECTIONS: Duration = Duration::from_secs(1);
const THREAD_LIMIT: Duration = Duration::from_secs(10);

pub struct Running {
    kind: Kind,
    admin: SocketAddr,
    role: Role,
}

enum Kind {
    Stolos {
        drain: Drain,
        ended: oneshot::Receiver<Result<(), String>>,
    },
    Envoy(EnvoyProcess),
}

impl Running {
    pub async fn start(options: &Options, ready: ProxyReadiness) -> Result<Running, AgentError> {
        let kind = match &options.engine {
            Engine::Stolos => start_stolos(options, ready)?,
            Engine::Envoy { path } => Kind::Envoy(EnvoyProcess::start(options, path).await?),
        };
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, options.ports.admin));
        Ok(Running {
            kind,
            admin,
            role: options.role,
        })
    }

    /// Returns when the proxy has ended by itself, which it should not.
    pub async fn ended(&mut self) -> AgentError {
        match &mut self.kind {
            Kind::Envoy(envoy) => AgentError::Proxy(envoy.ended().await),
            Kind::Stolos { ended, .. } => AgentError::Proxy(match ended.await {
                Ok(Ok(())) => "ended by itself".to_string(),
                Ok(Err(reason)) => reason,
                Err(_) => "its main thread panicked".to_string(),
            }),
        }
    }

    /// Tells clients to go elsewhere; new connections are still served.
    pub async fn start_drain(&self) {
        let path = match self.role {
            Role::Sidecar => "/drain_listeners?inboundonly&graceful",
            Role::Router => "/drain_listeners?graceful",
        };
        if let Err(error) = Call::new(Method::POST, self.admin, path).send().await {
            tracing::warn!(%error, "the proxy's admin does not take the drain");
        }
    }

    pub async fn stop(&mut self) {
        match &mut self.kind {
            Kind::Envoy(envoy) => envoy.terminate().await,
            Kind::Stolos { drain, ended } => {
                drain.start();
                if tokio::time::timeout(THREAD_LIMIT, ended).await.is_err() {
                    tracing::warn!("the proxy's threads do not end");
                }
            }
        }
    }
}

/// Connections of clients that are open; `None` if the proxy does not say.
pub async fn active_connections(admin: SocketAddr) -> Option<u64> {
    let path = "/stats?usedonly&filter=^listener\\..*\\.downstream_cx_active$";
    let answer = Call::new(Method::GET, admin, path).send().await.ok()?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    // The admin's own listener is not the mesh's.
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("listener.admin."));
    Some(
        lines
            .filter_map(|line| line.rsplit(": ").next()?.parse::<u64>().ok())
            .sum(),
    )
}

fn start_stolos(options: &Options, ready: ProxyReadiness) -> Result<Kind, AgentError> {
    let bootstrap = bootstrap::message(options)?;
    let observer: proxy::state::Observer = Arc::new(move |notice| {
        if matches!(notice, proxy::state::Notice::Ready) {
            ready.reached();
        }
    });
    let proxy_options = proxy::Options {
        concurrency: options.proxy_config.concurrency.map(|count| count as usize),
        drain_time: options.proxy_config.drain_duration,
        shutdown_time: LAST_CONNECTIONS,
        observer: Some(observer),
    };
    let (drain, watch) = Drain::new();
    let (sender, ended) = oneshot::channel();
    // Its main task is not Send and has a runtime of its own.
    let thread = std::thread::Builder::new().name("proxy-main".to_string());
    let run = move || {
        let result = proxy::run(bootstrap, proxy_options, watch);
        let _ = sender.send(result.map_err(|error| error.to_string()));
    };
    thread
        .spawn(run)
        .map_err(AgentError::io("the proxy's main thread"))?;
    Ok(Kind::Stolos { drain, ended })
}
