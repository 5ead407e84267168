//! Every member of the proxy's tables is backed by differential cases: one that behaves and, where
//! its configuration can be wrong, one that is refused.

use super::Breach;
use anyhow::Result;
use std::collections::BTreeSet;
use std::path::Path;

/// A table of the proxy: a folder whose files are its members, and the name of its members in the
/// `covers` lists of cases.
const FOLDERS: &[(&str, &str)] = &[
    ("crates/proxy/src/http/filters", "http_filter"),
    ("crates/proxy/src/cluster/load_balancer", "load_balancer"),
];

/// Members that need no case of their own, and why.
const EXEMPT: &[(&str, &str)] = &[
    ("http_filter/router", "every case ends in it"),
    (
        "load_balancer/edf",
        "the schedule of round_robin with weights",
    ),
    (
        "load_balancer/weights",
        "hosts by weight: every balancer that has weights covers it",
    ),
    (
        "load_balancer/priority",
        "choosing a priority: load_balancer_round_robin has it",
    ),
    (
        "http_filter/alpn",
        "Istio's own: Envoy does not have it; unit tests and scenarios",
    ),
    (
        "http_filter/istio_stats",
        "Istio's own: Envoy does not have it; unit tests and scenarios",
    ),
    (
        "http_filter/metadata_exchange",
        "Istio's own: Envoy does not have it; unit tests",
    ),
    (
        "retry/http3-post-connect-failure",
        "there is no HTTP/3 upstream to fail",
    ),
];

/// Operators of access logs, one quoted name at the begin of each row.
const OPERATORS: &str = "crates/proxy/src/access_log/operator.rs";
/// Retry conditions: a bit, a constant and the quoted word.
const CONDITIONS: &str = "crates/proxy/src/retry.rs";

pub fn check(root: &Path, breaches: &mut Vec<Breach>) -> Result<()> {
    let cases = Cases::load(&root.join("tests/mesh/envoy"))?;
    for (folder, kind) in FOLDERS {
        for member in members(&root.join(folder)) {
            let key = format!("{kind}/{member}");
            if EXEMPT.iter().any(|(exempt, _)| *exempt == key) {
                continue;
            }
            if !cases.accepting.contains(&key) {
                let text = format!("no differential case covers {key} (tests/mesh/envoy)");
                breaches.push(Breach::new(format!("{folder}/{member}.rs"), text));
            } else if !cases.rejecting.contains(&key) {
                let text = format!("no rejects.yaml covers {key} (tests/mesh/envoy)");
                breaches.push(Breach::new(format!("{folder}/{member}.rs"), text));
            }
        }
    }
    let text = |name: &str| std::fs::read_to_string(root.join(name)).unwrap_or_default();
    for operator in rows(&text(OPERATORS), |before| before == "    ") {
        if !cases.configuration.contains(&format!("%{operator}")) {
            let text = format!("no differential case logs %{operator}%");
            breaches.push(Breach::new(OPERATORS, text));
        }
    }
    let is_condition = |before: &str| {
        let words: Vec<&str> = before.split_whitespace().collect();
        matches!(words.as_slice(), [bit, _] if bit.bytes().all(|byte| byte.is_ascii_digit()))
    };
    for condition in rows(&text(CONDITIONS), is_condition) {
        let exempt = EXEMPT
            .iter()
            .any(|(key, _)| *key == format!("retry/{condition}"));
        if !exempt && !cases.configuration.contains(condition.as_str()) {
            let text = format!("no differential case retries on {condition}");
            breaches.push(Breach::new(CONDITIONS, text));
        }
    }
    Ok(())
}

/// The first quoted text of each line whose beginning is as a row of the table has it.
fn rows(text: &str, is_row: impl Fn(&str) -> bool) -> Vec<String> {
    let parts = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, '"');
        let (before, name) = (parts.next()?, parts.next()?);
        let word = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        (word && !name.is_empty() && is_row(before)).then(|| name.to_owned())
    });
    parts.collect()
}

fn members(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    let names = entries.filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let stem = name.strip_suffix(".rs")?;
        (!stem.ends_with("tests")).then(|| stem.to_owned())
    });
    names.collect()
}

#[derive(Default)]
struct Cases {
    accepting: BTreeSet<String>,
    rejecting: BTreeSet<String>,
    /// All `envoy.yaml` texts in a row.
    configuration: String,
}

impl Cases {
    /// `covers: [a/b, c/d]` on one line, and the folder's own name with its first `_` as `/`.
    fn load(folder: &Path) -> Result<Cases> {
        let mut cases = Cases::default();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let configuration = std::fs::read_to_string(path.join("envoy.yaml"));
            cases
                .configuration
                .push_str(&configuration.unwrap_or_default());
            let Ok(text) = std::fs::read_to_string(path.join("calls.yaml")) else {
                continue;
            };
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("covers: ["))
                .unwrap_or("");
            let listed = line
                .trim_end_matches(']')
                .split(',')
                .map(|key| key.trim().to_owned());
            let mut keys: BTreeSet<String> = listed.filter(|key| !key.is_empty()).collect();
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            let name = name.unwrap_or_default();
            if let Some(member) = name.strip_prefix("load_balancer_") {
                keys.insert(format!("load_balancer/{member}"));
            }
            if path.join("rejects.yaml").is_file() {
                cases.rejecting.extend(keys.iter().cloned());
            }
            cases.accepting.extend(keys);
        }
        Ok(cases)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_table() {
        let text = "    \"PROTOCOL\" Protocol: |i| x;\n        \"NOT\" =>\n    // \"NO\"\n";
        assert_eq!(rows(text, |before| before == "    "), ["PROTOCOL"]);
    }
}
