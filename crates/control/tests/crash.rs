//! kill -9 in the middle of applies: whatever was acknowledged is there afterwards, whole.
//! Runs itself again as the process that is killed.

#[path = "control/harness.rs"]
#[allow(dead_code)]
mod harness;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use control::Options;
use harness::Mesh;
use serde_json::json;

const VICTIM: &str = "STOLOS_TEST_VICTIM";
const ACKNOWLEDGED: &str = "acknowledged ";

#[test]
fn acknowledged_objects_survive_a_kill() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if std::env::var_os(VICTIM).is_some() {
        return runtime.block_on(apply_until_killed());
    }
    let me = std::env::current_exe().expect("a test binary");
    let mut victim = Command::new(me)
        .args([
            "--exact",
            "acknowledged_objects_survive_a_kill",
            "--nocapture",
        ])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(victim.stdout.take().expect("piped")).lines();
    let mut directory = None;
    let mut acknowledged = BTreeSet::new();
    for line in lines.by_ref() {
        let line = line.expect("text");
        if let Some(path) = line.strip_prefix("directory ") {
            directory = Some(path.to_owned());
        }
        if let Some(number) = line.strip_prefix(ACKNOWLEDGED) {
            acknowledged.insert(number.to_owned());
        }
        if acknowledged.len() == 20 {
            // Most likely in the middle of the next one.
            victim.kill().expect("ours");
        }
    }
    victim.wait().expect("ended");
    let directory = directory.expect("said");
    let more = lines.map_while(Result::ok);
    acknowledged.extend(more.filter_map(|l| l.strip_prefix(ACKNOWLEDGED).map(str::to_owned)));
    assert!(acknowledged.len() >= 20, "{acknowledged:?}");
    runtime.block_on(check(&directory, &acknowledged));
    std::fs::remove_dir_all(directory).expect("removes");
}

fn rules(number: usize) -> String {
    let rule = |name: String| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\n\
             spec:\n  hosts: [{name}.com]\n  http:\n  - directResponse: {{status: 418}}\n"
        )
    };
    format!(
        "{}---\n{}",
        rule(format!("a-{number}")),
        rule(format!("b-{number}"))
    )
}

async fn apply_until_killed() {
    let mesh = Mesh::start().await;
    let directory = mesh.directory.path().display().to_string();
    println!("directory {directory}");
    for number in 0..10_000 {
        let (status, answer) = mesh.apply(&rules(number)).await;
        assert_eq!(status, 200, "{answer}");
        println!("{ACKNOWLEDGED}{number}");
        std::io::stdout().flush().expect("flushes");
    }
}

async fn check(directory: &str, acknowledged: &BTreeSet<String>) {
    let mut options = Options::new(format!("{directory}/state"));
    options.xds_address = ([127, 0, 0, 1], 0).into();
    options.monitoring_address = ([127, 0, 0, 1], 0).into();
    let control = control::start(options.clone())
        .await
        .expect("starts on what was left");
    control.ready().await;
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh {
        directory,
        options,
        control,
    };
    let (_, list) = mesh.get("/v1/objects?kind=vs").await;
    let items = list["items"].as_array().expect("items");
    let has = |name: String| {
        items
            .iter()
            .any(|item| item["metadata"]["name"] == json!(name))
    };
    for number in acknowledged {
        assert!(
            has(format!("a-{number}")) && has(format!("b-{number}")),
            "{number} is lost"
        );
    }
    for number in 0..items.len() {
        assert_eq!(
            has(format!("a-{number}")),
            has(format!("b-{number}")),
            "{number} is half"
        );
    }
    mesh.control.stop().await.expect("stops");
}
