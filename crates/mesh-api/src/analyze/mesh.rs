//! The objects as analyzers need them: hosts that exist, workloads, visibility.

use std::collections::BTreeSet;

use super::AnalyzeOptions;
use crate::host;
use crate::kinds::core::service::ServiceSpec;
use crate::kinds::service_entry::ServiceEntry;
use crate::kinds::{Kind, Spec};
use crate::labels::{self, Labels};
use crate::object::Object;

pub struct Mesh<'o> {
    pub objects: &'o [Object],
    pub options: &'o AnalyzeOptions,
    pub hosts: Vec<KnownHost<'o>>,
    pub workloads: Vec<Workload<'o>>,
}

/// A host that a Service or ServiceEntry brings into the mesh.
pub struct KnownHost<'o> {
    pub name: String,
    pub namespace: &'o str,
    pub ports: Vec<u32>,
    export_to: Vec<String>,
    pub service: Option<&'o ServiceSpec>,
}

/// A pod, or the template of a Deployment's pods.
pub struct Workload<'o> {
    pub object: &'o Object,
    pub labels: &'o Labels,
}

static NO_LABELS: Labels = Labels::new();

impl<'o> Mesh<'o> {
    pub fn new(objects: &'o [Object], options: &'o AnalyzeOptions) -> Self {
        let mut mesh = Mesh {
            objects,
            options,
            hosts: Vec::new(),
            workloads: Vec::new(),
        };
        for object in objects {
            match &object.spec {
                Spec::Service(spec) => mesh.hosts.push(of_service(object, spec, options)),
                Spec::ServiceEntry(spec) => mesh.hosts.extend(of_service_entry(object, spec)),
                Spec::Pod(_) => {
                    mesh.workloads.push(Workload {
                        object,
                        labels: &object.meta.labels,
                    });
                }
                Spec::Deployment(spec) => {
                    let template = spec.template.as_ref().and_then(|t| t.metadata.as_ref());
                    let labels = template.map_or(&NO_LABELS, |metadata| &metadata.labels);
                    mesh.workloads.push(Workload { object, labels });
                }
                _ => {}
            }
        }
        mesh
    }

    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &'o Object> {
        self.objects
            .iter()
            .filter(move |object| object.meta.kind == kind)
    }

    /// The full name of a host written in `namespace`.
    pub fn full_name(&self, name: &str, namespace: &str) -> String {
        host::resolve_short_name(name, namespace, &self.options.domain)
    }

    /// The host of that full name which is visible in `namespace`.
    pub fn visible_host(&self, full: &str, namespace: &str) -> Option<&KnownHost<'o>> {
        self.hosts
            .iter()
            .filter(|known| host::is_subset(full, &known.name))
            .filter(|known| is_visible(&known.export_to, known.namespace, namespace))
            .min_by(|a, b| host::by_specificity(&a.name, &b.name))
    }

    /// Workloads with all of the labels; in every namespace when `namespace` is `None`.
    pub fn selected(
        &self,
        selector: &'o Labels,
        namespace: Option<&'o str>,
    ) -> impl Iterator<Item = &Workload<'o>> {
        self.workloads.iter().filter(move |workload| {
            namespace.is_none_or(|namespace| workload.object.meta.namespace == namespace)
                && labels::is_subset(selector, workload.labels)
        })
    }

    /// Whether the platform starts a gateway with these labels.
    pub fn is_platform_gateway(&self, selector: &Labels) -> bool {
        selector.len() == 1
            && selector.iter().any(|(key, value)| {
                self.options
                    .platform_gateways
                    .iter()
                    .any(|(k, v)| k == key && v == value)
            })
    }
}

fn of_service<'o>(
    object: &'o Object,
    spec: &'o ServiceSpec,
    options: &AnalyzeOptions,
) -> KnownHost<'o> {
    let meta = &object.meta;
    let annotation = meta.annotations.get("networking.istio.io/exportTo");
    let export_to = annotation.map_or_else(Vec::new, |list| {
        list.split(',')
            .map(|entry| entry.trim().to_owned())
            .collect()
    });
    KnownHost {
        name: host::resolve_short_name(&meta.name, &meta.namespace, &options.domain),
        namespace: &meta.namespace,
        ports: spec
            .ports
            .iter()
            .filter_map(|port| u32::try_from(port.port).ok())
            .collect(),
        export_to,
        service: Some(spec),
    }
}

fn of_service_entry<'o>(
    object: &'o Object,
    spec: &'o ServiceEntry,
) -> impl Iterator<Item = KnownHost<'o>> {
    spec.hosts.iter().map(move |name| KnownHost {
        name: name.clone(),
        namespace: &object.meta.namespace,
        ports: spec.ports.iter().map(|port| port.number).collect(),
        export_to: spec.export_to.clone(),
        service: None,
    })
}

fn is_visible(export_to: &[String], owner: &str, namespace: &str) -> bool {
    match scope(export_to, owner) {
        Scope::Everywhere => true,
        Scope::In(namespaces) => namespaces.contains(namespace),
    }
}

/// The namespaces in which an object counts.
pub enum Scope {
    Everywhere,
    In(BTreeSet<String>),
}

/// What `exportTo` of an object in namespace `owner` says.
pub fn scope(export_to: &[String], owner: &str) -> Scope {
    if export_to.is_empty() || export_to.iter().any(|entry| entry == "*") {
        return Scope::Everywhere;
    }
    let named = export_to.iter().filter(|entry| *entry != "~");
    Scope::In(
        named
            .map(|e| {
                if e == "." {
                    owner.to_owned()
                } else {
                    e.clone()
                }
            })
            .collect(),
    )
}

impl Scope {
    pub fn overlaps(&self, other: &Scope) -> bool {
        match (self, other) {
            (Scope::Everywhere, Scope::Everywhere) => true,
            (Scope::Everywhere, Scope::In(some)) | (Scope::In(some), Scope::Everywhere) => {
                !some.is_empty()
            }
            (Scope::In(a), Scope::In(b)) => !a.is_disjoint(b),
        }
    }
}
