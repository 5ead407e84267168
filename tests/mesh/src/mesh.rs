//! A real mesh from the `stolos` binary, with a name and a state folder of its own, that is always
//! taken down again.

use crate::programs;
use crate::proxy_process::free_port;
use crate::web::{Answer, Client};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const START: &str = "120s";

/// Which program every pod's proxy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sidecar {
    Stolos,
    Envoy,
    /// Envoy for the pods of `MIXED`, ours for all others: each calls the other.
    Mix,
}

/// The pod labels of those that have Envoy in a mix, as they stand in the manifests.
const MIXED: [&str; 3] = [
    "      labels: {app: productpage, version: v1}",
    "      labels: {app: reviews, version: v2}",
    "      labels: {app: ratings, version: v1}",
];

pub struct Mesh {
    name: String,
    state: tempfile::TempDir,
    folder: tempfile::TempDir,
    stolos: PathBuf,
    port: u16,
    sidecar: Sidecar,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Mesh {
    /// Not started, with an empty folder.
    pub fn empty() -> Result<Mesh> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        programs::built("bookinfo", "bookinfo")?;
        Ok(Mesh {
            name: format!("t{}-{count}", std::process::id()),
            state: tempfile::tempdir()?,
            folder: tempfile::tempdir()?,
            stolos: programs::built("cli", "stolos")?,
            port: free_port()?,
            sidecar: Sidecar::Stolos,
        })
    }

    /// Bookinfo with the example's own gateway, published on a free port; `extra` are manifests
    /// beside its own.
    pub fn bookinfo(sidecar: Sidecar, extra: &[PathBuf]) -> Result<Mesh> {
        let mut mesh = Mesh::empty()?;
        mesh.sidecar = sidecar;
        mesh.write_bookinfo(extra)?;
        let said = mesh.up(START)?;
        ensure!(
            said.code == 0,
            "up: {}\n{}{}",
            said.code,
            said.out,
            said.err
        );
        Ok(mesh)
    }

    /// `stolos up --detach`: starts it, or makes it match its folder again.
    pub fn up(&self, wait: &str) -> Result<Said> {
        let folder = self.folder.path().display().to_string();
        self.run(&["up", &folder, "--detach", "--no-build", "--wait", wait])
    }

    fn write_bookinfo(&self, extra: &[PathBuf]) -> Result<()> {
        let example = programs::workspace().join("examples/bookinfo");
        let mut mixed = 0;
        let own = std::fs::read_dir(&example)?.filter_map(|entry| Some(entry.ok()?.path()));
        let own = own.filter(|path| path.extension().is_some_and(|kind| kind == "yaml"));
        for path in own.chain(extra.iter().cloned()) {
            let mut text = std::fs::read_to_string(&path)?;
            for labels in MIXED.iter().filter(|_| self.sidecar == Sidecar::Mix) {
                let line = format!("{labels}\n");
                mixed += text.matches(&line).count();
                let proxy = "      annotations: {local.stolos.dev/proxy: envoy}\n";
                text = text.replace(&line, &format!("{line}{proxy}"));
            }
            let name = path.file_name().context("a manifest has a name")?;
            self.write(&name.to_string_lossy(), &text)?;
        }
        ensure!(
            self.sidecar != Sidecar::Mix || mixed == MIXED.len(),
            "{mixed} of {MIXED:?} are in the manifests"
        );
        let local = std::fs::read_to_string(self.folder.path().join("stolos.yaml"))?;
        let publish = format!("publish: {{\"istio-ingressgateway:8080\": {}}}", self.port);
        let mut local = replaced_line(&local, "publish:", &publish)?;
        if self.sidecar == Sidecar::Envoy {
            local = replaced_line(&local, "proxy:", "proxy: envoy")?;
        }
        self.write("stolos.yaml", &local)
    }

