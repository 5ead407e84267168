//! The page, and where its parts come from.

use crate::Scenario;
use anyhow::{Result, ensure};
use mesh_tests::holds;
use mesh_tests::mesh::{Mesh, SOON};
use mesh_tests::wait::wait_until;
use std::collections::{BTreeMap, BTreeSet};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        ("the page is served and names the pod of its reviews", page),
        ("reviews alternate between the three versions", alternate),
        ("services have names of every length", names),
        ("every proxy is in sync", in_sync),
        ("a scaled workload takes its share", scale),
    ]
}

/// Which pod answered the reviews of one request.
pub fn reviewer(mesh: &Mesh, user: Option<&str>) -> Result<String> {
    let path = "/api/v1/products/0/reviews";
    let answer = match user {
        Some(user) => mesh.get_as(path, user),
        None => mesh.get(path),
    };
    ensure!(
        answer.status == 200,
        "{} {:?} {}",
        answer.status,
        answer.failure,
        answer.body
    );
    Ok(version(
        answer.json()["podname"].as_str().unwrap_or_default(),
    ))
}

/// `reviews-v2-xyz` to `v2`.
pub fn version(pod: &str) -> String {
    pod.split('-').nth(1).unwrap_or(pod).to_owned()
}

/// How often each version answered `count` requests on one connection.
pub fn versions(mesh: &Mesh, count: u32) -> Result<BTreeMap<String, u32>> {
    let mut client = mesh.client();
    let mut seen = BTreeMap::new();
    for _ in 0..count {
        let answer = client.get("/api/v1/products/0/reviews", &[]);
        ensure!(
            answer.status == 200,
            "{} {:?} {}",
            answer.status,
            answer.failure,
            answer.body
        );
        let pod = answer.json()["podname"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        *seen.entry(version(&pod)).or_insert(0) += 1;
    }
    Ok(seen)
}

fn page(mesh: &Mesh) -> Result<()> {
    let answer = wait_until("the page", SOON, || {
        let answer = mesh.get("/productpage");
        ensure!(answer.status == 200, "{answer:?}");
        Ok(answer)
    })?;
    for part in [
        "The Comedy of Errors",
        "William Shakespeare",
        "Reviews served by",
        "reviews-v",
    ] {
        ensure!(
            answer.body.contains(part),
            "{part} is missing: {}",
            answer.body
        );
    }
    Ok(())
}

fn alternate(mesh: &Mesh) -> Result<()> {
    let seen = versions(mesh, 90)?;
    let names: BTreeSet<&str> = seen.keys().map(String::as_str).collect();
    ensure!(names == BTreeSet::from(["v1", "v2", "v3"]), "{seen:?}");
    ensure!(
        seen.values().all(|count| *count >= 10),
        "a fair share for each: {seen:?}"
    );
    Ok(())
}

fn names(mesh: &Mesh) -> Result<()> {
    let pod = mesh.pod_name("productpage")?;
    for name in [
        "details",
        "details.default",
        "details.default.svc.cluster.local",
    ] {
        let url = format!("http://{name}:9080/details/0");
        let said = mesh.ok(&["exec", &pod, "--", "curl", "-sS", "--max-time", "5", &url])?;
        ensure!(said.contains("William Shakespeare"), "{name}: {said}");
    }
    Ok(())
}

fn in_sync(mesh: &Mesh) -> Result<()> {
    wait_until("all in sync", SOON, || {
        let table = mesh.ok(&["status"])?;
        let rows: Vec<&str> = table
            .lines()
            .filter(|row| row.contains(".default "))
            .collect();
        ensure!(rows.len() >= 6, "{table}");
        holds!(rows.iter().all(|row| row.contains(" synced ")), "{table}")
    })
}

fn scale(mesh: &Mesh) -> Result<()> {
    mesh.ok(&["scale", "deployment/reviews-v1", "--replicas", "3"])?;
    let answered = |wanted: usize| {
        let mut pods = BTreeSet::new();
        for _ in 0..60 {
            let answer = mesh.get("/api/v1/products/0/reviews");
            ensure!(answer.is_good(), "{answer:?}");
            let pod = answer.json()["podname"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            if pod.starts_with("reviews-v1") {
                pods.insert(pod);
            }
        }
        ensure!(pods.len() == wanted, "{pods:?}");
        Ok(())
    };
    wait_until("three pods of v1 answer", SOON, || answered(3))?;
    mesh.ok(&["scale", "deployment/reviews-v1", "--replicas", "1"])?;
    wait_until("one pod of v1 is left", SOON, || {
        answered(1)?;
        holds!(
            mesh.pods("reviews-v1")?.len() == 1,
            "the others are still listed"
        )
    })
}
