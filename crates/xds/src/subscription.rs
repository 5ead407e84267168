//! What a client wants of one resource type, and what changed between two such wishes.

use std::collections::BTreeSet;

/// The interest of a client in one resource type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interest {
    /// Everything the server has for this client.
    Wildcard,
    /// Exactly these names; none is no subscription.
    Names(BTreeSet<String>),
}

impl Interest {
    /// Whether a resource of this name is wanted.
    pub fn covers(&self, name: &str) -> bool {
        match self {
            Interest::Wildcard => true,
            Interest::Names(names) => names.contains(name),
        }
    }

    /// The same but for these names.
    pub(crate) fn without(&self, names: &BTreeSet<String>) -> Interest {
        match self {
            Interest::Wildcard => Interest::Wildcard,
            Interest::Names(all) => Interest::Names(all.difference(names).cloned().collect()),
        }
    }

    /// Whether nothing is wanted.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Interest::Names(names) if names.is_empty())
    }

    /// The names as a delta request writes them: the wildcard is `*`.
    pub(crate) fn delta_names(&self) -> BTreeSet<String> {
        match self {
            Interest::Wildcard => BTreeSet::from(["*".to_owned()]),
            Interest::Names(names) => names.clone(),
        }
    }

    /// The names as a state-of-the-world request writes them: the wildcard is no name.
    pub(crate) fn full_names(&self) -> Vec<String> {
        match self {
            Interest::Wildcard => Vec::new(),
            Interest::Names(names) => names.iter().cloned().collect(),
        }
    }
}
