//! A folder of manifests to the desired state of a mesh: workloads, services, namespaces and
//! Istio configuration. Everything wrong is found before anything is started.

mod environment;
pub mod local_mesh;
pub mod names;
mod probe;
mod problems;
mod resolve;
pub mod role;
mod settings;
pub mod template;
mod volumes;

pub use settings::is_name as is_mesh_name;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mesh_api::kinds::core::deployment::DeploymentSpec;
use mesh_api::parse::{ParseOptions, parse};
use mesh_api::{Diagnostic, Kind, Object, Spec};

use crate::error::LocalError;
use local_mesh::LocalMesh;
use problems::Problems;
use resolve::{PodSource, Sources};
use template::PodTemplate;

/// Namespaces that exist without being declared.
const GIVEN_NAMESPACES: [&str; 2] = ["default", "istio-system"];
/// More pods than this of one Deployment are refused: each is a set of processes here.
const MOST_REPLICAS: u32 = 200;

/// What `up DIR` is to bring about.
#[derive(Debug, Clone)]
pub struct DesiredMesh {
    pub name: String,
    pub folder: PathBuf,
    pub settings: LocalMesh,
    /// With their labels.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    pub services: Vec<Object>,
    pub workloads: Vec<Workload>,
    /// Istio's kinds, for the control plane.
    pub configuration: Vec<Object>,
    /// PEM of the authorities that pods trust besides the host's.
    pub trusted_certificates: String,
    pub warnings: Vec<Diagnostic>,
}

/// A Deployment, or a Pod of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    pub kind: WorkloadKind,
    pub namespace: String,
    pub name: String,
    pub replicas: u32,
    /// Changes when the template does.
    pub hash: String,
    pub template: PodTemplate,
    /// `FILE:LINE`, for messages.
    pub origin: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkloadKind {
    Deployment,
    Pod,
    /// A gateway, which comes with the platform.
    Gateway,
}

impl Workload {
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The name of the pod in place `index` after `turn` predecessors.
    pub fn pod_name(&self, index: u32, turn: u32) -> String {
        match self.kind {
            WorkloadKind::Pod => self.name.clone(),
            _ => names::pod_name(&self.name, &self.hash, index, turn),
        }
    }
}

/// Reads the folder; `name` replaces the mesh's own (`--mesh`).
pub fn read(folder: &Path, name: Option<&str>) -> Result<DesiredMesh, LocalError> {
    let mut findings = Vec::new();
    let path = folder.join(local_mesh::FILE);
    let text = fs::read_to_string(&path).map_err(|error| {
        LocalError::refused(format!(
            "cannot read {}: {error}; `stolos up` wants a folder with a {}",
            path.display(),
            local_mesh::FILE
        ))
    })?;
    let (own_name, settings) = settings::parse(&path.to_string_lossy(), &text, &mut findings);
    if findings.iter().any(Diagnostic::is_error) {
        // What the other files lack may be what this one was to say.
        return Err(LocalError::Manifest(findings));
    }
    let trusted_certificates = trusted_certificates(folder, &settings)?;
    let mut objects = Vec::new();
    let mut paths = manifest_files(folder)?;
    for included in &settings.include {
        let path = folder.join(included);
        paths.extend(if path.is_dir() {
            manifest_files(&path)?
        } else {
            vec![path]
        });
    }
    for path in paths {
        let text = fs::read_to_string(&path)
            .map_err(|error| LocalError::system(&format!("read {}", path.display()), error))?;
        let options = ParseOptions {
            default_namespace: "default".to_owned(),
        };
        let parsed = parse(&path.to_string_lossy(), &text, &options);
        findings.extend(parsed.diagnostics);
        objects.extend(parsed.objects);
    }
    for object in &objects {
        findings.extend(mesh_api::validate::validate(object));
    }
    let mut problems = Problems { list: findings };
    let mesh = assemble(
        (
            name.map_or(own_name, str::to_owned),
            folder.to_path_buf(),
            settings,
        ),
        objects,
        &mut problems,
    );
    if problems.has_errors() {
        problems
            .list
            .sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        return Err(LocalError::Manifest(problems.list));
    }
    Ok(DesiredMesh {
        warnings: problems.list,
        trusted_certificates,
        ..mesh
    })
}

fn trusted_certificates(folder: &Path, settings: &LocalMesh) -> Result<String, LocalError> {
    let mut all = String::new();
    for name in &settings.trusted_certificates {
        let path = folder.join(name);
        let text = fs::read_to_string(&path).map_err(|error| {
            let path = path.display();
            LocalError::refused(format!("trustedCertificates: cannot read {path}: {error}"))
        })?;
        all.push_str(text.trim_end());
        all.push('\n');
    }
    Ok(all)
}

/// The folder's own files in the order of their names; folders below it (rules to apply by hand)
/// are read only if `include` names them.
fn manifest_files(folder: &Path) -> Result<Vec<PathBuf>, LocalError> {
    let entries = fs::read_dir(folder)
        .map_err(|error| LocalError::system(&format!("read {}", folder.display()), error))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.is_file() && path.file_name() != Some(local_mesh::FILE.as_ref()))
        .filter(|path| {
            let extension = path
                .extension()
                .and_then(|one| one.to_str())
                .unwrap_or_default();
            matches!(extension, "yaml" | "yml" | "json")
        })
        .collect();
    files.sort();
    Ok(files)
}

