//! Changes and losses under load: no request fails.

use crate::Scenario;
use anyhow::{Context, Result, ensure};
use mesh_tests::holds;
use mesh_tests::load::{Load, Report};
use mesh_tests::mesh::{Mesh, SOON, Sidecar};
use mesh_tests::wait::wait_until;
use std::process::Command;
use std::time::{Duration, Instant};

/// The rule whose destinations change.
const SUBSETS: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets: [{name: v1, labels: {version: v1}}, {name: v3, labels: {version: v3}}]
";

/// The same without its second subset.
const FIRST_SUBSET: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets: [{name: v1, labels: {version: v1}}]
";

const NEXT_SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews-next}
spec:
  selector: {app: reviews, version: v3}
  ports: [{port: 9080, name: http}]
";

const TO_NEXT_SERVICE: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {host: reviews-next}}]}]
";

pub fn scenarios() -> Vec<Scenario> {
    vec![
        ("a killed control plane loses no request", kill_control),
        (
            "200 changes of weights and subsets lose no request",
            change_rules,
        ),
        ("a service that is removed loses no request", remove_service),
        (
            "rolling restarts of every workload lose no request",
            rolling_restarts,
        ),
        (
            "a DENY takes effect on connections that are open",
            deny_open,
        ),
    ]
}

/// How often: a setting, else the usual number.
fn times(variable: &str, usual: u32) -> u32 {
    let set = std::env::var(variable).ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn none_failed(report: &Report) -> Result<()> {
    ensure!(report.requests > 20, "hardly any load: {report:?}");
    holds!(
        report.failed == 0,
        "{} of {}: {:?}",
        report.failed,
        report.requests,
        report.examples
    )
}

fn control_pid(mesh: &Mesh) -> Result<u64> {
    let pid = mesh.supervisor()?["controlPid"].as_u64();
    pid.filter(|pid| *pid > 0).context("no control plane runs")
}

fn kill_control(mesh: &Mesh) -> Result<()> {
    let load = Load::start(mesh.ingress(), "/productpage", 2);
    let before = control_pid(mesh)?;
    let killed = Command::new("kill")
        .args(["-9", &before.to_string()])
        .status()?;
    ensure!(killed.success(), "kill");
    mesh.ok(&["scale", "deployment/reviews-v1", "--replicas", "2"])?;
    let sent = load.sent();
    wait_until("load goes on", SOON, || holds!(load.sent() > sent + 20))?;
    wait_until("it returns", SOON, || {
        holds!(control_pid(mesh)? != before, "still the old process")
    })?;
    wait_until("it answers", SOON, || {
        mesh.ok(&["get", "virtualservices"]).map(|_| ())
    })?;
    wait_until(
        "pods that were scaled meanwhile take their share",
        SOON,
        || {
            let answers = (0..30).map(|_| mesh.get("/api/v1/products/0/reviews").json());
            let mut pods: Vec<String> = answers
                .filter_map(|json| json["podname"].as_str().map(str::to_owned))
                .filter(|pod| pod.starts_with("reviews-v1"))
                .collect();
            pods.sort();
            pods.dedup();
            holds!(pods.len() == 2, "{pods:?}")
        },
    )?;
    mesh.ok(&["scale", "deployment/reviews-v1", "--replicas", "1"])?;
    wait_until("one is left", SOON, || {
        holds!(mesh.pods("reviews-v1")?.len() == 1)
    })?;
    none_failed(&load.finish())
}

/// The share of the first version; the others get what is left.
fn weights(first: u32) -> String {
    let second = 100 - first;
    format!(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews}}
spec:
  hosts: [reviews]
  http:
  - route:
    - {{destination: {{host: reviews, subset: v1}}, weight: {first}}}
    - {{destination: {{host: reviews, subset: v3}}, weight: {second}}}
"
    )
}

const ONLY_FIRST: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {host: reviews, subset: v1}}]}]
";

