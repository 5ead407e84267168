//! `POST /v1/apply` and `POST /v1/delete`: parse, validate, all or nothing, durable before the
//! answer. Every finding is in the answer, with its place.

use std::collections::BTreeMap;
use std::sync::Arc;

use daemon::admin::{Request, Response, json};
use http::StatusCode;
use mesh_api::parse::{ParseOptions, parse};
use mesh_api::{Diagnostic, Kind, Object, ObjectKey, Reason, Severity};
use serde::{Deserialize, Serialize};

use super::{Surface, error, is_configuration};
use crate::pipeline::Published;
use crate::store::applier::{ApplyError, Outcome};
use crate::store::objects::Change;

/// The body of `/v1/apply`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct ApplyRequest {
    files: Vec<FileText>,
    namespace: String,
    dry_run: bool,
}

#[derive(Debug, Deserialize)]
struct FileText {
    name: String,
    text: String,
}

/// The body of `/v1/delete`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DeleteRequest {
    objects: Vec<ObjectName>,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, Deserialize)]
struct ObjectName {
    kind: String,
    #[serde(default)]
    namespace: String,
    name: String,
}

/// The answer of both.
#[derive(Debug, Default, Serialize)]
struct Answer {
    results: Vec<ObjectResult>,
    warnings: Vec<Diagnostic>,
    errors: Vec<Diagnostic>,
    generation: u64,
}

#[derive(Debug, Serialize)]
struct ObjectResult {
    kind: &'static str,
    namespace: String,
    name: String,
    action: &'static str,
}

pub(super) async fn apply(surface: &Surface, request: &Request) -> Response {
    let request: ApplyRequest = match serde_json::from_slice(&request.body) {
        Ok(request) => request,
        Err(reason) => return error(StatusCode::BAD_REQUEST, &reason.to_string()),
    };
    let published = surface.published.borrow().clone();
    let (objects, mut answer) = read(&request, published.as_deref());
    if !answer.errors.is_empty() {
        return respond(StatusCode::UNPROCESSABLE_ENTITY, &answer);
    }
    let places: BTreeMap<ObjectKey, Arc<Object>> = objects
        .iter()
        .map(|object| (object.key(), object.clone()))
        .collect();
    let changes = objects.into_iter().map(Change::Put).collect();
    let outcome = surface.applier.apply(changes, request.dry_run).await;
    finish(&mut answer, outcome, &places)
}

pub(super) async fn delete(surface: &Surface, request: &Request) -> Response {
    let request: DeleteRequest = match serde_json::from_slice(&request.body) {
        Ok(request) => request,
        Err(reason) => return error(StatusCode::BAD_REQUEST, &reason.to_string()),
    };
    let published = surface.published.borrow().clone();
    let mut answer = Answer::default();
    let mut changes = Vec::new();
    for ObjectName {
        kind,
        namespace,
        name,
    } in &request.objects
    {
        let Some(kind) = Kind::from_name(kind).or_else(|| Kind::from_word(kind)) else {
            answer
                .errors
                .push(failure(None, format!("the kind `{kind}` is not known")));
            continue;
        };
        let key = ObjectKey::new(kind, if kind.namespaced() { namespace } else { "" }, name);
        if let Some(file) = published
            .as_deref()
            .and_then(|published| watched(published, &key))
        {
            let message = format!("is defined by {file} in the watched directory");
            answer.errors.push(failure(Some(key), message));
            continue;
        }
        changes.push(Change::Delete(key));
    }
    if !answer.errors.is_empty() {
        return respond(StatusCode::UNPROCESSABLE_ENTITY, &answer);
    }
    let outcome = surface.applier.apply(changes, request.dry_run).await;
    finish(&mut answer, outcome, &BTreeMap::new())
}

