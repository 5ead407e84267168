//! Serves the admin endpoints over HTTP: reads the picture from the main task, hands it commands.
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use daemon::admin::{Listener, Router};
use daemon::drain::DrainWatch;
use http::{Method, StatusCode};
use tokio::sync::{mpsc, oneshot};

use crate::admin::{self, Answer, COMMAND_PATHS, Command, Picture, Query, READ_PATHS};
use crate::parse::Environment;
use crate::parse::address::Address;
use crate::parse::bootstrap::Bootstrap;
use crate::run::{ProxyError, Request};

/// What answers need beside the main task's view.
pub struct Admin {
    pub bootstrap: Arc<Bootstrap>,
    pub message: Arc<envoy_api::bootstrap::Bootstrap>,
    pub environment: Environment,
    pub concurrency: usize,
    pub drain_time: Duration,
    pub requests: mpsc::Sender<Request>,
}

struct Server {
    admin: Admin,
    started: SystemTime,
    failed: AtomicBool,
}

/// Starts the server where the bootstrap has an address for it.
pub async fn start(admin: Admin) -> Result<Option<SocketAddr>, ProxyError> {
    let Some(config) = &admin.bootstrap.admin else {
        return Ok(None);
    };
    let (listener, address) = match &config.address {
        Address::Socket(address) => {
            let socket = tokio::net::TcpListener::bind(address).await?;
            let address = socket.local_addr()?;
            (Listener::Tcp(socket), Some(address))
        }
        Address::Pipe { path, .. } => (Listener::unix(path, 0o600)?, None),
        Address::Name { .. } => return Ok(None),
    };
    let server = Arc::new(Server {
        admin,
        started: SystemTime::now(),
        failed: AtomicBool::new(false),
    });
    let mut router = Router::new();
    for path in READ_PATHS {
        let server = server.clone();
        router = router.get(path, move |request: daemon::admin::Request| {
            let server = server.clone();
            async move { respond(server.read(&request).await) }
        });
    }
    for path in COMMAND_PATHS {
        let server = server.clone();
        router = router.route(
            Method::POST,
            path,
            move |request: daemon::admin::Request| {
                let server = server.clone();
                async move { respond(server.obey(&request).await) }
            },
        );
    }
    tokio::spawn(daemon::admin::serve(listener, router, DrainWatch::never()));
    Ok(address)
}

fn respond(answer: Answer) -> daemon::admin::Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    daemon::admin::response(status, answer.content_type, answer.body)
}

impl Server {
    async fn read(&self, request: &daemon::admin::Request) -> Answer {
        let query: Query = request.query_pairs().collect();
        match self.picture().await {
            Some(picture) => admin::read(&request.path, &query, &picture),
            None => Answer::failed(503, "the proxy is stopping\n"),
        }
    }

    async fn picture(&self) -> Option<Picture> {
        let (answer, wait) = oneshot::channel();
        self.admin.requests.send(Request::View(answer)).await.ok()?;
        let view = *wait.await.ok()?;
        let admin = &self.admin;
        Some(Picture {
            bootstrap: admin.message.clone(),
            environment: admin.environment.clone(),
            started: self.started,
            clusters: view.clusters,
            listeners: view.listeners,
            routes: view.routes,
            endpoints: view.endpoints,
            secrets: view.secrets,
            runtime: admin.bootstrap.runtime.clone(),
            concurrency: admin.concurrency,
            ready: view.ready,
            draining: view.draining,
            failed: self.failed.load(Ordering::Relaxed),
            drain_time: admin.drain_time,
        })
    }

    async fn obey(&self, request: &daemon::admin::Request) -> Answer {
        let query: Query = request.query_pairs().collect();
        let Some(command) = admin::command(&request.path, &query) else {
            return Answer::failed(404, "invalid path\n");
        };
        match command {
            Command::Quit => {
                let _ = self.admin.requests.send(Request::Quit).await;
            }
            Command::DrainListeners {
                inbound_only,
                graceful,
            } => {
                let (done, wait) = oneshot::channel();
                let request = Request::Drain {
                    stop_listening: !graceful,
                    inbound_only,
                    done,
                };
                if self.admin.requests.send(request).await.is_ok() {
                    let _ = wait.await;
                }
            }
            Command::HealthCheck { ok } => self.failed.store(!ok, Ordering::Relaxed),
            Command::ResetCounters => self.admin.environment.stats.reset_counters(),
            Command::ReopenLogs => self.admin.environment.sinks.reopen(),
            Command::Logging(_) => {
                return Answer::failed(501, "log levels are set by RUST_LOG at the start\n");
            }
        }
        Answer::text("OK\n")
    }
}
