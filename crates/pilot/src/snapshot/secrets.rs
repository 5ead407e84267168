//! Secret and ConfigMap objects that gateways take certificates from.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::{Kind, Object};

use super::of_kind;
use crate::state::{Revision, State, Versioned};

#[derive(Debug, Default)]
pub struct Secrets {
    by_name: BTreeMap<(Kind, String, String), Versioned<Object>>,
}

impl Secrets {
    pub(super) fn build(state: &State) -> Self {
        let mut by_name = BTreeMap::new();
        for kind in [Kind::Secret, Kind::ConfigMap] {
            for (key, object) in of_kind(state, kind) {
                by_name.insert(
                    (kind, key.namespace.clone(), key.name.clone()),
                    object.clone(),
                );
            }
        }
        Self { by_name }
    }

    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<(Arc<Object>, Revision)> {
        let key = (kind, namespace.to_owned(), name.to_owned());
        self.by_name
            .get(&key)
            .map(|object| (object.value.clone(), object.revision))
    }
}
