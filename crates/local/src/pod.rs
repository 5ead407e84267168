//! A pod's life: namespaces, capture, proxy, applications; and its end: first no new requests,
//! then the applications, then the proxy.

mod backoff;
pub mod container;
pub mod probes;
pub mod process;
pub mod sidecar;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::tasks::{self, Task};
use tokio::sync::watch;

use crate::board::{ContainerStatus, Phase, PodKey, PodRecord};
use crate::error::LocalError;
use crate::init::protocol::{Container, ENVOY_IN_POD, Exit, STOLOS_IN_POD, Setup, Volume};
use crate::manifest::local_mesh::ProxyChoice;
use crate::manifest::template::{ContainerTemplate, Identity, PodTemplate, ProxyRole};
use crate::network::DNS_ADDRESS;
use crate::platform::Platform;
use container::ContainerRun;
use process::PodProcess;

/// What a proxy may take to end after its applications have.
const PROXY_GRACE: Duration = Duration::from_secs(10);
/// The same when the whole mesh ends.
const CLOSING_GRACE: Duration = Duration::from_secs(1);
/// What all proxies together may take to learn that a pod is leaving.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);
/// Between attempts to make a pod that could not be made.
const RETRY: Duration = Duration::from_secs(5);

/// The host's trusted authorities, which most TLS libraries and both proxies read.
const TRUST_STORE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What is to run.
#[derive(Debug, Clone)]
pub struct PodSpec {
    pub workload: String,
    pub identity: Identity,
    pub template: Arc<PodTemplate>,
    /// The proxy's proof to the control plane that it is this pod.
    pub token: String,
}

impl PodSpec {
    pub fn key(&self) -> PodKey {
        format!("{}/{}", self.template.namespace, self.identity.name)
    }
}

/// A pod that runs, or tries to. Dropping it kills its processes.
#[derive(Debug)]
pub struct Pod {
    pub spec: PodSpec,
    stop: watch::Sender<bool>,
    task: Task<()>,
}

impl Pod {
    /// Puts the pod on the board and starts it.
    pub fn start(platform: &Arc<Platform>, spec: PodSpec) -> Pod {
        platform.board.insert(record(&spec));
        let (stop, stopping) = watch::channel(false);
        let life = live(Arc::clone(platform), spec.clone(), stopping);
        Pod {
            task: tasks::spawn(format!("pod-{}", spec.key()), life),
            spec,
            stop,
        }
    }

    /// Ends it gracefully; returns when nothing of it is left.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        let _ = self.task.await;
    }
}

fn record(spec: &PodSpec) -> PodRecord {
    PodRecord {
        namespace: spec.template.namespace.clone(),
        name: spec.identity.name.clone(),
        uid: spec.identity.uid.clone(),
        ip: spec.identity.ip,
        workload: spec.workload.clone(),
        template: Arc::clone(&spec.template),
        token_sha256: crate::platform::sha256_hex(&spec.token),
        created_at: jiff::Timestamp::now().as_second(),
        ready: false,
        terminating: false,
        phase: Phase::Pending,
        containers: containers(&spec.template),
        pid: 0,
        message: String::new(),
    }
}

/// Every container is on the board from the beginning: the pod's readiness counts them all.
fn containers(template: &PodTemplate) -> BTreeMap<String, ContainerStatus> {
    let proxy = (template.proxy != ProxyRole::None).then(|| sidecar::PROXY.to_owned());
    let names = template
        .containers
        .iter()
        .map(|container| container.name.clone());
    let waiting = || ContainerStatus {
        state: "PodInitializing".to_owned(),
        ..ContainerStatus::default()
    };
    names.chain(proxy).map(|name| (name, waiting())).collect()
}

async fn live(platform: Arc<Platform>, spec: PodSpec, mut stopping: watch::Receiver<bool>) {
    let key = spec.key();
    loop {
        let attempt = run_once(&platform, &spec, &mut stopping).await;
        if *stopping.borrow() {
            break;
        }
        if let Err(error) = attempt {
            tracing::warn!(pod = key, %error, "pod failed");
            platform.board.update(&key, |record| {
                record.ready = false;
                record.phase = Phase::Pending;
                record.message = error.to_string();
            });
            let stop = stopping.wait_for(|stopping| *stopping);
            if tokio::time::timeout(RETRY, stop).await.is_ok() {
                break;
            }
        }
    }
    platform.board.remove(&key);
}

