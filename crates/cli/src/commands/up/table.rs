//! The live table of pods: redrawn in place on a terminal, lines of changes elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::Arc;

use local::supervisor::Supervisor;
use local::supervisor::api::MeshStatus;

use crate::output::Table;

/// Shows the mesh until it is aborted.
pub async fn show(supervisor: Arc<Supervisor>) {
    let is_terminal = std::io::stdout().is_terminal();
    let mut changes = supervisor.changes();
    let mut shown = String::new();
    let mut was_ready = false;
    loop {
        let status = supervisor.status().await;
        if is_terminal {
            redraw(&mut shown, text(&status));
        } else if status.ready && !was_ready {
            print!("{}", text(&status));
        }
        was_ready = status.ready;
        let _ = std::io::stdout().flush();
        // Ports are published a moment after the pods are ready: look again without an event.
        let pause = std::time::Duration::from_secs(1);
        if let Ok(Err(_)) = tokio::time::timeout(pause, changes.changed()).await {
            return;
        }
    }
}

/// Moves up over what was drawn before and clears it.
fn redraw(shown: &mut String, text: String) {
    if *shown == text {
        return;
    }
    let lines = shown.lines().count();
    if lines > 0 {
        print!("\x1b[{lines}A\x1b[J");
    }
    print!("{text}");
    *shown = text;
}

/// The table, what is published, what is wrong.
pub fn text(status: &MeshStatus) -> String {
    let mut table = Table::new(["NAMESPACE", "POD", "READY", "STATUS", "PROXY", "IDENTITY"]);
    for pod in &status.pods {
        let ready = pod.containers.values().filter(|one| one.ready).count();
        table.row([
            pod.namespace.clone(),
            pod.name.clone(),
            format!("{ready}/{}", pod.containers.len()),
            pod.status.clone(),
            pod.proxy.clone(),
            pod.identity.clone(),
        ]);
    }
    let mut out = format!("{table}\n");
    for published in &status.published {
        out.push_str(&format!(
            "{} port {}: http://127.0.0.1:{}\n",
            published.service, published.port, published.host_port
        ));
    }
    let state = if status.ready {
        "ready"
    } else {
        "not ready yet"
    };
    out.push_str(&format!("mesh {} is {state}\n", status.mesh));
    for problem in status.problems.iter().chain(&status.notes) {
        out.push_str(&format!("{problem}\n"));
    }
    out
}

/// A container has ended again and again: waiting longer is of no use.
pub fn is_hopeless(status: &MeshStatus) -> bool {
    const RESTARTS: u32 = 3;
    let loops = |one: &local::board::ContainerStatus| {
        one.state == "CrashLoopBackOff" && one.restarts >= RESTARTS
    };
    status
        .pods
        .iter()
        .any(|pod| pod.containers.values().any(loops))
}

/// What is not ready, and why.
pub fn waiting(status: &MeshStatus) -> String {
    let pods = status.pods.iter().filter(|pod| !pod.ready).map(|pod| {
        let message = if pod.message.is_empty() {
            &pod.status
        } else {
            &pod.message
        };
        format!("pod {}/{}: {message}", pod.namespace, pod.name)
    });
    let workloads = status
        .workloads
        .iter()
        .filter(|one| one.ready < one.replicas)
        .map(|one| {
            format!(
                "{}/{}: {} of {} ready",
                one.namespace, one.name, one.ready, one.replicas
            )
        });
    pods.chain(workloads)
        .chain(status.problems.iter().cloned())
        .collect::<Vec<_>>()
        .join("\n  ")
}
