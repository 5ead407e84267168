//! The rules in a real kernel: applied, applied again, changed and removed in a namespace of
//! their own. Needs root and the tools; says so if it cannot run.

#![allow(clippy::unwrap_used)]

#[path = "toy/namespace.rs"]
mod namespace;

use std::process::Command;

use agent::capture::apply;
use agent::capture::flags;
use namespace::in_namespace;

fn run(arguments: &[&str]) -> String {
    let arguments: Vec<String> = arguments.iter().map(|text| text.to_string()).collect();
    let command = flags::parse(&arguments, |_| None, "nameserver 127.0.0.53").unwrap();
    apply::run(&command).unwrap()
}

fn listing(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // Counters and comments change from look to look.
    let is_fixed = |line: &&str| !line.starts_with('#');
    let lines: Vec<&str> = text.lines().filter(is_fixed).collect();
    strip_counters(&lines.join("\n"))
}

fn strip_counters(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| line.split(" [").next().unwrap_or_default().to_string());
    lines.collect::<Vec<_>>().join("\n")
}

const COMMON: [&str; 9] = [
    "-i",
    "*",
    "-b",
    "*",
    "-d",
    "15090,15021",
    "--redirect-dns",
    "-x",
    "10.1.0.0/16",
];

#[test]
fn iptables_apply_twice_change_and_clean() {
    if !in_namespace("iptables_apply_twice_change_and_clean") {
        return;
    }
    let look = || listing("iptables-save", &[]);
    let before = look();
    run(&COMMON);
    let first = look();
    assert!(
        first.contains("-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001"),
        "{first}"
    );
    run(&COMMON);
    assert_eq!(look(), first, "the second time changes nothing");
    run(&[&COMMON[..], &["-m", "TPROXY", "-c", "eth9"]].concat());
    let changed = look();
    assert!(changed.contains("ISTIO_TPROXY"), "{changed}");
    run(&[&COMMON[..], &["-m", "TPROXY", "-c", "eth9"]].concat());
    assert_eq!(
        look(),
        changed,
        "rules without a chain of ours are not doubled"
    );
    run(&[
        &COMMON[..],
        &["-m", "TPROXY", "-c", "eth9", "--cleanup-only"],
    ]
    .concat());
    let rules = |text: &str| text.lines().filter(|line| line.starts_with('-')).count();
    assert_eq!(
        rules(&look()),
        rules(&before),
        "nothing is left: {}",
        look()
    );
    assert!(!look().contains("ISTIO"), "no chain is left: {}", look());
}

#[test]
fn nft_apply_twice_change_and_clean() {
    if !in_namespace("nft_apply_twice_change_and_clean") {
        return;
    }
    let look = || listing("nft", &["-s", "list", "ruleset"]);
    let nft = |more: &[&str]| run(&[&COMMON[..], &["--native-nftables"], more].concat());
    nft(&[]);
    let first = look();
    assert!(first.contains("redirect to :15001"), "{first}");
    nft(&[]);
    assert_eq!(look(), first, "the second time changes nothing");
    nft(&["-m", "TPROXY", "--dual-stack", "--proxy-mark", "99"]);
    assert!(look().contains("istio-tproxy"), "{}", look());
    nft(&[]);
    assert_eq!(look(), first, "nothing of another set is left");
    nft(&["--cleanup-only"]);
    assert_eq!(look(), "", "nothing is left");
    nft(&["--cleanup-only"]);
}