fn assemble(
    (name, folder, settings): (String, PathBuf, LocalMesh),
    objects: Vec<Object>,
    problems: &mut Problems,
) -> DesiredMesh {
    let mut namespaces: BTreeMap<String, BTreeMap<String, String>> = GIVEN_NAMESPACES
        .iter()
        .map(|one| ((*one).to_owned(), BTreeMap::new()))
        .collect();
    let declared = objects
        .iter()
        .filter(|object| object.meta.kind == Kind::Namespace);
    namespaces.extend(declared.map(|one| (one.meta.name.clone(), one.meta.labels.clone())));
    check_keys(&objects, &namespaces, problems);
    // The folder may be given relative to where `up` was started.
    let absolute = std::path::absolute(&folder).unwrap_or_else(|_| folder.clone());
    let sources = Sources {
        settings: &settings,
        folder: &absolute,
        objects: &objects,
    };
    let workloads: Vec<Workload> = objects
        .iter()
        .filter_map(|object| workload(object, &sources, &namespaces, problems))
        .collect();
    let (services, rest): (Vec<Object>, Vec<Object>) = objects
        .into_iter()
        .partition(|object| object.meta.kind == Kind::Service);
    let configuration = rest.into_iter().filter(is_configuration);
    DesiredMesh {
        name,
        folder: absolute,
        namespaces,
        services,
        workloads,
        configuration: configuration.collect(),
        settings,
        trusted_certificates: String::new(),
        warnings: Vec::new(),
    }
}

/// What goes to the control plane: Istio's kinds, and the certificates that gateways serve.
fn is_configuration(object: &Object) -> bool {
    match &object.spec {
        Spec::Secret(secret) => secret.r#type == "kubernetes.io/tls",
        _ => object.meta.kind.group().ends_with("istio.io"),
    }
}

/// One object per key, in a namespace that exists.
fn check_keys(
    objects: &[Object],
    namespaces: &BTreeMap<String, BTreeMap<String, String>>,
    problems: &mut Problems,
) {
    let mut seen = BTreeMap::new();
    for object in objects {
        let namespace = &object.meta.namespace;
        if !namespace.is_empty() && !namespaces.contains_key(namespace) {
            let message = format!("there is no Namespace {namespace} in the folder");
            problems.error(object, "metadata.namespace", message);
        }
        if let Some(first) = seen.insert(object.key(), object) {
            let (file, line) = (&first.origin.file, first.origin.line);
            let message = format!("{} is already defined at {file}:{line}", object.key());
            problems.error(object, "metadata.name", message);
        }
    }
}

fn workload(
    object: &Object,
    sources: &Sources<'_>,
    namespaces: &BTreeMap<String, BTreeMap<String, String>>,
    problems: &mut Problems,
) -> Option<Workload> {
    let (kind, replicas, source) = match &object.spec {
        Spec::Pod(spec) => {
            let source = PodSource {
                object,
                path: "spec",
                spec,
                labels: object.meta.labels.clone(),
                annotations: object.meta.annotations.clone(),
            };
            (WorkloadKind::Pod, 1, source)
        }
        Spec::Deployment(spec) => {
            let replicas = replicas(object, spec, problems);
            (
                WorkloadKind::Deployment,
                replicas,
                deployment_source(object, spec, problems)?,
            )
        }
        _ => return None,
    };
    let namespace_labels = namespaces
        .get(&object.meta.namespace)
        .cloned()
        .unwrap_or_default();
    let mut template = resolve::pod_template(&source, sources, &namespace_labels, problems);
    let text = serde_json::to_string(&template).unwrap_or_default();
    role::add_labels(&mut template, &object.meta.name);
    Some(Workload {
        kind,
        namespace: object.meta.namespace.clone(),
        name: object.meta.name.clone(),
        replicas,
        hash: names::template_hash(&text),
        template,
        origin: format!("{}:{}", object.origin.file, object.origin.line),
    })
}

fn replicas(object: &Object, spec: &DeploymentSpec, problems: &mut Problems) -> u32 {
    let replicas = u32::try_from(spec.replicas.unwrap_or(1)).unwrap_or_default();
    if replicas > MOST_REPLICAS {
        problems.error(
            object,
            "spec.replicas",
            format!("is more than {MOST_REPLICAS}"),
        );
    }
    replicas
}

fn deployment_source<'a>(
    object: &'a Object,
    spec: &'a DeploymentSpec,
    problems: &mut Problems,
) -> Option<PodSource<'a>> {
    let template = spec.template.as_ref();
    let Some(pod) = template.and_then(|template| template.spec.as_ref()) else {
        problems.error(object, "spec.template.spec", "is missing");
        return None;
    };
    let metadata = template
        .and_then(|template| template.metadata.clone())
        .unwrap_or_default();
    let selector = spec.selector.clone().unwrap_or_default();
    let selected = selector
        .match_labels
        .iter()
        .all(|(key, value)| metadata.labels.get(key) == Some(value));
    if selector.match_labels.is_empty() || !selected {
        problems.error(
            object,
            "spec.selector",
            "does not select the template's labels",
        );
    }
    Some(PodSource {
        object,
        path: "spec.template.spec",
        spec: pod,
        labels: metadata.labels,
        annotations: metadata.annotations,
    })
}
