//! A full disk under `apply`: a clean error, nothing half applied, and it works again once there
//! is room. Runs itself again in a mount namespace with a small disk.

#[path = "control/harness.rs"]
#[allow(dead_code)]
mod harness;

use std::path::PathBuf;
use std::process::Command;

use harness::Mesh;
use serde_json::json;

const SMALL_DISK: &str = "STOLOS_TEST_SMALL_DISK";

#[test]
fn a_full_disk_is_a_clean_error() {
    if let Some(disk) = std::env::var_os(SMALL_DISK) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        return runtime.block_on(on_small_disk(PathBuf::from(disk)));
    }
    let folder = tempfile::tempdir().expect("a directory");
    let mount = "mount -t tmpfs -o size=3m tmpfs \"$0\" && exec \"$@\"";
    let me = std::env::current_exe().expect("a test binary");
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", mount])
        .arg(folder.path())
        .arg(me)
        .args(["--exact", "a_full_disk_is_a_clean_error", "--nocapture"])
        .env(SMALL_DISK, folder.path())
        .output();
    let output = output.expect("unshare is there");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() && text.contains("not permitted") {
        assert!(std::env::var_os("CI").is_none(), "needs root: {text}");
        eprintln!("not run: needs root for a mount namespace");
        return;
    }
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{text}");
}

async fn on_small_disk(disk: PathBuf) {
    let mut mesh = Mesh::start().await;
    let state = disk.join("state");
    mesh.control.stop().await.expect("stops");
    mesh.options.state_dir = state;
    mesh.control = control::start(mesh.options.clone()).await.expect("starts");
    mesh.control.ready().await;
    let rule = |name: &str, filler: usize| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
             metadata: {{name: {name}, annotations: {{filler: \"{}\"}}}}\n\
             spec:\n  hosts: [{name}.com]\n\
             \x20 http:\n  - directResponse: {{status: 418}}\n",
            "x".repeat(filler)
        )
    };
    let (status, answer) = mesh.apply(&rule("first", 1)).await;
    assert_eq!(status, 200, "{answer}");
    let filler = disk.join("filler");
    // Leaves less than the next transaction needs.
    let room = std::fs::write(&filler, vec![0; 3 << 20]);
    assert!(room.is_err(), "the disk is full");

    let both = format!("{}---\n{}", rule("second", 100_000), rule("third", 100_000));
    let (status, answer) = mesh.apply(&both).await;
    assert_eq!(status, 507, "{answer}");
    let message = answer["errors"][0]["message"].as_str().expect("a message");
    assert!(message.contains("nothing was changed"), "{message}");
    assert!(message.contains("No space left"), "{message}");
    let (_, list) = mesh.get("/v1/objects?kind=vs").await;
    let items = list["items"].as_array().expect("items");
    let names: Vec<_> = items.iter().map(|item| &item["metadata"]["name"]).collect();
    assert_eq!(names, [&json!("first")], "nothing of it is in force");

    std::fs::remove_file(&filler).expect("makes room");
    let (status, answer) = mesh.apply(&both).await;
    assert_eq!(status, 200, "there is room again: {answer}");
    let mesh = mesh.restart().await;
    let (_, list) = mesh.get("/v1/objects?kind=vs").await;
    assert_eq!(
        list["items"].as_array().map(Vec::len),
        Some(3),
        "all are kept: {list}"
    );
    mesh.control.stop().await.expect("stops");
}
