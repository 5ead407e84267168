//! One object a user wrote: metadata, typed spec, and where it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value as Json, json};

use crate::kinds::{Kind, Spec};
use crate::node::Span;

#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub meta: Metadata,
    pub spec: Spec,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    pub kind: Kind,
    pub api_version: String,
    pub name: String,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// Unix seconds.
    pub creation_timestamp: Option<i64>,
    pub resource_version: u64,
}

impl Metadata {
    /// Metadata with the kind's preferred API version and nothing else set.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Metadata {
            kind,
            api_version: kind.api_version(),
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            creation_timestamp: None,
            resource_version: 0,
        }
    }
}

/// Where an object came from. Equality of objects does not depend on it.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    pub file: Arc<str>,
    pub line: u32,
    places: Arc<[(u64, Span)]>,
}

impl Origin {
    pub fn new(file: &str, line: u32) -> Self {
        Self::shared(file.into(), line)
    }

    /// The same, for many objects of one file.
    pub fn shared(file: Arc<str>, line: u32) -> Self {
        Origin {
            file,
            line,
            places: Arc::default(),
        }
    }

    /// Keeps where each field stands, so that later checks can name line and column.
    pub(crate) fn with_places(mut self, mut places: Vec<(u64, Span)>) -> Self {
        places.sort_by_key(|(key, _)| *key);
        self.places = places.into();
        self
    }

    /// The place of `path` or of its nearest parent that stands in the file.
    pub fn place(&self, path: &str) -> Span {
        let mut rest = path;
        loop {
            let key = hash(rest);
            if let Ok(index) = self.places.binary_search_by_key(&key, |(key, _)| *key) {
                return self.places[index].1;
            }
            match rest.rfind(['.', '[']) {
                Some(cut) => rest = &rest[..cut],
                None => {
                    return Span {
                        line: self.line,
                        column: u32::from(self.line > 0),
                    };
                }
            }
        }
    }
}

impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// FNV-1a: paths are short and not an attack surface (a collision moves a line number).
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl Object {
    pub fn new(meta: Metadata, spec: Spec) -> Self {
        Object {
            meta,
            spec,
            origin: Origin::default(),
        }
    }

    pub fn key(&self) -> ObjectKey {
        ObjectKey {
            kind: self.meta.kind,
            namespace: self.meta.namespace.clone(),
            name: self.meta.name.clone(),
        }
    }

    /// The object as Kubernetes shows it: apiVersion, kind, metadata, spec (or the kind's body).
    pub fn to_json(&self) -> Json {
        let mut top = Map::new();
        top.insert("apiVersion".into(), json!(self.meta.api_version));
        top.insert("kind".into(), json!(self.meta.kind.name()));
        top.insert("metadata".into(), self.meta.to_json());
        let body = self.spec.to_json();
        if self.meta.kind.has_spec() {
            top.insert("spec".into(), body);
        } else if let Json::Object(members) = body {
            top.extend(members);
        }
        Json::Object(top)
    }
}

impl Metadata {
    fn to_json(&self) -> Json {
        let mut out = Map::new();
        out.insert("name".into(), json!(self.name));
        if !self.namespace.is_empty() {
            out.insert("namespace".into(), json!(self.namespace));
        }
        if !self.labels.is_empty() {
            out.insert("labels".into(), json!(self.labels));
        }
        if !self.annotations.is_empty() {
            out.insert("annotations".into(), json!(self.annotations));
        }
        let time = self
            .creation_timestamp
            .and_then(|at| jiff::Timestamp::from_second(at).ok());
        if let Some(time) = time {
            out.insert("creationTimestamp".into(), json!(time.to_string()));
        }
        if self.resource_version > 0 {
            out.insert(
                "resourceVersion".into(),
                json!(self.resource_version.to_string()),
            );
        }
        Json::Object(out)
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

/// What identifies an object in a mesh.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        ObjectKey {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind.name(), self.namespace, self.name)
    }
}

/// The text was not `Kind/namespace/name`.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not of the form Kind/namespace/name")]
pub struct BadKey(String);

impl FromStr for ObjectKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let mut parts = text.splitn(3, '/');
        let (kind, namespace, name) = (parts.next(), parts.next(), parts.next());
        match (kind.and_then(Kind::from_name), namespace, name) {
            (Some(kind), Some(namespace), Some(name)) => Ok(Self::new(kind, namespace, name)),
            _ => Err(BadKey(text.to_owned())),
        }
    }
}

impl Serialize for ObjectKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ObjectKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}