/// One life of the pod's first process.
async fn run_once(
    platform: &Arc<Platform>,
    spec: &PodSpec,
    stopping: &mut watch::Receiver<bool>,
) -> Result<(), LocalError> {
    let key = spec.key();
    let setup = setup(platform, spec)?;
    let process = PodProcess::start(&platform.node, &platform.program, setup).await?;
    let process = Arc::new(process);
    platform.board.update(&key, |record| {
        record.pid = process.pid();
        record.phase = Phase::Running;
        record.message.clear();
    });
    let (stop_containers, containers_stopping) = watch::channel(false);
    let running = Running {
        platform,
        spec,
        process: &process,
        stopping: &containers_stopping,
    };
    let lost = process.ended();
    let outcome = tokio::select! {
        result = running.start_and_follow() => result,
        () = lost => Err(LocalError::failed("its first process was killed")),
        _ = stopping.wait_for(|stopping| *stopping) => Ok(()),
    };
    if *stopping.borrow() {
        let leave = || {
            platform
                .board
                .update(&key, |record| record.terminating = true)
        };
        let serves = platform.board.pod(&key).is_some_and(|record| record.ready);
        if serves && !platform.is_closing() {
            platform.settle(SETTLE_LIMIT, leave).await;
        } else {
            leave();
        }
        stop_containers.send_replace(true);
        let proxy_grace = if platform.is_closing() {
            CLOSING_GRACE
        } else {
            PROXY_GRACE
        };
        end_all(spec, &process, proxy_grace).await;
    }
    if let Ok(process) = Arc::try_unwrap(process) {
        process.destroy().await;
    }
    outcome
}

/// Applications first, so that their last answers still find a proxy.
async fn end_all(spec: &PodSpec, process: &Arc<PodProcess>, proxy_grace: Duration) {
    let deadline = Instant::now() + spec.template.grace;
    let names = spec
        .template
        .containers
        .iter()
        .map(|container| container.name.clone());
    let ends: Vec<_> = names
        .map(|name| {
            let process = Arc::clone(process);
            let grace = deadline.saturating_duration_since(Instant::now());
            tasks::spawn(
                "container-end",
                async move { process.end(&name, grace).await },
            )
        })
        .collect();
    for end in ends {
        let _ = end.await;
    }
    if spec.template.proxy != ProxyRole::None {
        let left = deadline.saturating_duration_since(Instant::now());
        process.end(sidecar::PROXY, proxy_grace.min(left)).await;
    }
}

struct Running<'a> {
    platform: &'a Arc<Platform>,
    spec: &'a PodSpec,
    process: &'a Arc<PodProcess>,
    stopping: &'a watch::Receiver<bool>,
}

