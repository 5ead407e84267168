//! Pods in real namespaces, without the control plane: two containers, volumes, names, virtual
//! IPs, and that a killed supervisor leaves nothing. Needs root and says so where there is none.
#![allow(clippy::unwrap_used)] // a test without libtest's harness, which clippy does not know

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use local::board::Board;
use local::client::Client;
use local::dns::NameServer;
use local::manifest;
use local::network::{self, Addresses};
use local::node::Node;
use local::platform::Platform;
use local::pod::sidecar::MeshFacts;
use local::publisher::{Catalog, Publisher, SharedCatalog};
use local::services::LocalService;
use local::state_dir::StateDir;
use local::supervisor::workloads::Workloads;
use tokio::sync::watch;

const LIMIT: Duration = Duration::from_secs(30);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    match words.as_slice() {
        ["_pod"] => local::init::run().unwrap(),
        ["_container"] => {
            let (text, code) = local::init::container::run();
            eprintln!("{text}");
            std::process::exit(code);
        }
        ["serve", port] => serve(port.parse().unwrap()),
        ["fetch", rest @ ..] => fetch(rest),
        ["supervise", folder, state] => supervise(Path::new(folder), Path::new(state)),
        _ => tests(&words),
    }
}

fn tests(filter: &[&str]) {
    if !nix::unistd::geteuid().is_root() {
        assert!(
            std::env::var_os("CI").is_none(),
            "the tests of pods need root"
        );
        println!("not run: pods (needs root)");
        return;
    }
    let all: [(&str, fn()); 2] = [
        (
            "pods_see_their_volumes_names_and_services",
            pods_see_their_volumes_names_and_services,
        ),
        (
            "a_killed_supervisor_leaves_nothing",
            a_killed_supervisor_leaves_nothing,
        ),
    ];
    for (name, test) in all {
        if filter
            .iter()
            .all(|word| word.starts_with('-') || name.contains(word))
        {
            let started = Instant::now();
            test();
            println!(
                "test {name} ... ok ({:.1}s)",
                started.elapsed().as_secs_f32()
            );
        }
    }
}

/// The program of the server pods: answers every connection with its pod's name.
fn serve(port: u16) {
    let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
    let name = std::env::var("POD_NAME").unwrap();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut head = [0u8; 512];
        let _ = stream.read(&mut head);
        let length = name.len();
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{name}"
        );
    }
}

/// The program of the client pod: asks each address and writes the answers to a file.
fn fetch(addresses: &[&str]) {
    let mut report = String::new();
    for address in addresses {
        let answer = TcpStream::connect(address).and_then(|mut stream| {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text.lines().last().unwrap_or_default().to_owned())
        });
        let answer = answer.unwrap_or_else(|error| format!("{:?}", error.kind()));
        report.push_str(&format!("{address} {answer}\n"));
    }
    let shared = std::fs::read_to_string("/shared/hello").unwrap_or_default();
    let config = std::fs::read_to_string("/etc/app/greeting").unwrap_or_default();
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    report.push_str(&format!("shared={shared} config={config} host={host}"));
    std::fs::write("/local-platform-was-here", "x").unwrap();
    println!("{report}done");
    loop {
        std::thread::park();
    }
}

