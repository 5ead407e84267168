//! An object's metadata: what we keep, and what an API server adds that is read and dropped.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::ParseOptions;
use crate::decode::{Decode, Decoder};
use crate::diagnostic::Reason;
use crate::kinds::Kind;
use crate::node::{Node, Value};
use crate::object::Metadata;

message! {
    pub struct Written {
        name: String,
        namespace: String,
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
        creation_timestamp: Option<Json>,
        resource_version: Option<Json>,
        generation: Option<Json>,
        uid: Option<Json>,
        self_link: Option<Json>,
        managed_fields: Option<Json>,
        finalizers: Option<Json>,
        owner_references: Option<Json>,
        deletion_timestamp: Option<Json>,
        deletion_grace_period_seconds: Option<Json>,
    }
}

pub(super) fn read(
    node: &Node,
    kind: Kind,
    version: &str,
    options: &ParseOptions,
    decoder: &mut Decoder,
) -> Option<Metadata> {
    let empty = Node {
        value: Value::Null,
        span: node.span,
    };
    let entries = match &node.value {
        Value::Map(entries) => entries.as_slice(),
        _ => &[],
    };
    let entry = entries.iter().find(|entry| entry.key == "metadata");
    let written: Written = match entry {
        Some(entry) => decoder.field(entry)?,
        None => Written::decode(&empty, decoder)?,
    };
    let span = entry.map_or(node.span, |entry| entry.key_span);
    if written.name.is_empty() {
        let message = "`metadata.name` is missing".to_owned();
        decoder.report(span, Reason::Invalid, message, None);
    }
    Some(Metadata {
        kind,
        api_version: version.to_owned(),
        name: written.name,
        namespace: namespace(written.namespace, kind, options),
        labels: written.labels,
        annotations: written.annotations,
        creation_timestamp: seconds(written.creation_timestamp.as_ref()),
        resource_version: number(written.resource_version.as_ref()),
    })
}

fn namespace(written: String, kind: Kind, options: &ParseOptions) -> String {
    match (kind.namespaced(), written.is_empty()) {
        (false, _) => String::new(),
        (true, false) => written,
        (true, true) if options.default_namespace.is_empty() => "default".to_owned(),
        (true, true) => options.default_namespace.clone(),
    }
}

fn seconds(value: Option<&Json>) -> Option<i64> {
    let time: jiff::Timestamp = value?.as_str()?.parse().ok()?;
    Some(time.as_second())
}

/// Another server's version means nothing here unless it is a number.
fn number(value: Option<&Json>) -> u64 {
    match value {
        Some(Json::String(text)) => text.parse().unwrap_or(0),
        Some(Json::Number(number)) => number.as_u64().unwrap_or(0),
        _ => 0,
    }
}
