//! Rules as text for `iptables-restore --noflush`, and what removes them again.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::rules::{Families, OUTPUT, PREROUTING, Rule, Table};

impl Table {
    pub fn iptables_name(self) -> &'static str {
        match self {
            Table::Nat => "nat",
            Table::Mangle => "mangle",
            Table::Raw => "raw",
        }
    }
}

/// The input of one restore command for one family; `-N` for each chain of ours.
pub fn restore_text(rules: &[Rule], family: Families) -> String {
    text(
        rules,
        family,
        |chain| format!("-N {chain}"),
        &BTreeMap::new(),
    )
}

/// The same on top of what `saved` (an iptables-save) shows of an earlier run: our chains are
/// emptied and our jumps removed in the same transaction.
pub fn replace_text(rules: &[Rule], family: Families, saved: &str) -> String {
    let leftovers = leftovers(saved);
    text(
        rules,
        family,
        |chain| format!(":{chain} - [0:0]"),
        &leftovers,
    )
}

/// Removes everything of ours that `saved` shows; empty if there is nothing.
pub fn cleanup_text(saved: &str) -> String {
    let mut text = String::new();
    for (table, left) in leftovers(saved) {
        let _ = writeln!(text, "* {table}");
        for chain in &left.chains {
            let _ = writeln!(text, ":{chain} - [0:0]");
        }
        for rule in &left.builtin_rules {
            let _ = writeln!(text, "-D {rule}");
        }
        for chain in &left.chains {
            let _ = writeln!(text, "-X {chain}");
        }
        text.push_str("COMMIT\n");
    }
    text
}

#[derive(Debug, Default)]
struct Leftovers {
    chains: Vec<String>,
    /// Rules of built-in chains that name a chain of ours, without the `-A`.
    builtin_rules: Vec<String>,
}

fn leftovers(saved: &str) -> BTreeMap<String, Leftovers> {
    let mut tables: BTreeMap<String, Leftovers> = BTreeMap::new();
    let mut table = String::new();
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.trim().to_string();
        } else if let Some(chain) = line.strip_prefix(":ISTIO_") {
            let name = chain.split_whitespace().next().unwrap_or_default();
            tables
                .entry(table.clone())
                .or_default()
                .chains
                .push(format!("ISTIO_{name}"));
        } else if let Some(rule) = line.strip_prefix("-A ")
            && !rule.starts_with("ISTIO_")
            && rule.contains("-j ISTIO_")
        {
            tables
                .entry(table.clone())
                .or_default()
                .builtin_rules
                .push(rule.to_string());
        }
    }
    tables
}

fn text(
    rules: &[Rule],
    family: Families,
    declare: impl Fn(&str) -> String,
    leftovers: &BTreeMap<String, Leftovers>,
) -> String {
    let rules: Vec<&Rule> = rules
        .iter()
        .filter(|rule| rule.families == Families::Both || rule.families == family)
        .collect();
    // In the order of the tables' names, as Istio writes them.
    let mut tables: BTreeMap<&str, Vec<&Rule>> = BTreeMap::new();
    for table in leftovers.keys() {
        tables.insert(table, Vec::new());
    }
    for rule in rules {
        tables
            .entry(rule.table.iptables_name())
            .or_default()
            .push(rule);
    }
    let mut text = String::new();
    for (table, rules) in tables {
        let _ = writeln!(text, "* {table}");
        let mut chains: Vec<&str> = Vec::new();
        for rule in &rules {
            if !matches!(rule.chain, PREROUTING | OUTPUT) && !chains.contains(&rule.chain) {
                chains.push(rule.chain);
            }
        }
        for chain in &chains {
            let _ = writeln!(text, "{}", declare(chain));
        }
        let gone = leftovers.get(table);
        let surplus = |chain: &&String| !chains.contains(&chain.as_str());
        for chain in gone.iter().flat_map(|left| &left.chains).filter(surplus) {
            let _ = writeln!(text, ":{chain} - [0:0]");
        }
        for rule in gone.iter().flat_map(|left| &left.builtin_rules) {
            let _ = writeln!(text, "-D {rule}");
        }
        for chain in gone.iter().flat_map(|left| &left.chains).filter(surplus) {
            let _ = writeln!(text, "-X {chain}");
        }
        for rule in rules {
            let Rule {
                chain, iptables, ..
            } = rule;
            let _ = match rule.position {
                None => writeln!(text, "-A {chain} {iptables}"),
                Some(position) => writeln!(text, "-I {chain} {position} {iptables}"),
            };
        }
        text.push_str("COMMIT\n");
    }
    text
}
