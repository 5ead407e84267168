//! The HTTP surfaces: the API of `stolos apply` and its kin on a Unix socket, and metrics,
//! readiness and debug there and on the monitoring address.

mod apply;
mod objects;
mod wait;

use std::sync::Arc;

use daemon::admin::{Request, Response, Router, json, response, text};
use daemon::readiness::Readiness;
use http::StatusCode;
use mesh_api::Kind;
use mesh_api::mesh_config::MeshConfig;

use crate::debug;
use crate::metrics::Metrics;
use crate::pipeline::{Published, PublishedWatch};
use crate::serve::proxies::Proxies;
use crate::store::applier::Applier;
use crate::store::directory::DirectoryProblems;

/// What the handlers look at.
pub(crate) struct Surface {
    pub published: PublishedWatch,
    pub proxies: Proxies,
    pub applier: Applier,
    pub directory: DirectoryProblems,
    pub metrics: Metrics,
    pub readiness: Readiness,
}

impl Surface {
    /// The newest state, or the answer that there is none yet.
    pub fn current(&self) -> Result<Arc<Published>, Box<Response>> {
        let published = self.published.borrow().clone();
        published.ok_or_else(|| {
            let waiting = self.readiness.waiting_for().join(", ");
            let message = format!("not ready: waiting for {waiting}");
            Box::new(error(StatusCode::SERVICE_UNAVAILABLE, &message))
        })
    }
}

/// Whether objects of this kind configure the mesh. The others are the platform's: it runs them.
pub(crate) fn is_configuration(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Namespace | Kind::ServiceAccount | Kind::Service | Kind::Deployment | Kind::Pod
    )
}

/// The admin socket's routes.
pub(crate) fn api(surface: Arc<Surface>) -> Router {
    let mut router = monitoring(surface.clone());
    let at = surface.clone();
    router = router.post("/v1/apply", move |request| {
        let at = at.clone();
        async move { apply::apply(&at, &request).await }
    });
    let at = surface.clone();
    router = router.post("/v1/delete", move |request| {
        let at = at.clone();
        async move { apply::delete(&at, &request).await }
    });
    let at = surface.clone();
    router = router.get("/v1/objects", move |request| {
        let at = at.clone();
        async move { objects::list(&at, &request) }
    });
    let at = surface.clone();
    router = router.get("/v1/wait", move |request| {
        let at = at.clone();
        async move { wait::wait(&at, &request).await }
    });
    router.get("/v1/proxies", move |_| {
        let at = surface.clone();
        async move { wait::proxies(&at) }
    })
}

/// The monitoring address's routes.
pub(crate) fn monitoring(surface: Arc<Surface>) -> Router {
    let at = surface.clone();
    let router = Router::new().get("/ready", move |_| {
        let at = at.clone();
        async move { ready(&at) }
    });
    let registry = surface.metrics.registry.clone();
    let router = router.get("/metrics", move |_| {
        let text = registry.encode();
        async move { response(StatusCode::OK, daemon::metrics::CONTENT_TYPE, text) }
    });
    let router = router.get("/version", |_| async { version() });
    router.get("/debug/*", move |request| {
        let at = surface.clone();
        async move { debugging(&at, &request) }
    })
}

fn ready(surface: &Surface) -> Response {
    if surface.readiness.is_ready() {
        return text(StatusCode::OK, "ready\n");
    }
    let waiting = surface.readiness.waiting_for().join(", ");
    text(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("waiting for {waiting}\n"),
    )
}

fn version() -> Response {
    let body = serde_json::json!({"version": env!("CARGO_PKG_VERSION"), "component": "control"});
    json(StatusCode::OK, body.to_string())
}

/// Debug shows the whole configuration: only to this machine.
fn debugging(surface: &Surface, request: &Request) -> Response {
    if !request.peer.is_local() {
        return error(
            StatusCode::UNAUTHORIZED,
            "debug is only answered on this machine",
        );
    }
    debug::answer(surface, request)
}

/// `{"error": message}`.
pub(crate) fn error(status: StatusCode, message: &str) -> Response {
    json(status, serde_json::json!({ "error": message }).to_string())
}

/// MeshConfig as `/debug/mesh` shows it.
pub(crate) fn mesh_json(mesh: &MeshConfig) -> serde_json::Value {
    serde_json::to_value(mesh).unwrap_or_default()
}
