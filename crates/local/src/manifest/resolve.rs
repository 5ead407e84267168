//! A Deployment's or Pod's spec to a pod template: references to ConfigMaps, Secrets, service
//! accounts and images are resolved, and what cannot be performed is refused by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_api::kinds::core::PodSpec;
use mesh_api::kinds::core::container::Container;
use mesh_api::{Object, Spec};

use crate::manifest::local_mesh::{LocalMesh, resolve_program};
use crate::manifest::problems::Problems;
use crate::manifest::template::{
    ContainerTemplate, EnvValue, PodTemplate, PortTemplate, ProxyRole, RestartPolicy,
};
use crate::manifest::{environment, probe, role, volumes};

/// Kubernetes' default for `terminationGracePeriodSeconds`.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);
const LONGEST_GRACE: i64 = 3600;

/// Everything a template may refer to.
pub struct Sources<'a> {
    pub settings: &'a LocalMesh,
    pub folder: &'a Path,
    pub objects: &'a [Object],
}

impl<'a> Sources<'a> {
    pub fn find(&self, kind: mesh_api::Kind, namespace: &str, name: &str) -> Option<&'a Object> {
        self.objects.iter().find(|object| {
            object.meta.kind == kind
                && object.meta.namespace == namespace
                && object.meta.name == name
        })
    }

    /// A ConfigMap's values as bytes.
    pub fn config_map(&self, namespace: &str, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        let object = self.find(mesh_api::Kind::ConfigMap, namespace, name)?;
        let Spec::ConfigMap(map) = &object.spec else {
            return None;
        };
        let text = map
            .data
            .iter()
            .map(|(key, value)| (key.clone(), value.clone().into_bytes()));
        let binary = map
            .binary_data
            .iter()
            .map(|(key, value)| (key.clone(), decode(value)));
        Some(text.chain(binary).collect())
    }

    pub fn secret(&self, namespace: &str, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        let object = self.find(mesh_api::Kind::Secret, namespace, name)?;
        let Spec::Secret(secret) = &object.spec else {
            return None;
        };
        let encoded = secret
            .data
            .iter()
            .map(|(key, value)| (key.clone(), decode(value)));
        let plain = secret.string_data.iter();
        let plain = plain.map(|(key, value)| (key.clone(), value.clone().into_bytes()));
        Some(encoded.chain(plain).collect())
    }
}

/// What is not Base64 was refused by the validation of its kind.
fn decode(text: &str) -> Vec<u8> {
    use base64::Engine;
    let clean: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    base64::engine::general_purpose::STANDARD
        .decode(clean)
        .unwrap_or_default()
}

/// One pod spec inside an object: where it is and what labels its pods get.
pub struct PodSource<'a> {
    pub object: &'a Object,
    /// `spec` or `spec.template.spec`.
    pub path: &'a str,
    pub spec: &'a PodSpec,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

/// The template, complete as far as it goes; findings are in `problems`.
pub fn pod_template(
    source: &PodSource<'_>,
    sources: &Sources<'_>,
    namespace_labels: &BTreeMap<String, String>,
    problems: &mut Problems,
) -> PodTemplate {
    let PodSource {
        object, path, spec, ..
    } = source;
    let namespace = object.meta.namespace.clone();
    refuse(source, problems);
    let service_account = service_account(source, sources, problems);
    let grace = match spec.termination_grace_period_seconds {
        None => DEFAULT_GRACE,
        Some(seconds) => Duration::from_secs(seconds.clamp(0, LONGEST_GRACE).unsigned_abs()),
    };
    let restart = match spec.restart_policy.as_str() {
        "" | "Always" => RestartPolicy::Always,
        "OnFailure" => RestartPolicy::OnFailure,
        "Never" => RestartPolicy::Never,
        other => {
            problems.error(
                object,
                &format!("{path}.restartPolicy"),
                format!("unknown: {other}"),
            );
            problems.allow("Always | OnFailure | Never");
            RestartPolicy::Always
        }
    };
    let volumes = volumes::resolve(source, sources, problems);
    let containers = spec.containers.iter().enumerate();
    let containers = containers
        .map(|(index, container)| {
            let path = format!("{path}.containers[{index}]");
            container_template(source, container, &path, (sources, problems))
        })
        .collect();
    let asked = role::Asked {
        labels: &source.labels,
        annotations: &source.annotations,
        namespace_labels,
    };
    let proxy = role::of(&asked, sources.settings).unwrap_or_else(|message| {
        problems.error(object, path, message);
        ProxyRole::None
    });
    PodTemplate {
        namespace,
        labels: source.labels.clone(),
        annotations: source.annotations.clone(),
        service_account,
        hostname: spec.hostname.clone(),
        subdomain: spec.subdomain.clone(),
        containers,
        volumes,
        grace,
        restart,
        proxy,
    }
}

fn service_account(
    source: &PodSource<'_>,
    sources: &Sources<'_>,
    problems: &mut Problems,
) -> String {
    let spec = source.spec;
    let (name, field) = if spec.service_account_name.is_empty() {
        (&spec.service_account, "serviceAccount")
    } else {
        (&spec.service_account_name, "serviceAccountName")
    };
    let namespace = &source.object.meta.namespace;
    let known = name.is_empty()
        || name == "default"
        || sources
            .find(mesh_api::Kind::ServiceAccount, namespace, name)
            .is_some();
    if !known {
        let message = format!("there is no ServiceAccount {name} in namespace {namespace}");
        problems.error(source.object, &format!("{}.{field}", source.path), message);
    }
    if name.is_empty() {
        "default".to_owned()
    } else {
        name.clone()
    }
}