    /// A file of the mesh's folder.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(std::fs::write(self.folder.path().join(name), text)?)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn sidecar(&self) -> Sidecar {
        self.sidecar
    }

    /// The host's address that is published: of Bookinfo the ingress gateway.
    pub fn ingress(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.stolos);
        command.args(["--mesh", &self.name]).args(arguments);
        command
            .env("XDG_STATE_HOME", self.state.path())
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Result<Said> {
        said(self.command(arguments).output()?)
    }

    /// Standard output of a command that must succeed.
    pub fn ok(&self, arguments: &[&str]) -> Result<String> {
        let said = self.run(arguments)?;
        let words = arguments.join(" ");
        ensure!(
            said.code == 0,
            "stolos {words}: {}\n{}{}",
            said.code,
            said.out,
            said.err
        );
        Ok(said.out)
    }

    /// Applies text and returns when every proxy has it.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        let said = self.feed(&["apply", "-f", "-", "--wait"], yaml)?;
        ensure!(
            said.code == 0,
            "apply: {}\n{}{}\n{yaml}",
            said.code,
            said.out,
            said.err
        );
        Ok(said.out)
    }

    pub fn delete(&self, yaml: &str) -> Result<()> {
        let said = self.feed(&["delete", "-f", "-", "--wait"], yaml)?;
        ensure!(
            said.code == 0,
            "delete: {}\n{}{}",
            said.code,
            said.out,
            said.err
        );
        Ok(())
    }

    /// Applies for the time of `body`.
    pub fn with(&self, yaml: &str, body: impl FnOnce() -> Result<()>) -> Result<()> {
        self.apply(yaml)?;
        let result = body();
        self.delete(yaml).and(result)
    }

    /// A command with `input` as its standard input.
    pub fn feed(&self, arguments: &[&str], input: &str) -> Result<Said> {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child
            .stdin
            .take()
            .context("piped")?
            .write_all(input.as_bytes())?;
        said(child.wait_with_output()?)
    }

    /// What the supervisor says about itself.
    pub fn supervisor(&self) -> Result<Value> {
        let socket = self
            .state
            .path()
            .join("stolos")
            .join(&self.name)
            .join("supervisor.sock");
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let request = "GET /v1/status HTTP/1.1\r\nhost: supervisor\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let begin = answer.find('{').context("no JSON")?;
        let end = answer.rfind('}').context("no JSON")?;
        Ok(serde_json::from_str(&answer[begin..=end])?)
    }

    pub fn client(&self) -> Client {
        Client::new(self.ingress())
    }

    pub fn get(&self, path: &str) -> Answer {
        self.client().get(path, &[("connection", "close")])
    }

    /// As the user who signed in under that name.
    pub fn get_as(&self, path: &str, user: &str) -> Answer {
        let cookie = format!("session={user}");
        self.client()
            .get(path, &[("connection", "close"), ("cookie", &cookie)])
    }

    /// Names of the running pods that begin with `prefix`, as `get pods -o json` lists them.
    pub fn pods(&self, prefix: &str) -> Result<Vec<Value>> {
        let list: Value = serde_json::from_str(&self.ok(&["get", "pods", "-o", "json"])?)?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let name = |pod: &Value| {
            pod["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        Ok(items
            .into_iter()
            .filter(|pod| name(pod).starts_with(prefix))
            .collect())
    }

    pub fn pod(&self, prefix: &str) -> Result<Value> {
        self.pods(prefix)?
            .into_iter()
            .next()
            .with_context(|| format!("no pod {prefix}*"))
    }

    pub fn pod_name(&self, prefix: &str) -> Result<String> {
        let pod = self.pod(prefix)?;
        Ok(pod["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if !self.state.path().join("stolos").join(&self.name).exists() {
            return;
        }
        let begun = Instant::now();
        let down = self.run(&["down", "--purge"]);
        if let Ok(Said { code: 0, .. }) = down {
            return;
        }
        eprintln!(
            "mesh {}: down after {:?}: {down:?}",
            self.name,
            begun.elapsed()
        );
    }
}

fn said(output: Output) -> Result<Said> {
    Ok(Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The line whose first word is `key` (after its indentation), replaced.
fn replaced_line(text: &str, key: &str, with: &str) -> Result<String> {
    let mut found = false;
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            let trimmed = line.trim_start();
            if !trimmed.starts_with(key) {
                return line.to_owned();
            }
            found = true;
            format!("{}{with}", &line[..line.len() - trimmed.len()])
        })
        .collect();
    if !found {
        bail!("stolos.yaml has no line {key}");
    }
    Ok(lines.join("\n") + "\n")
}

/// What is left of a mesh after its end: namespaces, links and processes with its name.
pub fn remains(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for arguments in [&["netns", "list"][..], &["link", "show"]] {
        let output = Command::new("ip").args(arguments).output();
        let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
        let text = text.unwrap_or_default();
        found.extend(
            text.lines()
                .filter(|line| line.contains(name))
                .map(str::to_owned),
        );
    }
    let processes = processes(name).into_iter();
    found.extend(processes.map(|(id, line)| format!("process {id}: {line}")));
    found
}

/// Ids and command lines of the processes that have `part` in theirs, but for this one.
pub fn processes(part: &str) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
    {
        let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if id != std::process::id() && line.contains(part) {
            found.push((id, line));
        }
    }
    found
}

/// No longer than this for anything that a mesh is asked to become.
pub const SOON: Duration = Duration::from_secs(20);
