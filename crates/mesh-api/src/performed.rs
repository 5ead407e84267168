//! What is valid and not performed by this release. For kinds about traffic it is a warning; for
//! security kinds the object is refused, because a condition that is ignored opens a door.
// tidy: table

use serde_json::Value as Json;

use crate::decode::push_key;
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::kinds::Kind;
use crate::object::Object;

/// Kinds of which nothing is performed.
pub const WHOLE_KINDS: &[Kind] = &[
    Kind::EnvoyFilter,
    Kind::WasmPlugin,
    Kind::TrafficExtension,
    Kind::Telemetry,
    Kind::ProxyConfig,
    Kind::WorkloadGroup,
    Kind::RequestAuthentication,
];

/// A field of a kind, and why it is here. `[]` stands for each item of a list, `{}` for each
/// value of a map.
pub struct Row {
    pub kind: Kind,
    pub path: &'static str,
    pub why: &'static str,
}

/// The blocks of a traffic policy that are not performed, wherever one stands.
const POLICY: &[(&str, &str)] = &[
    (
        "loadBalancer.backendUtilization",
        "load reports of backends are not used",
    ),
    ("loadBalancer.zoneAwareLbSetting", "zone-aware routing"),
    ("loadBalancer.warmup", "slow start"),
    ("loadBalancer.warmupDurationSecs", "slow start"),
    ("tunnel", "tunnels through another proxy"),
    ("proxyProtocol", "PROXY protocol towards the destination"),
    (
        "retryBudget.budgetInterval",
        "the interval of retry budgets",
    ),
    (
        "connectionPool.tcp.maxConnectionDuration",
        "the longest life of a connection",
    ),
    (
        "outlierDetection.outlierDetectionHttpErrorCodes",
        "own error codes",
    ),
    ("tls.caCrl", "revocation lists"),
];

/// Where traffic policies stand.
const POLICIES: &[(Kind, &str)] = &[
    (Kind::DestinationRule, "trafficPolicy"),
    (Kind::DestinationRule, "trafficPolicy.portLevelSettings[]"),
    (Kind::DestinationRule, "subsets[].trafficPolicy"),
    (
        Kind::DestinationRule,
        "subsets[].trafficPolicy.portLevelSettings[]",
    ),
];

const fn row(kind: Kind, path: &'static str, why: &'static str) -> Row {
    Row { kind, path, why }
}

