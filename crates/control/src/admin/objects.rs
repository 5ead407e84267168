//! `GET /v1/objects`: what is in force, Kubernetes-shaped, with status.

use daemon::admin::{Request, Response, json};
use http::StatusCode;
use mesh_api::{Kind, Object};
use serde_json::{Value, json as value};

use super::{Surface, error};
use crate::status;

pub(super) fn list(surface: &Surface, request: &Request) -> Response {
    let published = match surface.current() {
        Ok(published) => published,
        Err(response) => return *response,
    };
    let filter = match Filter::read(request) {
        Ok(filter) => filter,
        Err(message) => return error(StatusCode::BAD_REQUEST, &message),
    };
    let proxies = surface.proxies.list();
    let items: Vec<Value> = published
        .objects
        .iter()
        .filter(|(_, (object, _))| filter.matches(object))
        .map(|(key, (object, changed_at))| {
            let mut item = object.to_json();
            let status = published.snapshot.statuses().get(key);
            item["status"] = status::of_object(status, *changed_at, &proxies);
            item
        })
        .collect();
    let list = value!({
        "apiVersion": "v1",
        "kind": "List",
        "metadata": {"resourceVersion": published.generation().to_string()},
        "items": items,
    });
    json(StatusCode::OK, list.to_string())
}

struct Filter {
    kind: Option<Kind>,
    namespace: Option<String>,
    name: Option<String>,
    labels: Vec<(String, String, bool)>,
}

impl Filter {
    fn read(request: &Request) -> Result<Filter, String> {
        let some = |name: &str| request.query(name).filter(|text| !text.is_empty());
        let kind = match some("kind") {
            None => None,
            Some(word) => {
                let kind = Kind::from_word(&word).or_else(|| Kind::from_name(&word));
                Some(kind.ok_or_else(|| format!("the kind `{word}` is not known"))?)
            }
        };
        let mut labels = Vec::new();
        for term in some("labels")
            .unwrap_or_default()
            .split(',')
            .filter(|term| !term.is_empty())
        {
            let unequal = term
                .split_once("!=")
                .map(|(key, value)| (key, value, false));
            let equal = || term.split_once('=').map(|(key, value)| (key, value, true));
            let Some((key, value, wanted)) = unequal.or_else(equal) else {
                return Err(format!(
                    "the label selector `{term}` is not KEY=VALUE or KEY!=VALUE"
                ));
            };
            labels.push((
                key.to_owned(),
                value.trim_start_matches('=').to_owned(),
                wanted,
            ));
        }
        Ok(Filter {
            kind,
            namespace: some("namespace"),
            name: some("name"),
            labels,
        })
    }

    fn matches(&self, object: &Object) -> bool {
        let meta = &object.meta;
        self.kind.is_none_or(|kind| kind == meta.kind)
            && self
                .namespace
                .as_ref()
                .is_none_or(|namespace| *namespace == meta.namespace)
            && self.name.as_ref().is_none_or(|name| *name == meta.name)
            && self
                .labels
                .iter()
                .all(|(key, value, wanted)| (meta.labels.get(key) == Some(value)) == *wanted)
    }
}