fn change_rules(mesh: &Mesh) -> Result<()> {
    mesh.with(SUBSETS, || {
        mesh.apply(&weights(50))?;
        let load = Load::start(mesh.ingress(), "/productpage", 2);
        let changed = (0..times("STOLOS_CHANGES", 200)).try_for_each(|turn| {
            // Mostly flips; every twenty, routes leave a subset, it goes, it returns.
            let next = match turn % 20 {
                16 => ONLY_FIRST.to_owned(),
                17 => FIRST_SUBSET.to_owned(),
                18 => SUBSETS.to_owned(),
                even if even % 2 == 0 => weights(90),
                _ => weights(10),
            };
            mesh.apply(&next).map(|_| ())
        });
        let removed = mesh.delete(&weights(50));
        let report = load.finish();
        changed.and(removed)?;
        none_failed(&report)
    })
}

/// A Service appears, gets all requests, loses them again and goes.
fn remove_service(mesh: &Mesh) -> Result<()> {
    let file = "next-service.yaml";
    let converge = || -> Result<()> {
        let said = mesh.up("60s")?;
        holds!(said.code == 0, "up: {said:?}")
    };
    let load = Load::start(mesh.ingress(), "/productpage", 2);
    let steps = || -> Result<()> {
        mesh.write(file, NEXT_SERVICE)?;
        converge()?;
        mesh.apply(TO_NEXT_SERVICE)?;
        let sent = load.sent();
        wait_until("load goes there", SOON, || holds!(load.sent() > sent + 20))?;
        mesh.delete(TO_NEXT_SERVICE)
    };
    let done = steps();
    std::fs::remove_file(mesh.folder().join(file))?;
    let gone = converge();
    let report = load.finish();
    done.and(gone)?;
    none_failed(&report)
}

fn workloads(mesh: &Mesh) -> Result<Vec<String>> {
    let supervisor = mesh.supervisor()?;
    let list = supervisor["workloads"].as_array().cloned();
    let names: Vec<String> = list
        .unwrap_or_default()
        .iter()
        .filter(|one| one["namespace"] == "default")
        .filter_map(|one| one["name"].as_str().map(str::to_owned))
        .filter(|name| name.contains("-v"))
        .collect();
    ensure!(names.len() >= 9, "workloads: {supervisor}");
    Ok(names)
}

fn rolling_restarts(mesh: &Mesh) -> Result<()> {
    let usual = match mesh.sidecar() {
        Sidecar::Stolos => 5,
        Sidecar::Envoy | Sidecar::Mix => 2,
    };
    let names = workloads(mesh)?;
    let load = Load::start(mesh.ingress(), "/productpage", 2);
    let restart = |name: &String| mesh.ok(&["rollout", "restart", name]).map(|_| ());
    let status = |name: &String| {
        let limit = ["--timeout", "60s"];
        mesh.ok(&[&["rollout", "status", name], &limit[..]].concat())
            .map(|_| ())
    };
    let restarted = (0..times("STOLOS_RESTARTS", usual)).try_for_each(|_| {
        names.iter().try_for_each(restart)?;
        names.iter().try_for_each(status)
    });
    let report = load.finish();
    restarted?;
    none_failed(&report)
}

/// Whose connections are kept by the proxies on the way: the one to the ingress too.
fn deny_open(mesh: &Mesh) -> Result<()> {
    let path = "/api/v1/products/0/reviews";
    let mut clients: Vec<_> = (0..4).map(|_| mesh.client()).collect();
    for client in &mut clients {
        let answer = client.get(path, &[]);
        ensure!(answer.status == 200, "before: {answer:?}");
    }
    let load = Load::start(mesh.ingress(), path, 2);
    mesh.with(crate::security::DENY, || {
        let applied = Instant::now();
        while applied.elapsed() < Duration::from_secs(2) {
            clients[0].get(path, &[]);
        }
        for _ in 0..25 {
            for client in &mut clients {
                let answer = client.get(path, &[]);
                ensure!(answer.status == 403, "after: {answer:?}");
            }
        }
        Ok(())
    })?;
    let report = load.finish();
    let lost = report.examples.iter().find(|text| !text.starts_with("403"));
    holds!(lost.is_none(), "{lost:?}")
}