/// Fields of kinds in force.
pub const FIELDS: &[Row] = &[
    row(
        Kind::Gateway,
        "servers[].defaultEndpoint",
        "Istio does not perform it either",
    ),
    row(Kind::Gateway, "servers[].tls.caCrl", "revocation lists"),
    row(
        Kind::Sidecar,
        "ingress[].tls",
        "TLS on a sidecar's ingress listener",
    ),
    row(
        Kind::AuthorizationPolicy,
        "provider",
        "external authorization",
    ),
    row(
        Kind::AuthorizationPolicy,
        "rules[].from[].source.requestPrincipals",
        NO_TOKENS,
    ),
    row(
        Kind::AuthorizationPolicy,
        "rules[].from[].source.notRequestPrincipals",
        NO_TOKENS,
    ),
    row(
        Kind::AuthorizationPolicy,
        "targetRef",
        "attachment to a resource",
    ),
    row(
        Kind::AuthorizationPolicy,
        "targetRefs",
        "attachment to a resource",
    ),
    row(Kind::Service, "sessionAffinityConfig", "session affinity"),
    row(Kind::Service, "externalIPs", "addresses from outside"),
    row(Kind::Service, "loadBalancerIP", "load balancers of a cloud"),
    row(
        Kind::Service,
        "loadBalancerClass",
        "load balancers of a cloud",
    ),
    row(
        Kind::Service,
        "loadBalancerSourceRanges",
        "load balancers of a cloud",
    ),
    row(Kind::Service, "externalTrafficPolicy", "one node only"),
    row(Kind::Service, "internalTrafficPolicy", "one node only"),
    row(Kind::Service, "trafficDistribution", "one node only"),
    row(Kind::Service, "healthCheckNodePort", "one node only"),
    row(
        Kind::Service,
        "ports[].nodePort",
        "ports of nodes; use `publish` in stolos.yaml",
    ),
    row(Kind::Service, "ipFamilies", "IPv6"),
    row(Kind::Service, "ipFamilyPolicy", "IPv6"),
    row(
        Kind::Service,
        "allocateLoadBalancerNodePorts",
        "load balancers of a cloud",
    ),
    row(Kind::Deployment, "strategy", "the pace of a rollout"),
    row(
        Kind::Deployment,
        "progressDeadlineSeconds",
        "the pace of a rollout",
    ),
    row(Kind::Deployment, "revisionHistoryLimit", "revisions"),
    row(Kind::ConfigMap, "immutable", "objects that refuse changes"),
    row(Kind::Secret, "immutable", "objects that refuse changes"),
    row(
        Kind::ServiceAccount,
        "automountServiceAccountToken",
        "tokens of Kubernetes",
    ),
    row(Kind::Deployment, "paused", "paused deployments"),
    row(
        Kind::Deployment,
        "minReadySeconds",
        "a minimum time of being ready",
    ),
    row(
        Kind::Deployment,
        "selector.matchExpressions",
        "label expressions",
    ),
    row(Kind::ServiceAccount, "secrets", "tokens in Secrets"),
    row(
        Kind::ServiceAccount,
        "imagePullSecrets",
        "images are not pulled",
    ),
];

const NO_TOKENS: &str = "JSON Web Tokens are not verified";

/// Fields of a pod that the local platform does not perform, as paths below its spec.
const POD_FIELDS: &[(&str, &str)] = &[
    ("dnsConfig", "names are resolved by the mesh"),
    ("dnsPolicy", "names are resolved by the mesh"),
    ("hostAliases", "own entries of the hosts file"),
    (
        "shareProcessNamespace",
        "the containers of a pod share it always",
    ),
    ("hostNetwork", "the host's network"),
    ("hostPID", "the host's processes"),
    ("hostIPC", "the host's IPC"),
    ("ephemeralContainers", "ephemeral containers"),
    ("imagePullSecrets", "images are not pulled"),
    ("nodeSelector", "one node only"),
    ("nodeName", "one node only"),
    ("affinity", "one node only"),
    ("tolerations", "one node only"),
    ("topologySpreadConstraints", "one node only"),
    ("schedulerName", "one node only"),
    ("schedulingGates", "one node only"),
    ("priorityClassName", "one node only"),
    ("priority", "one node only"),
    ("preemptionPolicy", "one node only"),
    ("overhead", "limits of resources"),
    ("readinessGates", "readiness gates"),
    ("runtimeClassName", "container runtimes"),
    ("os", "one operating system only"),
    ("resourceClaims", "devices"),
    ("resources", "limits of resources"),
    ("activeDeadlineSeconds", "deadlines of pods"),
    ("hostnameOverride", "the hostname is the pod's"),
    ("setHostnameAsFQDN", "the hostname is the pod's"),
    ("hostUsers", "user namespaces"),
    ("automountServiceAccountToken", "tokens of Kubernetes"),
    (
        "enableServiceLinks",
        "variables with the addresses of services",
    ),
    ("securityContext.runAsNonRoot", "a check of the user"),
    ("volumes[].emptyDir.medium", "volumes in memory"),
    ("securityContext.fsGroup", "groups"),
    ("securityContext.fsGroupChangePolicy", "groups"),
    ("securityContext.supplementalGroups", "groups"),
    ("securityContext.supplementalGroupsPolicy", "groups"),
    ("securityContext.sysctls", "sysctls"),
    ("securityContext.seLinuxOptions", "SELinux"),
    ("securityContext.seLinuxChangePolicy", "SELinux"),
    ("securityContext.seccompProfile", "seccomp"),
    ("securityContext.appArmorProfile", "AppArmor"),
    (
        "securityContext.windowsOptions",
        "one operating system only",
    ),
    ("volumes[].projected", "this kind of volume"),
    ("volumes[].downwardAPI", "this kind of volume"),
    ("volumes[].hostPath", "this kind of volume"),
    ("volumes[].persistentVolumeClaim", "this kind of volume"),
    ("volumes[].ephemeral", "this kind of volume"),
    ("volumes[].csi", "this kind of volume"),
    ("volumes[].nfs", "this kind of volume"),
    ("volumes[].image", "this kind of volume"),
    ("volumes[].emptyDir.sizeLimit", "limits of resources"),
];

