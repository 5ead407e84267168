//! Analysis of objects together: references to nothing, conflicts, what has no effect. One file
//! for each analyzer; the codes are Istio's.

mod application_uid;
mod authorization;
mod ca_certificates;
mod destinations;
mod envoy_filters;
mod gateway_certificates;
mod gateway_conflicts;
mod gateway_ports;
mod gateway_secrets;
mod mesh;
mod mesh_hosts;
mod port_names;
mod schema;
mod selectors;
mod service_association;
mod service_entries;
mod subset_pods;
mod virtual_service_gateways;

use std::fmt;

use serde::Serialize;

use crate::object::{Object, ObjectKey};
use mesh::Mesh;

/// What analysis cannot see in the objects.
#[derive(Clone, Debug)]
pub struct AnalyzeOptions {
    pub domain: String,
    pub root_namespace: String,
    /// ServiceEntries without addresses get one.
    pub auto_allocate_addresses: bool,
    /// Analyzers to run, by name; empty: all of them.
    pub only: Vec<String>,
    /// Labels of gateway workloads that the platform starts by itself.
    pub platform_gateways: Vec<(String, String)>,
}

impl Default for AnalyzeOptions {
    fn default() -> Self {
        let gateway = |name: &str| ("istio".to_owned(), name.to_owned());
        AnalyzeOptions {
            domain: "cluster.local".to_owned(),
            root_namespace: "istio-system".to_owned(),
            auto_allocate_addresses: false,
            only: Vec::new(),
            platform_gateways: vec![gateway("ingressgateway"), gateway("egressgateway")],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Level {
    Error,
    Warning,
    Info,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    pub code: &'static str,
    pub level: Level,
    pub object: ObjectKey,
    /// `file:line`; empty when the object did not come from a file.
    pub reference: String,
    pub message: String,
}

impl Message {
    /// `VirtualService reviews.default`, as Istio shows it.
    pub fn origin(&self) -> String {
        let ObjectKey {
            kind,
            namespace,
            name,
        } = &self.object;
        match namespace.as_str() {
            "" => format!("{kind} {name}"),
            namespace => format!("{kind} {name}.{namespace}"),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Error => "Error",
            Level::Warning => "Warning",
            Level::Info => "Info",
        })
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}] ({}", self.level, self.code, self.origin())?;
        if !self.reference.is_empty() {
            write!(f, " {}", self.reference)?;
        }
        write!(f, ") {}", self.message)
    }
}

/// What an analyzer can say about an object.
pub(crate) struct Report {
    messages: Vec<Message>,
}

impl Report {
    /// `path` is the field concerned, as in diagnostics.
    fn add(&mut self, code: &'static str, object: &Object, path: &str, message: String) {
        let reference = match object.origin.place(path).line {
            0 => String::new(),
            line => format!("{}:{line}", object.origin.file),
        };
        let level = level(code);
        self.messages.push(Message {
            code,
            level,
            object: object.key(),
            reference,
            message,
        });
    }
}

fn level(code: &str) -> Level {
    match code {
        "IST0101" | "IST0106" | "IST0109" | "IST0110" | "IST0111" | "IST0112" | "IST0145"
        | "IST0152" | "IST0153" | "IST0154" | "IST0159" | "IST0160" | "IST0161" | "IST0173" => {
            Level::Error
        }
        "IST0118" | "IST0131" => Level::Info,
        _ => Level::Warning,
    }
}

type Analyzer = fn(&Mesh<'_>, &mut Report);

/// The table of analyzers, by Istio's names.
const ANALYZERS: &[(&str, Analyzer)] = &[
    ("schema.ValidationAnalyzer", schema::run),
    ("auth.AuthorizationPoliciesAnalyzer", authorization::run),
    ("deployment.ApplicationUIDAnalyzer", application_uid::run),
    (
        "destinationrule.CaCertificateAnalyzer",
        ca_certificates::run,
    ),
    ("destinationrule.PodNotSelectedAnalyzer", subset_pods::run),
    (
        "deployment.ServiceAssociationAnalyzer",
        service_association::run,
    ),
    ("envoyfilter.EnvoyPatchAnalyzer", envoy_filters::run),
    ("gateway.CertificateAnalyzer", gateway_certificates::run),
    ("gateway.ConflictingGatewayAnalyzer", gateway_conflicts::run),
    ("gateway.IngressGatewayPortAnalyzer", gateway_ports::run),
    ("gateway.SecretAnalyzer", gateway_secrets::run),
    ("service.PortNameAnalyzer", port_names::run),
    (
        "serviceentry.ConflictingServiceEntryProtocolAnalyzer",
        service_entries::run_protocols,
    ),
    (
        "serviceentry.ProtocolAddressesAnalyzer",
        service_entries::run_addresses,
    ),
    ("sidecar.SelectorAnalyzer", selectors::run_sidecars),
    ("telemetry.SelectorAnalyzer", selectors::run_telemetries),
    (
        "virtualservice.ConflictingMeshGatewayHostsAnalyzer",
        mesh_hosts::run,
    ),
    (
        "virtualservice.DestinationHostAnalyzer",
        destinations::run_hosts,
    ),
    (
        "virtualservice.DestinationRuleAnalyzer",
        destinations::run_subsets,
    ),
    (
        "virtualservice.GatewayAnalyzer",
        virtual_service_gateways::run,
    ),
];

/// The names of all analyzers.
pub fn analyzer_names() -> impl Iterator<Item = &'static str> {
    ANALYZERS.iter().map(|(name, _)| *name)
}

/// Looks at all objects together; sorted by level, code, object, text, and without repetitions.
pub fn analyze(objects: &[Object], options: &AnalyzeOptions) -> Vec<Message> {
    let mesh = Mesh::new(objects, options);
    let mut report = Report {
        messages: Vec::new(),
    };
    for (name, analyzer) in ANALYZERS {
        if options.only.is_empty() || options.only.iter().any(|only| only == name) {
            analyzer(&mesh, &mut report);
        }
    }
    let mut messages = report.messages;
    messages.retain(|message| !is_suppressed(&mesh, message));
    messages.sort_by(|a, b| {
        let key = |m: &Message| (m.level, m.code, m.object.clone(), m.message.clone());
        key(a).cmp(&key(b))
    });
    messages.dedup_by(|a, b| a == b);
    messages
}

const SUPPRESS: &str = "galley.istio.io/analyze-suppress";

fn is_suppressed(mesh: &Mesh<'_>, message: &Message) -> bool {
    let object = mesh.objects.iter().find(|object| {
        object.meta.kind == message.object.kind
            && object.meta.name == message.object.name
            && object.meta.namespace == message.object.namespace
    });
    let Some(codes) = object.and_then(|object| object.meta.annotations.get(SUPPRESS)) else {
        return false;
    };
    codes
        .split(',')
        .map(str::trim)
        .any(|code| code == "*" || code == message.code)
}
