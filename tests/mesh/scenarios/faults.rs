//! What goes wrong at the start of a mesh: each on a mesh of one pod of its own.

use crate::Scenario;
use anyhow::{Context, Result, ensure};
use mesh_tests::holds;
use mesh_tests::mesh::{Mesh, SOON, Said, processes, remains};
use mesh_tests::wait::wait_until;
use std::net::TcpListener;
use std::process::Command;

const POD: &str = "
apiVersion: v1
kind: Service
metadata: {name: tiny}
spec:
  selector: {app: tiny}
  ports: [{port: 9080, name: http}]
---
apiVersion: v1
kind: Pod
metadata: {name: tiny, labels: {app: tiny}}
spec:
  containers:
  - name: app
    image: tiny:1
    ports: [{containerPort: 9080}]
    readinessProbe: {httpGet: {path: /health, port: 9080}, periodSeconds: 1}
";

const SERVES: &str = "[bookinfo, details, '9080']";

pub fn scenarios() -> Vec<Scenario> {
    vec![
        ("a published port that is taken is named", port_taken),
        ("an image with no command is refused by name", no_command),
        ("a command that dies at once is quoted", dies),
        ("a second up makes the mesh match its folder", second_up),
        ("a killed up leaves nothing and the next one works", killed),
    ]
}

/// One pod that runs `command` as its image, not started.
fn tiny(command: Option<&str>) -> Result<Mesh> {
    let mesh = Mesh::empty()?;
    let image = command.map(|command| format!("{{match: 'tiny:*', command: {command}}}"));
    let text = format!(
        "apiVersion: local.stolos.dev/v1alpha1\nkind: LocalMesh\nmetadata: {{name: tiny}}\n\
         spec:\n  images: [{}]\n  publish: {{'tiny:9080': {}}}\n",
        image.unwrap_or_default(),
        mesh.ingress().port()
    );
    mesh.write("stolos.yaml", &text)?;
    mesh.write("pod.yaml", POD)?;
    Ok(mesh)
}

/// It failed with that exit code, says why, and nothing of it is left.
fn failed(mesh: &Mesh, said: &Said, code: i32, parts: &[&str]) -> Result<()> {
    ensure!(said.code == code, "exit code, not {code}: {said:?}");
    for part in parts {
        ensure!(said.err.contains(part), "{part:?} is missing: {said:?}");
    }
    nothing_left(mesh)
}

fn nothing_left(mesh: &Mesh) -> Result<()> {
    wait_until("nothing is left", SOON, || {
        let left = remains(mesh.name());
        holds!(left.is_empty(), "{left:?}")
    })
}

fn starts(mesh: &Mesh) -> Result<()> {
    let said = mesh.up("30s")?;
    ensure!(said.code == 0, "{said:?}");
    wait_until("it answers", SOON, || {
        let answer = mesh.get("/details/0");
        holds!(answer.status == 200, "{answer:?}")
    })
}

fn port_taken(_: &Mesh) -> Result<()> {
    let mesh = tiny(Some(SERVES))?;
    let taken = TcpListener::bind(mesh.ingress())?;
    let said = mesh.up("5s")?;
    let address = mesh.ingress().to_string();
    let parts = ["tiny:9080", &address, "in use", "publish"];
    failed(&mesh, &said, 75, &parts)?;
    drop(taken);
    starts(&mesh)
}

fn no_command(_: &Mesh) -> Result<()> {
    let mesh = tiny(None)?;
    let said = mesh.up("20s")?;
    let place = "pod.yaml:15:5: error: spec.containers[0].image";
    failed(&mesh, &said, 65, &[place, "images", "tiny:1", "allowed: "])
}

fn dies(_: &Mesh) -> Result<()> {
    let mesh = tiny(Some("[sh, -c, 'echo no database here >&2; exit 3']"))?;
    let said = mesh.up("20s")?;
    let parts = ["default/tiny", "app", "exit code 3", "no database here"];
    failed(&mesh, &said, 1, &parts)
}

fn second_up(_: &Mesh) -> Result<()> {
    let mesh = tiny(Some(SERVES))?;
    starts(&mesh)?;
    let same = mesh.pod_name("tiny")?;
    let before = mesh.pod("tiny")?["metadata"]["uid"].clone();
    starts(&mesh)?;
    let after = mesh.pod("tiny")?["metadata"]["uid"].clone();
    ensure!(before == after, "{same} was replaced without a reason");
    mesh.write(
        "pod.yaml",
        &POD.replace("{name: tiny, labels", "{name: other, labels"),
    )?;
    starts(&mesh)?;
    let names = (mesh.pods("tiny")?.len(), mesh.pods("other")?.len());
    holds!(names == (0, 1), "pods tiny and other: {names:?}")
}

fn killed(_: &Mesh) -> Result<()> {
    let mesh = tiny(Some(SERVES))?;
    starts(&mesh)?;
    let up = format!("--mesh {} up ", mesh.name());
    let found = processes(&up);
    let (id, _) = found.first().context("no supervisor runs")?;
    let kill = Command::new("kill")
        .args(["-9", &id.to_string()])
        .status()?;
    ensure!(kill.success(), "kill");
    nothing_left(&mesh)?;
    starts(&mesh)
}
