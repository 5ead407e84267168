//! Bad input: what is said, the exit code, and that nothing of it reaches the traffic.

use crate::Scenario;
use anyhow::{Result, ensure};
use mesh_tests::holds;
use mesh_tests::load::Load;
use mesh_tests::mesh::Mesh;

/// Input, exit code, what the message must contain.
const CASES: &[(&str, &str, i32, &[&str])] = &[
    ("YAML syntax", "kind: [", 65, &["<stdin>:1:7: error"]),
    (
        "an unknown field",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x}\nspec:\n  \
         hosts: [reviews]\n  htpp: []\n",
        65,
        &["<stdin>:6:3: error", "spec.htpp"],
    ),
    (
        "a wrong type",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x}\nspec:\n  \
         hosts: reviews\n",
        65,
        &["<stdin>:5:", "spec.hosts"],
    ),
    (
        "a bad value",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x}\nspec:\n  \
         hosts: [reviews]\n  http:\n  - fault: {abort: {httpStatus: 9, percentage: {value: 1}}}\n\
         \x20   route: [{destination: {host: reviews}}]\n",
        65,
        &["spec.http[0].fault.abort.httpStatus"],
    ),
    (
        "an unknown kind",
        "apiVersion: example.org/v1\nkind: Nothing\nmetadata: {name: x}\n",
        65,
        &["Nothing"],
    ),
    (
        "a security field that is not performed",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: x}\nspec:\n\
         \x20 action: CUSTOM\n  provider: {name: x}\n  rules: [{}]\n",
        65,
        &["CUSTOM"],
    ),
];

pub fn scenarios() -> Vec<Scenario> {
    vec![
        (
            "bad input is refused with its place and changes nothing",
            refused,
        ),
        ("a command that does not exist is wrong usage", usage),
    ]
}

fn refused(mesh: &Mesh) -> Result<()> {
    let load = Load::start(mesh.ingress(), "/productpage", 1);
    for (name, yaml, code, parts) in CASES {
        let said = mesh.feed(&["apply", "-f", "-"], yaml)?;
        ensure!(
            said.code == *code,
            "{name}: exit code {}, not {code}: {}",
            said.code,
            said.err
        );
        for part in *parts {
            ensure!(
                said.err.contains(part),
                "{name}: {part:?} is not in {}",
                said.err
            );
        }
    }
    let report = load.finish();
    holds!(report.failed == 0, "{report:?}")
}

fn usage(mesh: &Mesh) -> Result<()> {
    let said = mesh.run(&["aply"])?;
    holds!(said.code == 64 && said.err.contains("apply"), "{said:?}")
}
