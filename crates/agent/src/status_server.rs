//! The agent's HTTP server (15020): readiness, probes, metrics, and the end of the pod.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use daemon::admin::{Request, Response, Router, json, text};
use daemon::readiness::{Gate, Readiness};
use envoy_api::istio::NameTable;
use http::{Method, StatusCode};
use tokio::sync::{mpsc, watch};

use crate::app_probes::AppProbes;
use crate::http_client::Call;
use crate::metrics_merge::Merged;

/// What somebody asks the running agent to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// End at once, without draining.
    Quit,
    /// Drain and stay; a later signal ends at once.
    Drain,
}

#[derive(Clone)]
pub struct StatusServer {
    pub readiness: Readiness,
    pub proxy: ProxyReadiness,
    pub app_probes: Arc<AppProbes>,
    pub metrics: Arc<Merged>,
    pub names: watch::Receiver<Option<Arc<NameTable>>>,
    pub orders: mpsc::Sender<Order>,
}

impl StatusServer {
    pub fn router(self) -> Router {
        let (ready, metrics, stats, probes, hooks, quit, drain, names) = (
            self.clone(),
            self.clone(),
            self.clone(),
            self.clone(),
            self.clone(),
            self.clone(),
            self.clone(),
            self,
        );
        Router::new()
            .get("/healthz/ready", move |_| ready.clone().ready())
            .get("/metrics", move |request| metrics.clone().metrics(request))
            .get("/stats/prometheus", move |request| {
                stats.clone().metrics(request)
            })
            .get("/app-health/*", move |request| {
                probes.clone().probe(request)
            })
            .get("/app-lifecycle/*", move |request| {
                hooks.clone().probe(request)
            })
            .post("/quitquitquit", move |request| {
                quit.clone().order(request, Order::Quit)
            })
            .post("/drain", move |request| {
                drain.clone().order(request, Order::Drain)
            })
            .get("/debug/ndsz", move |request| names.clone().names(request))
    }

    async fn ready(self) -> Response {
        self.proxy.look().await;
        if self.readiness.is_ready() {
            return text(StatusCode::OK, "");
        }
        let waiting = self.readiness.waiting_for().join(", ");
        text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: waiting for {waiting}\n"),
        )
    }

    async fn metrics(self, request: Request) -> Response {
        self.metrics.answer(&request).await
    }

    async fn probe(self, request: Request) -> Response {
        self.app_probes.answer(&request).await
    }

    async fn order(self, request: Request, order: Order) -> Response {
        if !request.peer.is_local() {
            return text(StatusCode::FORBIDDEN, "only from this pod\n");
        }
        match self.orders.try_send(order) {
            Ok(()) => text(StatusCode::OK, "OK\n"),
            Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping\n"),
        }
    }

    async fn names(self, request: Request) -> Response {
        if !request.peer.is_local() {
            return text(StatusCode::FORBIDDEN, "only from this pod\n");
        }
        let table = self.names.borrow().clone();
        let hosts: BTreeMap<String, serde_json::Value> = table
            .iter()
            .flat_map(|table| &table.table)
            .map(|(host, entry)| {
                let entry = serde_json::json!({"ips": entry.ips, "registry": entry.registry,
                    "shortname": entry.shortname, "namespace": entry.namespace});
                (host.clone(), entry)
            })
            .collect();
        json(
            StatusCode::OK,
            serde_json::json!({"table": hosts}).to_string(),
        )
    }
}

/// Opens a gate once the proxy has its first configuration and its workers run; then it stays.
#[derive(Clone)]
pub struct ProxyReadiness {
    gate: Gate,
    admin: SocketAddr,
    was_ready: Arc<AtomicBool>,
}

const READY_STATS: &str = "/stats?usedonly&filter=^(server.state|\
    listener_manager.workers_started|cluster_manager.cds.update_success|\
    listener_manager.lds.update_success)$";

impl ProxyReadiness {
    pub fn new(readiness: &Readiness, admin_port: u16) -> ProxyReadiness {
        ProxyReadiness {
            gate: readiness.gate("the proxy's first configuration"),
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, admin_port)),
            was_ready: Arc::default(),
        }
    }

    /// The proxy in this process says so itself.
    pub fn reached(&self) {
        self.was_ready.store(true, Ordering::Release);
        self.gate.open();
    }

    async fn look(&self) {
        if self.was_ready.load(Ordering::Acquire) {
            return;
        }
        let call = Call {
            timeout: Duration::from_secs(1),
            ..Call::new(Method::GET, self.admin, READY_STATS)
        };
        match call.send().await {
            Ok(answer) if is_ready(&String::from_utf8_lossy(&answer.body)) => self.reached(),
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "the proxy's admin does not answer"),
        }
    }
}

fn is_ready(stats: &str) -> bool {
    let value = |name: &str| {
        let line = stats
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.and_then(|text| text.trim().parse::<u64>().ok())
    };
    let at_least_once = |name| value(name).is_some_and(|count| count >= 1);
    at_least_once("cluster_manager.cds.update_success")
        && at_least_once("listener_manager.lds.update_success")
        && at_least_once("listener_manager.workers_started")
        // Zero is LIVE; a gauge that was never set is not shown and is zero as well.
        && value("server.state").unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_stats() {
        let all = "cluster_manager.cds.update_success: 1\nlistener_manager.lds.update_success: 2\n\
                   listener_manager.workers_started: 1\nserver.state: 0\n";
        for (stats, want, why) in [
            (all.to_string(), true, "all there"),
            (
                all.replace("success: 1", "success: 0"),
                false,
                "no clusters yet",
            ),
            (
                all.replace("workers_started: 1", "workers_started: 0"),
                false,
                "no workers",
            ),
            (all.replace("state: 0", "state: 2"), false, "initializing"),
            (String::new(), false, "nothing"),
        ] {
            assert_eq!(is_ready(&stats), want, "{why}");
        }
    }
}