/// Fields of a container that the local platform does not perform.
const CONTAINER_FIELDS: &[(&str, &str)] = &[
    ("resources", "limits of resources"),
    ("resizePolicy", "limits of resources"),
    ("restartPolicyRules", "rules for restarts"),
    ("lifecycle", "hooks at start and stop"),
    ("volumeDevices", "block devices"),
    ("stdin", "input of containers"),
    ("stdinOnce", "input of containers"),
    ("tty", "terminals"),
    ("terminationMessagePath", "termination messages"),
    ("terminationMessagePolicy", "termination messages"),
    (
        "ports[].hostPort",
        "ports of the host; use `publish` in stolos.yaml",
    ),
    ("ports[].hostIP", "ports of the host"),
    ("env[].valueFrom.resourceFieldRef", "limits of resources"),
    ("env[].valueFrom.fileKeyRef", "variables from files"),
    ("volumeMounts[].subPathExpr", "paths with variables"),
    ("volumeMounts[].mountPropagation", "mount propagation"),
    (
        "volumeMounts[].recursiveReadOnly",
        "recursive read-only mounts",
    ),
    ("securityContext.runAsNonRoot", "a check of the user"),
    ("securityContext.privileged", "privileged containers"),
    (
        "securityContext.allowPrivilegeEscalation",
        "the limits of privileges",
    ),
    (
        "securityContext.readOnlyRootFilesystem",
        "read-only root file systems",
    ),
    ("securityContext.capabilities", "capabilities"),
    ("securityContext.procMount", "the mount of /proc"),
    ("securityContext.seLinuxOptions", "SELinux"),
    ("securityContext.seccompProfile", "seccomp"),
    ("securityContext.appArmorProfile", "AppArmor"),
    (
        "securityContext.windowsOptions",
        "one operating system only",
    ),
];

/// Whether an object that asks for something not performed must be refused.
fn refuses(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::PeerAuthentication | Kind::RequestAuthentication | Kind::AuthorizationPolicy
    )
}

