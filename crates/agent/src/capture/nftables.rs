//! Rules as one `nft -f` transaction in tables of our own; applying it twice is the same as once.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::rules::{Families, Rule, Table};

/// In the order in which they are declared.
const CHAINS: [&str; 10] = [
    "PREROUTING",
    "OUTPUT",
    "ISTIO_DROP",
    "ISTIO_DIVERT",
    "ISTIO_TPROXY",
    "ISTIO_INBOUND",
    "ISTIO_REDIRECT",
    "ISTIO_IN_REDIRECT",
    "ISTIO_OUTPUT",
    "ISTIO_OUTPUT_DNS",
];

impl Table {
    pub fn nft_name(self) -> &'static str {
        match self {
            Table::Nat => "istio-proxy-nat",
            Table::Mangle => "istio-proxy-mangle",
            Table::Raw => "istio-proxy-raw",
        }
    }

    /// Hook of a base chain, in the terms of the nft language.
    fn hook(self, chain: &str) -> Option<&'static str> {
        Some(match (self, chain) {
            (Table::Nat, "PREROUTING") => "type nat hook prerouting priority -100",
            (Table::Nat, "OUTPUT") => "type nat hook output priority -100",
            (Table::Mangle, "PREROUTING") => "type filter hook prerouting priority -150",
            // `route`, so that a changed mark is routed again.
            (Table::Mangle, "OUTPUT") => "type route hook output priority -150",
            (Table::Raw, "PREROUTING") => "type filter hook prerouting priority -300",
            (Table::Raw, "OUTPUT") => "type filter hook output priority -300",
            _ => return None,
        })
    }
}

pub fn transaction(rules: &[Rule], ipv6: bool) -> String {
    let mut tables: BTreeMap<Table, Vec<&Rule>> = BTreeMap::new();
    for rule in rules {
        let is_wanted = !rule.nft.is_empty() && (ipv6 || rule.families != Families::V6);
        if is_wanted {
            tables.entry(rule.table).or_default().push(rule);
        }
    }
    let mut text = String::new();
    for (table, rules) in tables {
        write_table(&mut text, table, &rules);
    }
    text
}

fn write_table(text: &mut String, table: Table, rules: &[&Rule]) {
    let name = table.nft_name();
    let _ = writeln!(text, "add table inet {name}\nflush table inet {name}");
    for chain in CHAINS
        .into_iter()
        .filter(|chain| rules.iter().any(|rule| rule.chain == *chain))
    {
        let nft_chain = chain_name(chain);
        let _ = match table.hook(chain) {
            Some(hook) => writeln!(text, "add chain inet {name} {nft_chain} {{ {hook} ; }}"),
            None => writeln!(text, "add chain inet {name} {nft_chain}"),
        };
    }
    let mut lengths: BTreeMap<&str, usize> = BTreeMap::new();
    for rule in rules {
        let length = lengths.entry(rule.chain).or_default();
        let chain = chain_name(rule.chain);
        let _ = match rule.position.map(|position| position - 1) {
            // nft cannot insert at an index that does not exist yet.
            Some(index) if index < *length => {
                writeln!(
                    text,
                    "insert rule inet {name} {chain} index {index} {}",
                    rule.nft
                )
            }
            _ => writeln!(text, "add rule inet {name} {chain} {}", rule.nft),
        };
        *length += 1;
    }
}

/// Removes our tables; adding each first makes the deletion of an absent one no error.
pub fn cleanup() -> String {
    let mut text = String::new();
    for table in [Table::Nat, Table::Mangle, Table::Raw] {
        let name = table.nft_name();
        let _ = writeln!(text, "add table inet {name}\ndelete table inet {name}");
    }
    text
}

fn chain_name(chain: &str) -> String {
    chain.to_lowercase().replace('_', "-")
}
