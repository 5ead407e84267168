//! Istio's rules for objects that are well-formed: what its admission webhook refuses is an
//! error here, what it warns of is a warning.

mod authorization_policy;
mod connection;
mod core;
mod destination_rule;
mod envoy_filter;
mod export_to;
mod extension;
mod gateway;
mod http_fault;
mod http_match;
mod http_route;
mod load_balancer;
mod overlap;
mod peer_authentication;
mod proxy_config;
mod request_authentication;
mod selector;
mod service_entry;
mod sidecar;
mod telemetry;
mod tls;
mod traffic_policy;
mod values;
mod virtual_service;
mod workload;

use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::kinds::Spec;
use crate::object::{Metadata, Object};

/// Everything there is to say about the object: Istio's rules and what is not performed.
pub fn validate(object: &Object) -> Vec<Diagnostic> {
    let mut found = rules(object);
    found.extend(crate::performed::check(object));
    found.sort_by_key(|d| (d.severity, d.line, d.column));
    found
}

/// Istio's rules alone.
pub fn rules(object: &Object) -> Vec<Diagnostic> {
    let mut check = Check {
        object,
        path: "spec".to_owned(),
        found: Vec::new(),
    };
    if !object.meta.kind.has_spec() {
        check.path.clear();
    }
    metadata(&mut check, &object.meta);
    match &object.spec {
        Spec::VirtualService(spec) => virtual_service::check(&mut check, spec),
        Spec::DestinationRule(spec) => destination_rule::check(&mut check, spec),
        Spec::Gateway(spec) => gateway::check(&mut check, spec),
        Spec::ServiceEntry(spec) => service_entry::check(&mut check, spec),
        Spec::WorkloadEntry(spec) => workload::check_entry(&mut check, spec),
        Spec::WorkloadGroup(spec) => workload::check_group(&mut check, spec),
        Spec::Sidecar(spec) => sidecar::check(&mut check, spec),
        Spec::EnvoyFilter(spec) => envoy_filter::check(&mut check, spec),
        Spec::ProxyConfig(spec) => proxy_config::check(&mut check, spec),
        Spec::PeerAuthentication(spec) => peer_authentication::check(&mut check, spec),
        Spec::RequestAuthentication(spec) => request_authentication::check(&mut check, spec),
        Spec::AuthorizationPolicy(spec) => authorization_policy::check(&mut check, spec),
        Spec::Telemetry(spec) => telemetry::check(&mut check, spec),
        Spec::WasmPlugin(spec) => extension::check_wasm_plugin(&mut check, spec),
        Spec::TrafficExtension(spec) => extension::check_traffic_extension(&mut check, spec),
        Spec::Namespace(_) | Spec::ServiceAccount(_) => {}
        Spec::Service(spec) => core::service::check(&mut check, spec),
        Spec::Deployment(spec) => core::deployment::check(&mut check, spec),
        Spec::Pod(spec) => core::pod::check(&mut check, spec),
        Spec::ConfigMap(spec) => core::config::check_config_map(&mut check, spec),
        Spec::Secret(spec) => core::config::check_secret(&mut check, spec),
    }
    check.found
}

/// Annotations that only Istio itself may set, and the one that its tests use to be refused.
const RESERVED_ANNOTATIONS: [&str; 3] = [
    "internal.istio.io/parents",
    "internal.istio.io/parent-namespace",
    "internal.istio.io/webhook-always-reject",
];

fn metadata(check: &mut Check<'_>, meta: &Metadata) {
    let path = std::mem::replace(&mut check.path, "metadata".to_owned());
    let labels = meta.name.split('.').all(|label| {
        crate::host::is_dns_label(label) && !label.bytes().any(|b| b.is_ascii_uppercase())
    });
    if !labels || meta.name.len() > 253 {
        check.error(
            "name",
            format!("{:?} is not a valid name", values::cut(&meta.name)),
        );
    }
    if meta.kind.namespaced() && !values::is_namespace(&meta.namespace) {
        let shown = values::cut(&meta.namespace);
        check.error("namespace", format!("{shown:?} is not a valid namespace"));
    }
    if let Err(why) = crate::labels::check(&meta.labels) {
        check.error("labels", why);
    }
    for key in meta.annotations.keys() {
        if let Err(why) = crate::labels::check_key(key) {
            check.error("annotations", why);
        } else if RESERVED_ANNOTATIONS.contains(&key.as_str()) {
            check.error("annotations", format!("{key} is reserved for internal use"));
        }
    }
    check.path = path;
}

/// Where the check is, and what it has found.
pub(crate) struct Check<'o> {
    pub object: &'o Object,
    path: String,
    found: Vec<Diagnostic>,
}

impl Check<'_> {
    /// Runs `check` under the path of a field.
    fn at<R>(&mut self, field: &str, check: impl FnOnce(&mut Self) -> R) -> R {
        let length = self.path.len();
        self.push(field);
        let result = check(self);
        self.path.truncate(length);
        result
    }

    fn push(&mut self, field: &str) {
        if !self.path.is_empty() && !field.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(field);
    }

    /// Runs `check` for each item of a list.
    fn each<T>(&mut self, field: &str, items: &[T], mut check: impl FnMut(&mut Self, &T)) {
        for (index, item) in items.iter().enumerate() {
            self.at(&format!("{field}[{index}]"), |c| check(c, item));
        }
    }

    /// Runs `check` if the field is set.
    fn some<T>(&mut self, field: &str, value: Option<&T>, check: impl FnOnce(&mut Self, &T)) {
        if let Some(value) = value {
            self.at(field, |c| check(c, value));
        }
    }

    /// `field` may be empty: the error is about where the check is.
    fn error(&mut self, field: &str, message: impl Into<String>) {
        self.report(
            (Severity::Error, Reason::Invalid),
            field,
            message.into(),
            None,
        );
    }

    fn warn(&mut self, field: &str, message: impl Into<String>) {
        self.report(
            (Severity::Warning, Reason::Invalid),
            field,
            message.into(),
            None,
        );
    }

    /// A warning about routes that cannot be taken.
    fn overlap(&mut self, field: &str, reason: Reason, message: &str) {
        self.report((Severity::Warning, reason), field, message.to_owned(), None);
    }

    /// An error that says what would have been right.
    fn not_allowed(&mut self, field: &str, message: impl Into<String>, allowed: &str) {
        let allowed = Some(allowed.to_owned());
        self.report(
            (Severity::Error, Reason::Invalid),
            field,
            message.into(),
            allowed,
        );
    }

    /// Reports the reason of a failed test of a value.
    fn verify(&mut self, field: &str, outcome: Result<(), String>) {
        if let Err(why) = outcome {
            self.error(field, why);
        }
    }

    fn report(
        &mut self,
        (severity, reason): (Severity, Reason),
        field: &str,
        message: String,
        allowed: Option<String>,
    ) {
        let length = self.path.len();
        if !field.is_empty() {
            self.push(field);
        }
        let place = self.object.origin.place(&self.path);
        self.found.push(Diagnostic {
            severity,
            reason,
            file: self.object.origin.file.clone(),
            line: place.line,
            column: place.column,
            path: self.path.clone(),
            object: Some(self.object.key()),
            message,
            allowed,
        });
        self.path.truncate(length);
    }
}