/// Every field of the kind that is not performed, with the reason.
pub fn rows(kind: Kind) -> Vec<(String, &'static str)> {
    let mut rows: Vec<(String, &'static str)> = Vec::new();
    rows.extend(
        FIELDS
            .iter()
            .filter(|row| row.kind == kind)
            .map(|r| (r.path.to_owned(), r.why)),
    );
    for (_, base) in POLICIES.iter().filter(|(of, _)| *of == kind) {
        let of_port = |path: &str| {
            ["loadBalancer", "connectionPool", "outlierDetection", "tls."]
                .iter()
                .any(|block| path.starts_with(block))
        };
        let some = POLICY
            .iter()
            .filter(|(path, _)| !base.ends_with("[]") || of_port(path));
        rows.extend(some.map(|(path, why)| (format!("{base}.{path}"), *why)));
    }
    let pod = match kind {
        Kind::Pod => "",
        Kind::Deployment => "template.spec.",
        _ => return rows,
    };
    rows.extend(
        POD_FIELDS
            .iter()
            .map(|(path, why)| (format!("{pod}{path}"), *why)),
    );
    for list in ["containers", "initContainers"] {
        let fields = CONTAINER_FIELDS.iter();
        rows.extend(fields.map(|(path, why)| (format!("{pod}{list}[].{path}"), *why)));
    }
    rows
}

/// Whether an object with this field must be refused.
pub fn is_refused(kind: Kind, path: &str) -> bool {
    refuses(kind) || (path.contains("volumes[].") && !path.contains("emptyDir"))
}

/// What of the object is not performed.
pub fn check(object: &Object) -> Vec<Diagnostic> {
    let kind = object.meta.kind;
    let severity = |refused: bool| {
        if refused {
            Severity::Error
        } else {
            Severity::Warning
        }
    };
    let mut report = Report {
        object,
        found: Vec::new(),
    };
    if WHOLE_KINDS.contains(&kind) {
        let message = format!("the kind {kind} is not performed by this release");
        report.add(severity(refuses(kind)), "", &message);
        return report.found;
    }
    let spec = object.spec.to_json();
    let root = if kind.has_spec() { "spec" } else { "" };
    for (path, why) in rows(kind) {
        let message = format!("is not performed by this release ({why})");
        for place in find(&spec, &segments(&path), root.to_owned()) {
            report.add(severity(is_refused(kind, &path)), &place, &message);
        }
    }
    report.values();
    report.found
}

fn segments(path: &str) -> Vec<&str> {
    path.split('.')
        .flat_map(|part| match part.strip_suffix("[]") {
            Some(name) => vec![name, "[]"],
            None => match part.strip_suffix("{}") {
                Some(name) => vec![name, "{}"],
                None => vec![part],
            },
        })
        .collect()
}

/// The places in `json` that `segments` names.
fn find(json: &Json, segments: &[&str], at: String) -> Vec<String> {
    let Some((first, rest)) = segments.split_first() else {
        return vec![at];
    };
    match (*first, json) {
        ("[]", Json::Array(items)) => items
            .iter()
            .enumerate()
            .flat_map(|(index, item)| find(item, rest, format!("{at}[{index}]")))
            .collect(),
        ("{}", Json::Object(members)) => members
            .iter()
            .flat_map(|(key, value)| {
                let mut path = at.clone();
                push_key(&mut path, key);
                find(value, rest, path)
            })
            .collect(),
        (name, Json::Object(members)) => match members.get(name) {
            Some(value) => {
                let mut path = at;
                push_key(&mut path, name);
                find(value, rest, path)
            }
            None => Vec::new(),
        },
        _ => Vec::new(),
    }
}

struct Report<'o> {
    object: &'o Object,
    found: Vec<Diagnostic>,
}