/// Fields that would change what a pod is, and those that would only tune it.
fn refuse(source: &PodSource<'_>, problems: &mut Problems) {
    let PodSource {
        object, path, spec, ..
    } = source;
    let refused = [
        ("hostNetwork", spec.host_network),
        ("hostPID", spec.host_pid),
        ("hostIPC", spec.host_ipc),
        ("initContainers", !spec.init_containers.is_empty()),
        ("ephemeralContainers", spec.ephemeral_containers.is_some()),
        ("hostAliases", spec.host_aliases.is_some()),
        ("dnsConfig", spec.dns_config.is_some()),
        ("readinessGates", spec.readiness_gates.is_some()),
        ("resourceClaims", spec.resource_claims.is_some()),
        (
            "activeDeadlineSeconds",
            spec.active_deadline_seconds.is_some(),
        ),
    ];
    for (field, _) in refused.iter().filter(|(_, set)| *set) {
        let path = format!("{path}.{field}");
        problems.error(object, &path, "is not supported on the local platform");
    }
    let ignored = [
        ("affinity", spec.affinity.is_some()),
        ("nodeSelector", !spec.node_selector.is_empty()),
        ("tolerations", spec.tolerations.is_some()),
        (
            "topologySpreadConstraints",
            spec.topology_spread_constraints.is_some(),
        ),
        ("priorityClassName", !spec.priority_class_name.is_empty()),
        ("runtimeClassName", !spec.runtime_class_name.is_empty()),
    ];
    for (field, _) in ignored.iter().filter(|(_, set)| *set) {
        problems.not_performed(object, &format!("{path}.{field}"));
    }
}

fn container_template(
    source: &PodSource<'_>,
    container: &Container,
    path: &str,
    (sources, problems): (&Sources<'_>, &mut Problems),
) -> ContainerTemplate {
    let object = source.object;
    let rule = sources.settings.image(&container.image);
    if container.command.is_empty() && rule.is_none() {
        let message = format!(
            "no entry of `images` in stolos.yaml matches {}",
            container.image
        );
        problems.error(object, &format!("{path}.image"), message);
        problems.allow("an image with a command, or the container's own command");
    }
    if container.lifecycle.is_some() {
        problems.not_performed(object, &format!("{path}.lifecycle"));
    }
    let context = container.security_context.clone().unwrap_or_default();
    if context.privileged == Some(true) {
        let path = format!("{path}.securityContext.privileged");
        problems.error(object, &path, "is not supported on the local platform");
    }
    let pod_context = source.spec.security_context.clone().unwrap_or_default();
    let mut env = Vec::new();
    for (name, value) in rule.iter().flat_map(|rule| &rule.env) {
        env.push((name.clone(), EnvValue::Text(value.clone())));
    }
    environment::add(source, container, path, (sources, problems, &mut env));
    let directory = [
        container.working_dir.as_str(),
        rule.map_or("", |rule| &rule.working_dir),
    ]
    .into_iter()
    .find(|one| !one.is_empty())
    .map(|one| sources.folder.join(one))
    .or_else(|| Some(PathBuf::from(sources.folder)));
    let place = probe::Place {
        object,
        container,
        path,
    };
    ContainerTemplate {
        name: container.name.clone(),
        image: container.image.clone(),
        command: command(container, sources),
        env,
        directory,
        user: id(context.run_as_user.or(pod_context.run_as_user)),
        group: id(context.run_as_group.or(pod_context.run_as_group)),
        mounts: volumes::mounts(source, container, path, problems),
        ports: ports(container),
        readiness: probe::resolve(&place, "readinessProbe", problems),
        liveness: probe::resolve(&place, "livenessProbe", problems),
        startup: probe::resolve(&place, "startupProbe", problems),
    }
}

fn id(value: Option<i64>) -> Option<u32> {
    value.and_then(|value| u32::try_from(value).ok())
}

/// Kubernetes' table: a container's command replaces entry point and arguments of the image, its
/// args alone replace the image's arguments.
fn command(container: &Container, sources: &Sources<'_>) -> Vec<String> {
    if !container.command.is_empty() {
        return container
            .command
            .iter()
            .chain(&container.args)
            .cloned()
            .collect();
    }
    let Some(rule) = sources.settings.image(&container.image) else {
        return Vec::new();
    };
    let arguments = if container.args.is_empty() {
        &rule.args
    } else {
        &container.args
    };
    let mut command: Vec<String> = rule.command.iter().chain(arguments).cloned().collect();
    if let Some(program) = command.first_mut() {
        *program = resolve_program(program, sources.folder);
    }
    command
}

fn ports(container: &Container) -> Vec<PortTemplate> {
    let ports = container.ports.iter();
    ports
        .filter_map(|port| {
            Some(PortTemplate {
                name: port.name.clone(),
                port: u16::try_from(port.container_port).ok()?,
                protocol: if port.protocol.is_empty() {
                    "TCP".to_owned()
                } else {
                    port.protocol.clone()
                },
            })
        })
        .collect()
}