/// All objects of all files, and what is wrong with them.
fn read(request: &ApplyRequest, published: Option<&Published>) -> (Vec<Arc<Object>>, Answer) {
    let options = ParseOptions {
        default_namespace: request.namespace.clone(),
    };
    let mut answer = Answer::default();
    let mut objects: Vec<Arc<Object>> = Vec::new();
    let mut seen: BTreeMap<ObjectKey, String> = BTreeMap::new();
    for FileText { name, text } in &request.files {
        let parsed = parse(name, text, &options);
        let mut findings = parsed.diagnostics;
        for object in parsed.objects {
            findings.extend(mesh_api::validate::validate(&object));
            let key = object.key();
            let place = format!("{name}:{}", object.origin.line);
            let at = |message: String| refusal(&object, message);
            if !is_configuration(key.kind) {
                findings.push(at(format!(
                    "a {} is run by the platform: it belongs into the mesh's directory",
                    key.kind
                )));
            }
            if let Some(file) = published.and_then(|published| watched(published, &key)) {
                findings.push(at(format!("is defined by {file} in the watched directory")));
            }
            if let Some(other) = seen.insert(key, place) {
                findings.push(at(format!("the same object is in {other}")));
            }
            objects.push(Arc::new(object));
        }
        for finding in findings {
            match finding.severity {
                Severity::Error => answer.errors.push(finding),
                Severity::Warning => answer.warnings.push(finding),
            }
        }
    }
    (objects, answer)
}

/// The file of an object that comes from the watched directory: it would win.
fn watched(published: &Published, key: &ObjectKey) -> Option<String> {
    let (object, _) = published.objects.get(key)?;
    // Only stored objects have a version.
    (object.meta.resource_version == 0).then(|| object.origin.file.to_string())
}

fn finish(
    answer: &mut Answer,
    outcome: Result<Outcome, ApplyError>,
    places: &BTreeMap<ObjectKey, Arc<Object>>,
) -> Response {
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(reason) => {
            let status = match &reason {
                ApplyError::Store(_) => StatusCode::INSUFFICIENT_STORAGE,
                ApplyError::Closed => StatusCode::SERVICE_UNAVAILABLE,
            };
            answer
                .errors
                .push(failure(None, format!("nothing was changed: {reason}")));
            return respond(status, answer);
        }
    };
    answer.generation = outcome.generation;
    let result = |(key, action): (ObjectKey, crate::store::applier::Action)| ObjectResult {
        kind: key.kind.name(),
        namespace: key.namespace,
        name: key.name,
        action: action.name(),
    };
    answer.results = outcome.results.into_iter().map(result).collect();
    for (key, problem) in outcome.problems {
        let mut warning = failure(Some(key.clone()), problem.message);
        warning.severity = Severity::Warning;
        if problem.reason == pilot::snapshot::statuses::Reason::NotPerformed {
            warning.reason = Reason::NotPerformed;
        }
        if let Some(object) = places.get(&key) {
            warning.file = object.origin.file.clone();
            warning.line = object.origin.line;
            warning.column = 1;
        }
        // The validator may have said it already, with a better place.
        let known = |known: &&Diagnostic| {
            known.object.as_ref() == Some(&key) && warning.message.contains(&known.message)
        };
        if answer.warnings.iter().find(known).is_none() {
            answer.warnings.push(warning);
        }
    }
    respond(StatusCode::OK, answer)
}

fn respond(status: StatusCode, answer: &Answer) -> Response {
    match serde_json::to_string(answer) {
        Ok(body) => json(status, body),
        Err(reason) => error(StatusCode::INTERNAL_SERVER_ERROR, &reason.to_string()),
    }
}

fn failure(object: Option<ObjectKey>, message: String) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        reason: Reason::Invalid,
        file: "".into(),
        line: 0,
        column: 0,
        path: String::new(),
        object,
        message,
        allowed: None,
    }
}

fn refusal(object: &Object, message: String) -> Diagnostic {
    Diagnostic {
        file: object.origin.file.clone(),
        line: object.origin.line,
        column: 1,
        ..failure(Some(object.key()), message)
    }
}
