//! Istio's own capture tables: the options of every row give exactly the rules of its golden.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use agent::capture::options::{self, Options};
use agent::capture::rules::{Families, rules};
use agent::capture::{Exempt, Mode, Ports, Ranges, iptables, nftables};

fn test_data() -> Option<PathBuf> {
    let folder = match std::env::var_os("STOLOS_TESTDATA") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/testdata"),
    };
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "no test data at {}",
        folder.display()
    );
    println!("not run: no test data at {}", folder.display());
    None
}

struct Case {
    name: String,
    golden: String,
    /// One value, or several for a list.
    set: BTreeMap<String, Vec<String>>,
}

/// Reads the few shapes of YAML that these tables have.
fn cases(text: &str) -> Vec<Case> {
    let scalar = |text: &str| text.trim().trim_matches('\'').to_string();
    let mut cases: Vec<Case> = Vec::new();
    let mut key = String::new();
    for line in text.lines().skip_while(|line| *line != "cases:").skip(1) {
        if let Some(name) = line.strip_prefix("- name: ") {
            let name = scalar(name);
            cases.push(Case {
                name,
                golden: String::new(),
                set: BTreeMap::new(),
            });
            continue;
        }
        let case = cases.last_mut().expect("a case before its lines");
        if let Some(item) = line.strip_prefix("    - ") {
            case.set
                .get_mut(&key)
                .expect("a key before its items")
                .push(scalar(item));
        } else if let Some(golden) = line.strip_prefix("  golden: ") {
            case.golden = scalar(golden);
        } else if let Some((name, value)) = line
            .strip_prefix("    ")
            .and_then(|line| line.split_once(':'))
        {
            key = name.to_string();
            let value = value.trim();
            let values = if value.is_empty() {
                Vec::new()
            } else {
                vec![scalar(value)]
            };
            case.set.insert(key.clone(), values);
        } else {
            assert!(
                line.trim() == "set:" || line.trim() == "set: {}",
                "unknown line {line:?}"
            );
        }
    }
    cases
}

fn build(case: &Case) -> Options {
    let mut options = Options::default();
    let (mut users, mut groups) = (vec!["1337".to_string()], vec!["1337".to_string()]);
    for (key, values) in &case.set {
        let text = values.first().map(String::as_str).unwrap_or_default();
        let is_on = text == "true";
        let ports = || options::ports(key, text).unwrap();
        let cidrs = || options::cidrs(key, text).unwrap();
        let servers = || {
            values
                .iter()
                .map(|text| options::Cidr::parse(text).unwrap())
        };
        match key.as_str() {
            "INBOUND_PORTS_INCLUDE" if text == "*" => options.inbound_ports = Ports::All,
            "INBOUND_PORTS_INCLUDE" => options.inbound_ports = Ports::Only(ports()),
            "INBOUND_PORTS_EXCLUDE" => options.inbound_ports_exclude = ports(),
            "OUTBOUND_PORTS_INCLUDE" => options.outbound_ports = ports(),
            "OUTBOUND_PORTS_EXCLUDE" => options.outbound_ports_exclude = ports(),
            "OUTBOUND_IPRANGES_INCLUDE" if text == "*" => options.outbound_ranges = Ranges::All,
            "OUTBOUND_IPRANGES_INCLUDE" => options.outbound_ranges = Ranges::Only(cidrs()),
            "OUTBOUND_IPRANGES_EXCLUDE" => options.outbound_ranges_exclude = cidrs(),
            "INBOUND_INTERCEPTION_MODE" => {
                options.mode = if text == "TPROXY" {
                    Mode::Tproxy
                } else {
                    Mode::Redirect
                };
            }
            "OUTBOUND_OWNER_GROUPS_INCLUDE" => options.owner_groups = Some(options::list(text)),
            "OUTBOUND_OWNER_GROUPS_EXCLUDE" => options.owner_groups_exclude = options::list(text),
            "KUBE_VIRT_INTERFACES" => options.virtual_interfaces = options::list(text),
            "EXCLUDE_INTERFACES" => options.exclude_interfaces = options::list(text),
            "PROXY_UID" => users = options::list(text),
            "PROXY_GID" => groups = options::list(text),
            "REDIRECT_DNS" => options.redirect_dns = is_on,
            "CAPTURE_ALL_DNS" => options.capture_all_dns = is_on,
            "DNS_SERVERS_V4" | "DNS_SERVERS_V6" => options.dns_servers.extend(servers()),
            "DROP_INVALID" => options.drop_invalid = is_on,
            "ENABLE_INBOUND_IPV6" => options.ipv6 = is_on,
            "HOST_IPV4_LOOPBACK_CIDR" => options.loopback = text.to_string(),
            "DRY_RUN" => {}
            key => panic!("{}: unknown option {key}", case.name),
        }
    }
    options.exempt = Exempt::Owner { users, groups };
    options
}

/// The golden holds the commands that are run: two looks, the restore inputs, looks afterwards.
fn iptables_commands(options: &Options) -> String {
    let rules = rules(options);
    let mut text = "iptables-save\nip6tables-save\n".to_string();
    text += &iptables::restore_text(&rules, Families::V4);
    if options.ipv6 {
        text += &iptables::restore_text(&rules, Families::V6);
    }
    text += "iptables-save\n";
    if options.ipv6 {
        text += "ip6tables-save\n";
    }
    text
}

fn nft_commands(options: &Options) -> String {
    nftables::transaction(&rules(options), options.ipv6)
}

fn run(tool: &str, commands: fn(&Options) -> String) {
    let Some(folder) = test_data() else { return };
    let folder = folder.join("istio/cases").join(tool);
    let expected = include_str!("expected-failures/capture.tsv");
    let cases = cases(&std::fs::read_to_string(folder.join("cases.yaml")).unwrap());
    assert!(
        cases.len() >= 27,
        "{tool}: only {} cases were read",
        cases.len()
    );
    let mut wrong = Vec::new();
    for case in &cases {
        let want = std::fs::read_to_string(folder.join(&case.golden)).unwrap();
        let got = commands(&build(case));
        let is_expected = expected
            .lines()
            .any(|line| line.split('\t').take(2).collect::<Vec<_>>() == [tool, &case.name]);
        let is_equal = got.trim() == want.trim();
        if is_equal == is_expected {
            let (got, want): (Vec<_>, Vec<_>) = (got.lines().collect(), want.lines().collect());
            let line = got.iter().zip(&want).position(|(got, want)| got != want);
            let line = line.unwrap_or(got.len().min(want.len()));
            let at = |lines: &[&str]| lines.get(line).unwrap_or(&"(end)").to_string();
            wrong.push(format!(
                "{}: line {}\n   got {}\n  want {}",
                case.name,
                line + 1,
                at(&got),
                at(&want)
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{tool}: {} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[test]
fn iptables_rules_are_istios() {
    run("iptables", iptables_commands);
}

#[test]
fn nftables_rules_are_istios() {
    run("nftables", nft_commands);
}