impl Report<'_> {
    fn add(&mut self, severity: Severity, path: &str, message: &str) {
        let place = self.object.origin.place(path);
        self.found.push(Diagnostic {
            severity,
            reason: Reason::NotPerformed,
            file: self.object.origin.file.clone(),
            line: place.line,
            column: place.column,
            path: path.to_owned(),
            object: Some(self.object.key()),
            message: message.to_owned(),
            allowed: None,
        });
    }

    /// Fields of which only some values are not performed.
    fn values(&mut self) {
        use crate::kinds::Spec;
        use crate::kinds::authorization_policy::Action;
        use crate::kinds::core::service::ServiceType;
        use crate::kinds::service_entry::Resolution;
        match &self.object.spec {
            Spec::AuthorizationPolicy(spec) => {
                if matches!(spec.action, Action::Custom | Action::Audit) {
                    let action = spec.action.as_str();
                    let message = format!("{action} is not performed by this release");
                    self.add(Severity::Error, "spec.action", &message);
                }
                for (rule, of) in spec.rules.iter().enumerate() {
                    for (index, condition) in of.when.iter().enumerate() {
                        self.condition(
                            &condition.key,
                            &format!("spec.rules[{rule}].when[{index}]"),
                        );
                    }
                }
                let dry = self.object.meta.annotations.get("istio.io/dry-run");
                if dry.is_some_and(|value| value != "false") {
                    let message = "a dry run is not performed by this release";
                    self.add(Severity::Error, "metadata.annotations", message);
                }
            }
            Spec::VirtualService(spec) => {
                for (route, of) in spec.http.iter().enumerate() {
                    for (index, found) in of.r#match.iter().enumerate() {
                        let keys = found.headers.keys().chain(found.without_headers.keys());
                        for key in keys.filter(|key| key.starts_with("@request.auth.")) {
                            let path = format!("spec.http[{route}].match[{index}]");
                            let message = format!("{key}: {NO_TOKENS} by this release");
                            self.add(Severity::Warning, &path, &message);
                        }
                    }
                }
            }
            Spec::ServiceEntry(spec) if spec.resolution == Resolution::DynamicDns => {
                let message = "DYNAMIC_DNS is not performed by this release";
                self.add(Severity::Warning, "spec.resolution", message);
            }
            Spec::Service(spec) => {
                if spec.session_affinity == "ClientIP" {
                    let message = "ClientIP is not performed by this release";
                    self.add(Severity::Warning, "spec.sessionAffinity", message);
                }
                if matches!(
                    spec.r#type,
                    ServiceType::NodePort | ServiceType::LoadBalancer
                ) {
                    let message = "taken as ClusterIP; use `publish` in stolos.yaml";
                    self.add(Severity::Warning, "spec.type", message);
                }
            }
            _ => {}
        }
    }

    fn condition(&mut self, key: &str, path: &str) {
        let message = match key {
            _ if key.starts_with("request.auth.") => NO_TOKENS.to_owned(),
            _ if key.starts_with("experimental.") => "metadata of filters".to_owned(),
            _ => return,
        };
        let message = format!("{key} is not performed by this release ({message})");
        self.add(Severity::Error, &format!("{path}.key"), &message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{ParseOptions, parse};
    use serde_json::json;

    /// A document of the kind with something at the path, for each sort of value.
    fn documents(kind: Kind, path: &str) -> Vec<Json> {
        let leaves = [
            json!(true),
            json!(7),
            json!("x"),
            json!("5s"),
            json!({}),
            json!(["x"]),
        ];
        let more = [json!([{}]), json!([7]), json!({"type": "Recreate"})];
        let wrap = |leaf: Json| {
            let parts = segments(path);
            let body = parts.iter().rev().fold(leaf, |inner, part| match *part {
                "[]" => json!([inner]),
                name => json!({name: inner}),
            });
            let mut document = json!({
                "apiVersion": kind.api_version(),
                "kind": kind.name(),
                "metadata": {"name": "a"},
            });
            match (kind.has_spec(), body) {
                (true, body) => document["spec"] = body,
                (false, Json::Object(members)) => {
                    for (key, value) in members {
                        document[key] = value;
                    }
                }
                _ => {}
            }
            document
        };
        leaves.into_iter().chain(more).map(wrap).collect()
    }

    fn fires(kind: Kind, path: &str) -> bool {
        let shown = path.replace("[]", "[0]");
        documents(kind, path).iter().any(|document| {
            let parsed = parse("f", &document.to_string(), &ParseOptions::default());
            let found = parsed.objects.iter().flat_map(check);
            found.into_iter().any(|d| {
                d.reason == Reason::NotPerformed && d.path.trim_start_matches("spec.") == shown
            })
        })
    }

    #[test]
    fn every_row_names_a_field_and_reports_it() {
        let all = Kind::ALL
            .iter()
            .flat_map(|kind| rows(*kind).into_iter().map(move |(path, _)| (*kind, path)));
        let silent: Vec<String> = all
            .filter(|(kind, path)| !fires(*kind, path))
            .map(|(kind, path)| format!("{kind} {path}"))
            .collect();
        assert_eq!(silent, Vec::<String>::new());
    }
}
