//! The supervisor's HTTP interface on its unix socket, for the command line.

use std::path::PathBuf;
use std::sync::Arc;

use daemon::admin::{Body, Listener, Request, Response, Router};
use daemon::drain::DrainWatch;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::board::PodStatus;
use crate::error::LocalError;
use crate::supervisor::Supervisor;
use crate::supervisor::gateways::PublishedPort;

/// `GET /v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshStatus {
    pub mesh: String,
    pub folder: PathBuf,
    /// Everything that was asked for is there and ready.
    pub ready: bool,
    pub control_pid: u32,
    pub supervisor_pid: u32,
    pub pods: Vec<PodStatus>,
    pub workloads: Vec<WorkloadStatus>,
    pub published: Vec<PublishedPort>,
    /// What is wrong, one sentence each.
    pub problems: Vec<String>,
    /// What a user may want to know, one sentence each.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    pub namespace: String,
    pub name: String,
    pub kind: String,
    pub replicas: u32,
    pub ready: u32,
    pub up_to_date: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Scale {
    namespace: String,
    name: String,
    replicas: u32,
}

#[derive(Debug, Deserialize)]
struct Named {
    namespace: String,
    name: String,
}

#[derive(Debug, Deserialize)]
struct Converge {
    folder: Option<PathBuf>,
}

/// Serves until the drain starts.
pub async fn serve(
    supervisor: Arc<Supervisor>,
    path: PathBuf,
    drain: DrainWatch,
) -> Result<(), LocalError> {
    let _ = std::fs::remove_file(&path); // of a supervisor that was killed: we hold the lock
    let listener = Listener::unix(&path, 0o600)
        .map_err(|error| LocalError::system(&format!("listen on {}", path.display()), error))?;
    daemon::admin::serve(listener, router(supervisor), drain).await;
    Ok(())
}

macro_rules! handler {
    ($supervisor:ident, |$context:ident, $request:ident| $body:expr) => {{
        let shared = Arc::clone(&$supervisor);
        move |$request: Request| {
            let $context = Arc::clone(&shared);
            async move { answer($body) }
        }
    }};
}

fn router(supervisor: Arc<Supervisor>) -> Router {
    Router::new()
        .get(
            "/v1/status",
            handler!(supervisor, |it, _request| Ok(json!(it.status().await))),
        )
        .get(
            "/v1/services",
            handler!(supervisor, |it, _request| Ok(
                json!({"items": it.services()})
            )),
        )
        .get(
            "/v1/pods/*",
            handler!(supervisor, |it, request| pod(&it, &request)),
        )
        .post(
            "/v1/converge",
            handler!(supervisor, |it, request| converge(&it, &request).await),
        )
        .post(
            "/v1/refresh",
            handler!(supervisor, |it, _request| {
                it.gateways.refresh().await;
                Ok(json!({"published": it.gateways.published().await}))
            }),
        )
        .post(
            "/v1/scale",
            handler!(supervisor, |it, request| {
                read::<Scale>(&request).and_then(|scale| {
                    let before =
                        it.workloads
                            .scale(&scale.namespace, &scale.name, scale.replicas)?;
                    Ok(json!({"before": before, "replicas": scale.replicas}))
                })
            }),
        )
        .post(
            "/v1/restart",
            handler!(supervisor, |it, request| {
                read::<Named>(&request).and_then(|named| {
                    it.workloads.restart(&named.namespace, &named.name)?;
                    Ok(json!({}))
                })
            }),
        )
        .post(
            "/v1/stop",
            handler!(supervisor, |it, _request| {
                it.ask_to_stop();
                Ok(json!({}))
            }),
        )
}

fn pod(supervisor: &Supervisor, request: &Request) -> Result<Value, LocalError> {
    let parts = request.path_after("/v1/pods/");
    let [namespace, name] = parts.as_slice() else {
        return Err(LocalError::refused("the path is /v1/pods/NAMESPACE/NAME"));
    };
    let record = supervisor
        .platform
        .board
        .pod(&format!("{namespace}/{name}"));
    let record = record.ok_or_else(|| {
        LocalError::refused(format!("there is no pod {name} in namespace {namespace}"))
    })?;
    let mut status = json!(record.status(&supervisor.platform.trust_domain()));
    let specs: Vec<Value> = record
        .template
        .containers
        .iter()
        .map(|container| {
            let identity = crate::manifest::template::Identity {
                name: record.name.clone(),
                uid: record.uid.clone(),
                ip: record.ip,
            };
            json!({
                "name": container.name,
                "image": container.image,
                "env": record.template.process(container, &identity).env,
            })
        })
        .collect();
    status["specs"] = Value::Array(specs);
    status["logs"] = json!(supervisor.platform.state.pod(namespace, name).join("logs"));
    Ok(status)
}

async fn converge(supervisor: &Arc<Supervisor>, request: &Request) -> Result<Value, LocalError> {
    let Converge { folder } = read(request)?;
    let warnings = supervisor.converge(folder.as_deref()).await?;
    Ok(json!({"warnings": warnings}))
}

fn read<T: serde::de::DeserializeOwned>(request: &Request) -> Result<T, LocalError> {
    serde_json::from_slice(&request.body)
        .map_err(|error| LocalError::refused(format!("the request's body: {error}")))
}

fn answer(result: Result<Value, LocalError>) -> Response {
    let (status, json) = match result {
        Ok(json) => (StatusCode::OK, json),
        Err(error) => {
            let status = match error {
                LocalError::Manifest(_) => StatusCode::UNPROCESSABLE_ENTITY,
                LocalError::Refused(_) => StatusCode::BAD_REQUEST,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (status, json!({"error": error.to_string()}))
        }
    };
    let mut response = Response::new(Body::from(json.to_string()));
    *response.status_mut() = status;
    response
}
