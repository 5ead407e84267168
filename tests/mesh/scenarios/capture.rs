//! What the capture rules of a pod do with calls that are not the ordinary one.

use crate::Scenario;
use anyhow::{Context, Result, ensure};
use mesh_tests::holds;
use mesh_tests::mesh::{Mesh, SOON};
use mesh_tests::programs;
use mesh_tests::wait::wait_until;

pub fn scenarios() -> Vec<Scenario> {
    vec![
        ("a pod calls itself by virtual IP", self_virtual),
        ("a pod calls itself by its own address", self_address),
        ("a pod calls itself by 127.0.0.1", self_loopback),
        ("a headless service answers by pod name", headless),
        (
            "an inbound port that no service names passes through",
            unknown_port,
        ),
        (
            "an outbound address that no service names passes through",
            unknown_address,
        ),
    ]
}

fn curl(mesh: &Mesh, pod: &str, url: &str) -> Result<String> {
    mesh.ok(&[
        "exec",
        pod,
        "--",
        "curl",
        "-sS",
        "--fail-with-body",
        "--max-time",
        "5",
        url,
    ])
}

fn address(mesh: &Mesh, prefix: &str) -> Result<String> {
    let pod = mesh.pod(prefix)?;
    Ok(pod["status"]["podIP"]
        .as_str()
        .context("a pod has an address")?
        .to_owned())
}

fn self_virtual(mesh: &Mesh) -> Result<()> {
    let pod = mesh.pod_name("reviews-v1")?;
    wait_until("its own answer", SOON, || {
        let said = curl(mesh, &pod, "http://reviews:9080/reviews/0")?;
        holds!(said.contains(&pod), "{said}")
    })
}

fn self_address(mesh: &Mesh) -> Result<()> {
    let pod = mesh.pod_name("reviews-v1")?;
    let url = format!("http://{}:9080/reviews/0", address(mesh, "reviews-v1")?);
    let said = curl(mesh, &pod, &url)?;
    holds!(said.contains(&pod), "{said}")
}

fn self_loopback(mesh: &Mesh) -> Result<()> {
    let pod = mesh.pod_name("reviews-v1")?;
    let said = curl(mesh, &pod, "http://127.0.0.1:9080/reviews/0")?;
    holds!(said.contains(&pod), "{said}")
}

fn headless(mesh: &Mesh) -> Result<()> {
    let pod = mesh.pod_name("productpage")?;
    for name in [
        "shelf",
        "shelf-0.shelf",
        "shelf-0.shelf.default.svc.cluster.local",
    ] {
        let said = curl(mesh, &pod, &format!("http://{name}:9080/details/0"))?;
        ensure!(said.contains("Shakespeare"), "{name}: {said}");
    }
    Ok(())
}

/// A second program in the pod, on a port that the manifest does not have.
fn unknown_port(mesh: &Mesh) -> Result<()> {
    let server = mesh.pod_name("details-v1")?;
    let bookinfo = programs::built("bookinfo", "bookinfo")?
        .display()
        .to_string();
    let mut child = mesh
        .command(&["exec", &server, "--", &bookinfo, "ratings", "8899"])
        .spawn()?;
    let client = mesh.pod_name("productpage")?;
    let url = format!("http://{}:8899/ratings/0", address(mesh, "details-v1")?);
    let answered = wait_until("it answers", SOON, || {
        let said = curl(mesh, &client, &url)?;
        holds!(said.contains("Reviewer1"), "{said}")
    });
    let _ = child.kill();
    let _ = child.wait();
    answered
}

/// The pod without a sidecar, by its address: no service, so PassthroughCluster.
fn unknown_address(mesh: &Mesh) -> Result<()> {
    let server = mesh.pod_name("outsider")?;
    let bookinfo = programs::built("bookinfo", "bookinfo")?
        .display()
        .to_string();
    let mut child = mesh
        .command(&["exec", &server, "--", &bookinfo, "ratings", "8899"])
        .spawn()?;
    let client = mesh.pod_name("productpage")?;
    let url = format!("http://{}:8899/ratings/0", address(mesh, "outsider")?);
    let answered = wait_until("it answers", SOON, || {
        let said = curl(mesh, &client, &url)?;
        holds!(said.contains("Reviewer1"), "{said}")
    });
    let _ = child.kill();
    let _ = child.wait();
    answered
}