fn manifests(folder: &Path) {
    let own = std::env::current_exe().unwrap();
    let own = own.display();
    let settings = format!(
        "apiVersion: local.stolos.dev/v1alpha1\nkind: LocalMesh\nmetadata: {{name: test}}\n\
         spec:\n  inject: labelled\n  images:\n\
         \x20 - {{match: 'server', command: [{own}, serve, '8080']}}\n\
         \x20 - {{match: 'client', command: [{own}, fetch]}}\n\
         \x20 - {{match: 'writer', command: [/bin/sh, -c]}}\n"
    );
    std::fs::write(folder.join("stolos.yaml"), settings).unwrap();
    std::fs::write(folder.join("app.yaml"), MANIFESTS).unwrap();
}

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  selector: {app: server}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec:
  selector: {app: nobody}
  ports: [{port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: direct}
spec:
  clusterIP: None
  selector: {app: server}
  ports: [{port: 8080}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: greeting}
data: {greeting: hello}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: server}
spec:
  replicas: 2
  selector: {matchLabels: {app: server}}
  template:
    metadata: {labels: {app: server}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: server
        image: server
        ports: [{name: http, containerPort: 8080}]
        env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        readinessProbe: {tcpSocket: {port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: writer
    image: writer
    args: ["echo -n shared > /out/hello; exec sleep 1000"]
    volumeMounts: [{name: shared, mountPath: /out}]
  - name: client
    image: client
    args: ["server:80", "server.default.svc.cluster.local:80", "direct.default:8080", "nobody:80",
           "nosuch:80", "server:81"]
    volumeMounts:
    - {name: shared, mountPath: /shared}
    - {name: config, mountPath: /etc/app}
  volumes:
  - {name: shared, emptyDir: {}}
  - {name: config, configMap: {name: greeting}}
"#;

/// A platform without a control plane: nobody has a sidecar, so nobody asks for it.
struct Machine {
    platform: Arc<Platform>,
    workloads: Workloads,
    _publisher: daemon::tasks::Task<()>,
}

async fn start(folder: &Path, state: &Path) -> Machine {
    let desired = manifest::read(folder, None).unwrap();
    let state = StateDir::at(state.to_owned());
    state.create().unwrap();
    let node = Node::create().unwrap();
    network::set_up_node(&node).await.unwrap();
    let names = NameServer::start(&node, None).await.unwrap();
    let (sender, published) = watch::channel(0);
    let platform = Arc::new(Platform {
        node: node.clone(),
        state_root: state.path().to_owned(),
        program: std::env::current_exe().unwrap(),
        board: Board::default(),
        control: Client::new(&state.control_socket(), "the control plane"),
        envoy: None,
        addresses: Mutex::new(Addresses::default()),
        facts: Mutex::new(MeshFacts {
            trust_domain: "cluster.local".to_owned(),
            cluster: String::new(),
            discovery: String::new(),
            proxy_config: serde_json::json!({}),
            root_certificate: String::new(),
            trusted_certificates: String::new(),
        }),
        closing: AtomicBool::new(false),
        published,
        state: state.clone(),
    });
    let catalog = SharedCatalog::default();
    let services = desired.services.iter().map(|object| {
        let mesh_api::Spec::Service(spec) = &object.spec else {
            panic!("a Service")
        };
        let key = format!("{}/{}", object.meta.namespace, object.meta.name);
        let address = (!spec.is_headless()).then(|| {
            platform
                .with_addresses(|all| all.service(&key, None))
                .unwrap()
        });
        LocalService {
            object: object.clone(),
            address,
        }
    });
    *catalog.lock().unwrap() = Catalog {
        services: services.collect(),
        ..Catalog::default()
    };
    let publisher = Publisher {
        node,
        board: platform.board.clone(),
        state,
        catalog,
        names,
        published: sender,
    };
    let publisher = daemon::tasks::spawn("publisher", publisher.run());
    let workloads = Workloads::new(Arc::clone(&platform));
    // The client comes last: its questions are asked once.
    let servers = desired
        .workloads
        .iter()
        .filter(|one| one.name == "server")
        .cloned();
    workloads.converge(servers.collect()).await;
    until("two servers are ready", || {
        platform.board.pods().iter().filter(|pod| pod.ready).count() == 2
    })
    .await;
    let mut settled = platform.published.clone();
    let version = *platform.board.version().borrow();
    settled
        .wait_for(|published| *published >= version)
        .await
        .unwrap();
    workloads.converge(desired.workloads).await;
    Machine {
        platform,
        workloads,
        _publisher: publisher,
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn pods_see_their_volumes_names_and_services() {
    let temporary = tempfile::tempdir().unwrap();
    let (folder, state) = (
        temporary.path().join("mesh"),
        temporary.path().join("state"),
    );
    std::fs::create_dir(&folder).unwrap();
    manifests(&folder);
    runtime().block_on(async {
        let machine = start(&folder, &state).await;
        let log = state.join("pods/default/client/logs/client.log");
        let read = || std::fs::read_to_string(&log).unwrap_or_default();
        until("the client has asked all", || read().contains("done")).await;
        let report = read();
        for (want, why) in [
            (
                "\nserver.default.svc.cluster.local:80 server-",
                "by its full name",
            ),
            (
                "server:80 server-",
                "a virtual IP by its short name, to a named target port",
            ),
            ("direct.default:8080 server-", "a headless service"),
            (
                "nobody:80 ConnectionRefused",
                "a service without endpoints refuses at once",
            ),
            (
                "server:81 ConnectionRefused",
                "a port that the service has not",
            ),
            ("nosuch:80 Uncategorized", "a name that is not there"),
            ("config=hello", "a ConfigMap as a file"),
            ("host=client", "its own hostname"),
        ] {
            assert!(
                format!("\n{report}").contains(want),
                "{why}: {want} in\n{report}"
            );
        }
        let there = Path::new("/local-platform-was-here").exists();
        assert!(!there, "the host's files are untouched");
        let pids: Vec<u32> = machine
            .platform
            .board
            .pods()
            .iter()
            .map(|pod| pod.pid)
            .collect();
        assert!(pids.iter().all(|pid| *pid > 1), "{pids:?}");
        machine.workloads.scale("default", "server", 1).unwrap();
        until("one server is gone", || {
            machine.platform.board.pods().len() == 2
        })
        .await;
        machine.workloads.stop().await;
        for pid in pids {
            assert!(!alive(pid), "the first process {pid} is gone");
        }
    });
}

/// The process that is killed: runs the mesh and says its pods' ids.
fn supervise(folder: &Path, state: &Path) {
    runtime().block_on(async {
        let machine = start(folder, state).await;
        until("all pods run", || {
            let pods = machine.platform.board.pods();
            pods.len() == 3 && pods.iter().all(|pod| pod.ready)
        })
        .await;
        let pids: Vec<String> = machine
            .platform
            .board
            .pods()
            .iter()
            .map(|pod| pod.pid.to_string())
            .collect();
        println!("{}", pids.join(" "));
        std::future::pending::<()>().await;
    });
}

fn a_killed_supervisor_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let (folder, state) = (
        temporary.path().join("mesh"),
        temporary.path().join("state"),
    );
    std::fs::create_dir(&folder).unwrap();
    manifests(&folder);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("supervise")
        .args([&folder, &state])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let output = child.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
    let pids: Vec<u32> = line
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect();
    assert_eq!(pids.len(), 3, "{line}");
    let inside: Vec<u32> = pids.iter().flat_map(|pid| children(*pid)).collect();
    assert!(inside.len() >= 3, "the containers' processes: {inside:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + LIMIT;
    while pids.iter().chain(&inside).any(|pid| alive(*pid)) {
        assert!(
            Instant::now() < deadline,
            "still there: {pids:?} {inside:?}"
        );
        std::thread::yield_now();
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !mounts.contains(&*state.to_string_lossy()),
        "no mount of the pods' is left"
    );
}

fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie of ours that nobody waits for any more counts as gone.
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.trim().is_empty() && !rest.contains(" Z "))
}

fn children(pid: u32) -> Vec<u32> {
    let path = PathBuf::from(format!("/proc/{pid}/task/{pid}/children"));
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let mut found: Vec<u32> = threads
        .filter_map(Result::ok)
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter_map(|pid| pid.parse().ok())
        .collect();
    let text = std::fs::read_to_string(path).unwrap_or_default();
    found.extend(
        text.split_whitespace()
            .filter_map(|pid| pid.parse::<u32>().ok()),
    );
    found.sort_unstable();
    found.dedup();
    found
}
