//! Identities, mutual TLS and authorization, from the outside.

use crate::Scenario;
use anyhow::{Context, Result, ensure};
use mesh_tests::holds;
use mesh_tests::mesh::{Mesh, SOON};
use mesh_tests::wait::wait_until;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
";

/// The page may not read reviews.
pub const DENY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-reviews, namespace: default}
spec:
  selector: {matchLabels: {app: reviews}}
  action: DENY
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/bookinfo-productpage]}}]
";

const ALLOW: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-reviews, namespace: default}
spec:
  selector: {matchLabels: {app: ratings}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/bookinfo-reviews]}}]
    to: [{operation: {methods: [GET]}}]
";

pub fn scenarios() -> Vec<Scenario> {
    vec![
        (
            "permissive takes plaintext from outside the mesh",
            permissive,
        ),
        (
            "a pod without a sidecar calls a virtual IP",
            outsider_by_name,
        ),
        ("strict refuses plaintext from outside the mesh", strict),
        ("a DENY policy by identity answers 403", deny),
        (
            "an ALLOW policy by identity lets only that identity in",
            allow,
        ),
        (
            "between two pods there is TLS 1.3 and no byte of the payload",
            wire,
        ),
        ("probes reach the application under strict", probes),
    ]
}

/// Plain HTTP from a pod without a sidecar, to a pod's own address.
fn from_outside(mesh: &Mesh, path: &str) -> Result<(i32, String)> {
    let pod = mesh.pod("reviews-v1")?;
    let ip = pod["status"]["podIP"]
        .as_str()
        .context("a pod has an address")?
        .to_owned();
    let url = format!("http://{ip}:9080{path}");
    let outsider = mesh.pod_name("outsider")?;
    let said = mesh.run(&[
        "exec",
        &outsider,
        "--",
        "curl",
        "-sS",
        "--max-time",
        "5",
        &url,
    ])?;
    Ok((said.code, said.out + &said.err))
}

/// A virtual IP works without a sidecar too.
fn outsider_by_name(mesh: &Mesh) -> Result<()> {
    let outsider = mesh.pod_name("outsider")?;
    let url = "http://reviews:9080/reviews/0";
    let said = mesh.ok(&[
        "exec",
        &outsider,
        "--",
        "curl",
        "-sS",
        "--max-time",
        "5",
        url,
    ])?;
    holds!(said.contains("Reviewer1"), "{said}")
}

fn permissive(mesh: &Mesh) -> Result<()> {
    let (code, said) = from_outside(mesh, "/reviews/0")?;
    holds!(code == 0 && said.contains("Reviewer1"), "{code} {said}")
}

fn strict(mesh: &Mesh) -> Result<()> {
    mesh.with(STRICT, || {
        wait_until("plaintext is refused", SOON, || {
            let (code, said) = from_outside(mesh, "/reviews/0")?;
            holds!(code != 0 && !said.contains("Reviewer1"), "{code} {said}")
        })?;
        let page = mesh.get("/productpage");
        holds!(
            page.status == 200 && page.body.contains("reviews-v"),
            "{page:?}"
        )
    })
}

fn deny(mesh: &Mesh) -> Result<()> {
    mesh.with(DENY, || {
        // As with Envoy: a connection whose chain a change before this one took away ends with its
        // next answer, which still follows the rules of that chain.
        wait_until("ten refusals in a row", SOON, || {
            for _ in 0..10 {
                let answer = mesh.get("/api/v1/products/0/reviews");
                ensure!(answer.status == 403, "{answer:?}");
            }
            Ok(())
        })?;
        let pod = mesh.pod_name("productpage")?;
        let url = "http://reviews:9080/reviews/0";
        let said = mesh.ok(&["exec", &pod, "--", "curl", "-sS", "--max-time", "5", url])?;
        holds!(said == "RBAC: access denied", "{said}")
    })
}

fn allow(mesh: &Mesh) -> Result<()> {
    mesh.with(ALLOW, || {
        let direct = mesh.get("/api/v1/products/0/ratings").status;
        ensure!(direct == 403, "productpage asks ratings: {direct}");
        wait_until("reviews still has its stars", SOON, || {
            let page = mesh.get("/productpage");
            holds!(page.body.contains("of 5 stars"), "{page:?}")
        })
    })
}

/// What a capture on the pod's link holds while the page is served.
fn wire(mesh: &Mesh) -> Result<()> {
    let pod = mesh.pod_name("reviews-v1")?;
    let file = tempfile::NamedTempFile::new()?;
    let capture = [
        "exec", &pod, "--", "tcpdump", "-i", "eth0", "-U", "-w", "-", "tcp",
    ];
    let mut tcpdump = mesh
        .command(&capture)
        .stdout(file.reopen()?)
        .stderr(Stdio::null())
        .spawn()?;
    // The file's header shows that the capture has begun.
    let begun = wait_until("the capture begins", SOON, || {
        holds!(file.as_file().metadata()?.len() >= 24, "no header yet")
    });
    let restarted = begun.and_then(|()| fresh_connections(mesh));
    let captured = restarted.and_then(|()| {
        wait_until("a handshake is captured", SOON, || {
            let versions = tshark(
                file.path(),
                "tls.handshake.type==2",
                "tls.handshake.extensions.supported_version",
            )?;
            holds!(
                versions.contains("0x0304"),
                "ServerHello versions: {versions:?}"
            )
        })
    });
    let _ = Command::new("kill").arg(tcpdump.id().to_string()).status();
    let _ = tcpdump.wait();
    captured?;
    let bytes = std::fs::read(file.path())?;
    for secret in ["Reviewer1", "GET /reviews", "podname"] {
        let found = bytes
            .windows(secret.len())
            .any(|window| window == secret.as_bytes());
        ensure!(!found, "{secret:?} can be read on the wire");
    }
    Ok(())
}

/// A new pod of the calling workload opens new connections to everybody.
fn fresh_connections(mesh: &Mesh) -> Result<()> {
    mesh.ok(&["scale", "deployment/productpage-v1", "--replicas", "2"])?;
    let asked = wait_until("both answer", SOON, || {
        let answers = (0..40).map(|_| mesh.get("/productpage"));
        let pods: BTreeSet<String> = answers
            .filter_map(|a| a.header("x-served-by").map(str::to_owned))
            .collect();
        holds!(pods.len() == 2, "{pods:?}")
    });
    mesh.ok(&["scale", "deployment/productpage-v1", "--replicas", "1"])?;
    asked
}

fn tshark(file: &Path, filter: &str, field: &str) -> Result<String> {
    let path = file.display().to_string();
    let arguments = [
        "-r",
        &path,
        "-d",
        "tcp.port==9080,tls",
        "-Y",
        filter,
        "-T",
        "fields",
        "-e",
    ];
    let output = Command::new("tshark").args(arguments).arg(field).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn probes(mesh: &Mesh) -> Result<()> {
    mesh.with(STRICT, || {
        let table = mesh.ok(&["get", "pods"])?;
        holds!(!table.contains("0/") && !table.contains("1/2"), "{table}")
    })
}