impl Running<'_> {
    /// Starts everything in order, then keeps the pod's readiness up to date for ever.
    async fn start_and_follow(&self) -> Result<(), LocalError> {
        let template = &self.spec.template;
        let key = self.spec.key();
        let mut expected: Vec<String> = Vec::new();
        let mut containers = Vec::new();
        if template.proxy != ProxyRole::None {
            if matches!(template.proxy, ProxyRole::Sidecar(_)) {
                self.capture().await?;
            }
            let facts = self.platform.facts();
            let process =
                sidecar::proxy(template, &self.spec.identity, &self.spec.workload, &facts);
            expected.push(sidecar::PROXY.to_owned());
            containers.push(self.start(sidecar::proxy_template(template.proxy), process));
            // Applications are held until their traffic can flow.
            self.until_ready(sidecar::PROXY).await;
        }
        for container in &template.containers {
            let process = template.process(container, &self.spec.identity);
            expected.push(container.name.clone());
            containers.push(self.start(container.clone(), process));
        }
        let mut version = self.platform.board.version();
        loop {
            self.platform.board.update(&key, |record| {
                let ready = |name: &String| record.containers.get(name).is_some_and(|c| c.ready);
                record.ready = expected.iter().all(ready);
            });
            if version.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    async fn capture(&self) -> Result<(), LocalError> {
        match self
            .process
            .run_once(sidecar::capture(&self.spec.template))
            .await
        {
            Exit::Code(0) => Ok(()),
            exit => Err(LocalError::failed(format!(
                "capture could not be set up: {exit} (see its log {}-0.log)",
                sidecar::CAPTURE
            ))),
        }
    }

    fn start(&self, container: ContainerTemplate, spec: Container) -> Task<()> {
        let name = format!("container-{}-{}", self.spec.key(), container.name);
        let run = ContainerRun {
            process: Arc::clone(self.process),
            board: self.platform.board.clone(),
            pod: self.spec.key(),
            identity: self.spec.identity.clone(),
            template: Arc::clone(&self.spec.template),
            log: self.log(&container.name),
            container,
            spec,
            stopping: self.stopping.clone(),
        };
        tasks::spawn(name, run.run())
    }

    fn log(&self, container: &str) -> PathBuf {
        let template = &self.spec.template;
        let folder = self
            .platform
            .state
            .pod(&template.namespace, &self.spec.identity.name);
        folder.join("logs").join(format!("{container}.log"))
    }

    async fn until_ready(&self, container: &str) {
        let key = self.spec.key();
        let mut version = self.platform.board.version();
        loop {
            let record = self.platform.board.pod(&key);
            if record.is_some_and(|one| one.containers.get(container).is_some_and(|c| c.ready)) {
                return;
            }
            if version.changed().await.is_err() {
                return;
            }
        }
    }
}

/// The pod's view: names, hosts, programs, volumes.
fn setup(platform: &Platform, spec: &PodSpec) -> Result<Setup, LocalError> {
    let template = &spec.template;
    let folder = platform.state.pod(&template.namespace, &spec.identity.name);
    let root = folder.join("root");
    let logs = folder.join("logs");
    for directory in [&root, &logs] {
        std::fs::create_dir_all(directory)
            .map_err(|error| LocalError::system("make the pod's folder", error))?;
    }
    let mut programs = vec![(PathBuf::from(STOLOS_IN_POD), platform.program.clone())];
    if template.proxy.choice() == Some(ProxyChoice::Envoy) {
        let envoy = platform.envoy.clone().ok_or_else(|| {
            LocalError::refused(
                "no Envoy was found: install it (README) or set `envoyPath` in stolos.yaml",
            )
        })?;
        programs.push((PathBuf::from(ENVOY_IN_POD), envoy));
    }
    let mut volumes: Vec<Volume> = template.volumes.clone();
    if template.proxy != ProxyRole::None {
        volumes.extend(sidecar::volumes(template, &spec.token, &platform.facts()));
    }
    let mut files = name_files(spec);
    let trusted = platform.facts().trusted_certificates;
    if !trusted.is_empty() {
        let own = std::fs::read_to_string(TRUST_STORE).unwrap_or_default();
        files.insert(PathBuf::from(TRUST_STORE), format!("{own}\n{trusted}"));
    }
    Ok(Setup {
        hostname: template.host_name(&spec.identity),
        ip: spec.identity.ip,
        root,
        hidden: vec![platform.state_root.clone()],
        programs,
        files,
        volumes,
        logs,
    })
}

fn name_files(spec: &PodSpec) -> BTreeMap<PathBuf, String> {
    let template = &spec.template;
    let (host, namespace) = (template.host_name(&spec.identity), &template.namespace);
    let full = match template.subdomain.as_str() {
        "" => String::new(),
        subdomain => format!("{host}.{subdomain}.{namespace}.svc.cluster.local "),
    };
    let hosts = format!(
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{} {full}{host}\n",
        spec.identity.ip
    );
    let resolv = format!(
        "nameserver {DNS_ADDRESS}\n\
         search {namespace}.svc.cluster.local svc.cluster.local cluster.local\n\
         options ndots:5\n"
    );
    BTreeMap::from([
        (PathBuf::from("/etc/hosts"), hosts),
        (PathBuf::from("/etc/resolv.conf"), resolv),
        (PathBuf::from("/etc/hostname"), format!("{host}\n")),
    ])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::manifest::template::RestartPolicy;

    /// A template of one container that sleeps.
    pub(crate) fn template() -> PodTemplate {
        PodTemplate {
            namespace: "default".to_owned(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            service_account: "default".to_owned(),
            hostname: String::new(),
            subdomain: String::new(),
            containers: Vec::new(),
            volumes: Vec::new(),
            grace: Duration::from_secs(1),
            restart: RestartPolicy::Always,
            proxy: ProxyRole::None,
        }
    }

    #[test]
    fn names_follow_kubernetes() {
        let mut spec = PodSpec {
            workload: "web".to_owned(),
            identity: Identity {
                name: "web-0".to_owned(),
                uid: "u".to_owned(),
                ip: std::net::Ipv4Addr::new(10, 244, 0, 2),
            },
            template: Arc::new(template()),
            token: "t".to_owned(),
        };
        let hosts = &name_files(&spec)[&PathBuf::from("/etc/hosts")];
        assert!(hosts.ends_with("10.244.0.2 web-0\n"), "{hosts}");
        let mut with_subdomain = template();
        with_subdomain.subdomain = "db".to_owned();
        spec.template = Arc::new(with_subdomain);
        let hosts = &name_files(&spec)[&PathBuf::from("/etc/hosts")];
        assert!(
            hosts.contains("web-0.db.default.svc.cluster.local web-0"),
            "{hosts}"
        );
    }
}
