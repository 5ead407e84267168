//! Changes and losses under load: no request fails.

use crate::Scenario;
use anyhow::{Context, Result, ensure};
use mesh_tests::holds;
use mesh_tests::load::{Load, Report};
use mesh_tests::mesh::{Mesh, SOON};
use mesh_tests::wait::wait_until;
use std::process::Command;
use std::time::Duration;

pub fn scenarios() -> Vec<Scenario> {
    vec![
        ("a killed control plane loses no request", kill_control),
        ("flipped weights lose no request", flip_weights),
        ("rolling restarts lose no request", rolling_restarts),
    ]
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
    let sent = load.sent();
    wait_until("load goes on", SOON, || holds!(load.sent() > sent + 20))?;
    wait_until("it returns", SOON, || {
        holds!(control_pid(mesh)? != before, "still the old process")
    })?;
    wait_until("it answers", SOON, || {
        mesh.ok(&["get", "virtualservices"]).map(|_| ())
    })?;
    none_failed(&load.finish())
}

fn flip_weights(mesh: &Mesh) -> Result<()> {
    let subsets = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets: [{name: v1, labels: {version: v1}}, {name: v3, labels: {version: v3}}]
";
    let rule = |first: u32| {
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
    - {{destination: {{host: reviews, subset: v3}}, weight: {}}}
",
            100 - first
        )
    };
    mesh.with(subsets, || {
        mesh.apply(&rule(50))?;
        let load = Load::start(mesh.ingress(), "/productpage", 2);
        let flips: Result<Vec<String>> = (0..40)
            .map(|turn| mesh.apply(&rule(if turn % 2 == 0 { 90 } else { 10 })))
            .collect();
        let removed = mesh.delete(&rule(50));
        let report = load.finish();
        flips?;
        removed?;
        none_failed(&report)
    })
}

fn rolling_restarts(mesh: &Mesh) -> Result<()> {
    let load = Load::start(mesh.ingress(), "/productpage", 2);
    for workload in ["details-v1", "reviews-v1", "ratings-v1"] {
        let old = mesh.pod_name(workload)?;
        let name = format!("deployment/{workload}");
        mesh.ok(&["scale", &name, "--replicas", "2"])?;
        wait_until("two are ready", SOON, || {
            holds!(mesh.pods(workload)?.len() == 2)
        })?;
        mesh.ok(&["scale", &name, "--replicas", "1"])?;
        wait_until("one is left", Duration::from_secs(40), || {
            holds!(mesh.pods(workload)?.len() == 1, "{old}")
        })?;
    }
    none_failed(&load.finish())
}
