//! Who may see an object: `exportTo` (istio.md 1.2).

use std::collections::BTreeSet;

/// The namespaces to which something is exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visibility {
    Public,
    Namespaces(BTreeSet<String>),
}

impl Visibility {
    /// `export_to` of an object in `namespace`; empty means the mesh's default.
    pub fn new(export_to: &[String], default: &[String], namespace: &str) -> Self {
        let listed = if export_to.is_empty() {
            default
        } else {
            export_to
        };
        if listed.is_empty() || listed.iter().any(|value| value == "*") {
            return Self::Public;
        }
        let own = |value: &String| match value.as_str() {
            "~" => None,
            "." => Some(namespace.to_owned()),
            other => Some(other.to_owned()),
        };
        Self::Namespaces(listed.iter().filter_map(own).collect())
    }

    pub fn allows(&self, namespace: &str) -> bool {
        match self {
            Self::Public => true,
            Self::Namespaces(namespaces) => namespaces.contains(namespace),
        }
    }

    /// Exported to its own namespace only.
    pub fn is_private_to(&self, namespace: &str) -> bool {
        match self {
            Self::Public => false,
            Self::Namespaces(namespaces) => namespaces.len() == 1 && namespaces.contains(namespace),
        }
    }

    /// Whether all that see `other` also see this.
    pub fn includes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Public, _) => true,
            (_, Self::Public) => false,
            (Self::Namespaces(own), Self::Namespaces(theirs)) => own.is_superset(theirs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn export_lists() {
        let list = |values: &[&str]| values.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (export, default, viewer, want, why) in [
            (list(&[]), list(&[]), "b", true, "no default is public"),
            (
                list(&[]),
                list(&["."]),
                "b",
                false,
                "the mesh's default counts",
            ),
            (list(&["."]), list(&["*"]), "a", true, "own namespace"),
            (list(&["b", "c"]), list(&[]), "b", true, "listed"),
            (list(&["~"]), list(&[]), "a", false, "nobody"),
        ] {
            assert_eq!(
                Visibility::new(&export, &default, "a").allows(viewer),
                want,
                "{why}"
            );
        }
    }
}
