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

/// How to start: the sidecars, and manifests beside Bookinfo's.
#[derive(Clone, Debug, Default)]
pub struct MeshOptions {
    /// `stolos` or `envoy`.
    pub proxy: Option<String>,
    pub extra: Vec<PathBuf>,
}

pub struct Mesh {
    name: String,
    state: tempfile::TempDir,
    folder: tempfile::TempDir,
    stolos: PathBuf,
    ingress: u16,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Mesh {
    /// Bookinfo with the example's own gateway, published on a free port.
    pub fn bookinfo(options: &MeshOptions) -> Result<Mesh> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mesh = Mesh {
            name: format!("t{}-{count}", std::process::id()),
            state: tempfile::tempdir()?,
            folder: tempfile::tempdir()?,
            stolos: programs::built("cli", "stolos")?,
            ingress: free_port()?,
        };
        programs::built("bookinfo", "bookinfo")?;
        mesh.write_folder(options)?;
        mesh.ok(&[
            "up",
            &mesh.folder_name(),
            "--detach",
            "--no-build",
            "--wait",
            START,
        ])?;
        Ok(mesh)
    }

    fn write_folder(&self, options: &MeshOptions) -> Result<()> {
        let example = programs::workspace().join("examples/bookinfo");
        for entry in std::fs::read_dir(&example)? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "yaml")
            {
                self.copy(&path)?;
            }
        }
        for path in &options.extra {
            self.copy(path)?;
        }
        let local = self.folder.path().join("stolos.yaml");
        let mut text = std::fs::read_to_string(&local)?;
        let publish = format!(
            "publish: {{\"istio-ingressgateway:8080\": {}}}",
            self.ingress
        );
        text = replaced_line(&text, "publish:", &publish)?;
        if let Some(proxy) = &options.proxy {
            text = replaced_line(&text, "proxy:", &format!("proxy: {proxy}"))?;
        }
        Ok(std::fs::write(local, text)?)
    }

    fn copy(&self, path: &Path) -> Result<()> {
        let name = path.file_name().context("a manifest has a name")?;
        std::fs::copy(path, self.folder.path().join(name))?;
        Ok(())
    }

    fn folder_name(&self) -> String {
        self.folder.path().display().to_string()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The ingress gateway as the host's users reach it.
    pub fn ingress(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ingress))
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
    for entry in std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
    {
        let id = entry.file_name().to_string_lossy().into_owned();
        if !id.bytes().all(|byte| byte.is_ascii_digit()) || id == std::process::id().to_string() {
            continue;
        }
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(name) {
            found.push(format!("process {id}: {line}"));
        }
    }
    found
}

/// No longer than this for anything that a mesh is asked to become.
pub const SOON: Duration = Duration::from_secs(20);
