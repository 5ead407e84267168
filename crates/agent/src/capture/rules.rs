//! The rules, once, in Istio's order; each is written for iptables and for nft side by side.

mod dns;
mod tproxy;

use super::options::{Cidr, Exempt, Mode, Options, Ports, Ranges};

/// One rule in both languages, for one or both address families.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub families: Families,
    pub table: Table,
    pub chain: &'static str,
    /// `None` appends, `Some(n)` inserts as the n-th rule, counted from 1.
    pub position: Option<usize>,
    pub iptables: String,
    /// Empty where another rule already says it in the inet family.
    pub nft: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    Both,
    V4,
    V6,
}

/// In the order in which nft's tables are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    Nat,
    Mangle,
    Raw,
}

pub const PREROUTING: &str = "PREROUTING";
pub const OUTPUT: &str = "OUTPUT";
const INBOUND: &str = "ISTIO_INBOUND";
const REDIRECT: &str = "ISTIO_REDIRECT";
const IN_REDIRECT: &str = "ISTIO_IN_REDIRECT";
const ISTIO_OUTPUT: &str = "ISTIO_OUTPUT";
const OUTPUT_DNS: &str = "ISTIO_OUTPUT_DNS";
const DIVERT: &str = "ISTIO_DIVERT";
const TPROXY: &str = "ISTIO_TPROXY";
const DROP: &str = "ISTIO_DROP";

/// All rules for these options.
pub fn rules(options: &Options) -> Vec<Rule> {
    let mut rules = Rules {
        options,
        rules: Vec::new(),
    };
    rules.interfaces();
    rules.shared_chains();
    rules.inbound();
    rules.outbound_start();
    rules.exempt_proxy();
    rules.owner_groups();
    if options.captures_dns() {
        rules.dns();
    }
    rules.outbound_ranges();
    if options.mode == Mode::Tproxy {
        rules.tproxy_marks();
    }
    rules.rules
}

struct Rules<'a> {
    options: &'a Options,
    rules: Vec<Rule>,
}

/// How one of the proxy's identities is matched.
struct ProxyMatch {
    iptables: String,
    iptables_not: String,
    nft: String,
    nft_not: String,
    /// nft's form in the raw table.
    nft_meta: String,
    /// With DNS capture Istio lets the proxy's own lookups pass for users only.
    is_user: bool,
}

impl Rules<'_> {
    fn add(&mut self, table: Table, chain: &'static str, iptables: &str, nft: &str) {
        self.push(
            Families::Both,
            table,
            chain,
            (iptables.to_string(), nft.to_string()),
        );
    }

    fn push(
        &mut self,
        families: Families,
        table: Table,
        chain: &'static str,
        (iptables, nft): (String, String),
    ) {
        self.rules.push(Rule {
            families,
            table,
            chain,
            position: None,
            iptables,
            nft,
        });
    }

    fn insert(&mut self, rule: Rule, position: usize) {
        self.rules.push(Rule {
            position: Some(position),
            ..rule
        });
    }

    /// The same rule for each family with that family's words.
    fn each(
        &mut self,
        table: Table,
        chain: &'static str,
        text: impl Fn(&Words) -> (String, String),
    ) {
        for families in [Families::V4, Families::V6] {
            let words = self.words(families);
            self.push(families, table, chain, text(&words));
        }
    }

    fn words(&self, families: Families) -> Words {
        match families {
            Families::V6 => Words {
                ip: "ip6",
                loopback: "::1/128".into(),
                passthrough: "::6/128",
            },
            _ => Words {
                ip: "ip",
                loopback: self.options.loopback.clone(),
                passthrough: "127.0.0.6/32",
            },
        }
    }

    fn capture_table(&self) -> Table {
        match self.options.mode {
            Mode::Redirect => Table::Nat,
            Mode::Tproxy => Table::Mangle,
        }
    }

    fn interfaces(&mut self) {
        let options = self.options;
        let tables: &[Table] = match options.mode {
            Mode::Redirect => &[Table::Nat],
            Mode::Tproxy => &[Table::Nat, Table::Mangle],
        };
        for name in &options.exclude_interfaces {
            for table in tables {
                self.add(
                    *table,
                    PREROUTING,
                    &format!("-i {name} -j RETURN"),
                    &format!("iifname {name} counter return"),
                );
                self.add(
                    *table,
                    OUTPUT,
                    &format!("-o {name} -j RETURN"),
                    &format!("oifname {name} counter return"),
                );
            }
        }
        for name in &options.virtual_interfaces {
            let rule = Rule {
                families: Families::Both,
                table: Table::Nat,
                chain: PREROUTING,
                position: None,
                iptables: format!("-i {name} -j RETURN"),
                nft: format!("iifname {name} counter return"),
            };
            self.insert(rule, 1);
        }
    }

    fn shared_chains(&mut self) {
        let options = self.options;
        if options.drop_invalid {
            self.add(
                Table::Mangle,
                PREROUTING,
                "-m conntrack --ctstate INVALID -j ISTIO_DROP",
                "meta l4proto tcp ct state invalid counter jump istio-drop",
            );
            self.add(Table::Mangle, DROP, "-j DROP", "counter drop");
        }
        let port = options.inbound_tunnel_port;
        self.add(
            Table::Nat,
            INBOUND,
            &format!("-p tcp --dport {port} -j RETURN"),
            &format!("meta l4proto tcp tcp dport {port} counter return"),
        );
        for (chain, port) in [
            (REDIRECT, options.proxy_port),
            (IN_REDIRECT, options.inbound_capture_port),
        ] {
            self.add(
                Table::Nat,
                chain,
                &format!("-p tcp -j REDIRECT --to-ports {port}"),
                &format!("meta l4proto tcp counter redirect to :{port}"),
            );
        }
    }

    fn inbound(&mut self) {
        let options = self.options;
        if options.inbound_ports == Ports::Only(Vec::new()) {
            return;
        }
        let table = self.capture_table();
        if options.mode == Mode::Tproxy {
            self.tproxy_chains();
        }
        self.add(
            table,
            PREROUTING,
            "-p tcp -j ISTIO_INBOUND",
            "meta l4proto tcp counter jump istio-inbound",
        );
        match &options.inbound_ports {
            Ports::All => {
                for port in &options.inbound_ports_exclude {
                    self.add(
                        table,
                        INBOUND,
                        &format!("-p tcp --dport {port} -j RETURN"),
                        &format!("meta l4proto tcp tcp dport {port} counter return"),
                    );
                }
                self.inbound_capture("", "");
            }
            Ports::Only(ports) => {
                for port in ports {
                    let (iptables, nft) =
                        (format!(" --dport {port}"), format!(" tcp dport {port}"));
                    self.inbound_capture(&iptables, &nft);
                }
            }
        }
    }

    fn inbound_capture(&mut self, iptables: &str, nft: &str) {
        match self.options.mode {
            Mode::Redirect => self.add(
                Table::Nat,
                INBOUND,
                &format!("-p tcp{iptables} -j ISTIO_IN_REDIRECT"),
                &format!("meta l4proto tcp{nft} counter jump istio-in-redirect"),
            ),
            Mode::Tproxy => {
                let established = "-m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT";
                let state = "ct state related,established";
                self.add(
                    Table::Mangle,
                    INBOUND,
                    &format!("-p tcp{iptables} {established}"),
                    &format!("meta l4proto tcp {state}{nft} counter jump istio-divert"),
                );
                self.add(
                    Table::Mangle,
                    INBOUND,
                    &format!("-p tcp{iptables} -j ISTIO_TPROXY"),
                    &format!("meta l4proto tcp{nft} counter jump istio-tproxy"),
                );
            }
        }
    }

    fn outbound_start(&mut self) {
        self.add(
            Table::Nat,
            OUTPUT,
            "-j ISTIO_OUTPUT",
            "counter jump istio-output",
        );
        for port in &self.options.outbound_ports_exclude {
            for protocol in ["tcp", "udp"] {
                self.add(
                    Table::Nat,
                    ISTIO_OUTPUT,
                    &format!("-p {protocol} --dport {port} -j RETURN"),
                    &format!("{protocol} dport {port} counter return"),
                );
            }
        }
        // The proxy itself to the application, for inbound passthrough.
        self.each(
            Table::Nat,
            ISTIO_OUTPUT,
            |Words {
                 ip, passthrough, ..
             }| {
                (
                    format!("-o lo -s {passthrough} -j RETURN"),
                    format!("oifname lo {ip} saddr {passthrough} counter return"),
                )
            },
        );
    }

    fn exempt_proxy(&mut self) {
        let options = self.options;
        let tunnel = options.inbound_tunnel_port;
        let dns = options.captures_dns();
        for proxy in proxy_matches(&options.exempt) {
            let (ports, nft_ports) = if dns && proxy.is_user {
                (
                    format!("-m multiport ! --dports 53,{tunnel}"),
                    format!("tcp dport != {{ 53, {tunnel} }}"),
                )
            } else {
                (
                    format!("! --dport {tunnel}"),
                    format!("tcp dport != {tunnel}"),
                )
            };
            // The application calls itself through its service: back in through the proxy.
            self.each(
                Table::Nat,
                ISTIO_OUTPUT,
                |Words { ip, loopback, .. }| {
                    let (is, nft_is) = (&proxy.iptables, &proxy.nft);
                    let to = format!("! -d {loopback}");
                    let nft_to = format!("{ip} daddr != {loopback}");
                    (
                        format!("-o lo {to} -p tcp {ports} {is} -j ISTIO_IN_REDIRECT"),
                        format!(
                            "oifname lo meta l4proto tcp {nft_to} {nft_ports} {nft_is} \
                         counter jump istio-in-redirect"
                        ),
                    )
                },
            );
            // The application talks to itself over loopback: not captured.
            if !options.includes_loopback() {
                let (what, nft_what) = match dns {
                    true => ("-p tcp ! --dport 53 ", "meta l4proto tcp tcp dport != 53 "),
                    false => ("", ""),
                };
                self.add(
                    Table::Nat,
                    ISTIO_OUTPUT,
                    &format!("-o lo {what}{} -j RETURN", proxy.iptables_not),
                    &format!("oifname lo {nft_what}{} counter return", proxy.nft_not),
                );
            }
            self.add(
                Table::Nat,
                ISTIO_OUTPUT,
                &format!("{} -j RETURN", proxy.iptables),
                &format!("{} counter return", proxy.nft),
            );
        }
    }

    /// A list of included groups wins over one of excluded groups.
    fn owner_groups(&mut self) {
        let options = self.options;
        let Some(groups) = &options.owner_groups else {
            for group in &options.owner_groups_exclude {
                self.add(
                    Table::Nat,
                    ISTIO_OUTPUT,
                    &format!("-m owner --gid-owner {group} -j RETURN"),
                    &format!("skgid {group} counter return"),
                );
            }
            return;
        };
        let all = |form: &dyn Fn(&String) -> String| groups.iter().map(form).collect::<String>();
        let iptables = all(&|group| format!("-m owner ! --gid-owner {group} "));
        let nft = all(&|group| format!("skgid != {group} "));
        self.add(
            Table::Nat,
            ISTIO_OUTPUT,
            &format!("{iptables}-j RETURN"),
            &format!("{nft}counter return"),
        );
    }

    fn outbound_ranges(&mut self) {
        let options = self.options;
        self.each(
            Table::Nat,
            ISTIO_OUTPUT,
            |Words { ip, loopback, .. }| {
                (
                    format!("-d {loopback} -j RETURN"),
                    format!("{ip} daddr {loopback} counter return"),
                )
            },
        );
        for range in by_family(&options.outbound_ranges_exclude) {
            let Range { families, ip, text } = range;
            let iptables = format!("-d {text} -j RETURN");
            let nft = format!("{ip} daddr {text} counter return");
            self.push(families, Table::Nat, ISTIO_OUTPUT, (iptables, nft));
        }
        for port in &options.outbound_ports {
            self.add(
                Table::Nat,
                ISTIO_OUTPUT,
                &format!("-p tcp --dport {port} -j ISTIO_REDIRECT"),
                &format!("tcp dport {port} counter jump istio-redirect"),
            );
        }
        match &options.outbound_ranges {
            Ranges::All => {
                let (all, nft) = ("-j ISTIO_REDIRECT", "counter jump istio-redirect");
                self.add(Table::Nat, ISTIO_OUTPUT, all, nft);
                self.virtual_interfaces_to(Families::Both, "", "");
            }
            Ranges::Only(ranges) => {
                for Range { families, ip, text } in by_family(ranges) {
                    let (to, nft_to) = (format!(" -d {text}"), format!(" {ip} daddr {text}"));
                    self.virtual_interfaces_to(families, &to, &nft_to);
                    let iptables = format!("-d {text} -j ISTIO_REDIRECT");
                    let nft = format!("{ip} daddr {text} counter jump istio-redirect");
                    self.push(families, Table::Nat, ISTIO_OUTPUT, (iptables, nft));
                }
            }
        }
    }

    fn virtual_interfaces_to(&mut self, families: Families, to: &str, nft_to: &str) {
        for name in &self.options.virtual_interfaces {
            let rule = Rule {
                families,
                table: Table::Nat,
                chain: PREROUTING,
                position: None,
                iptables: format!("-i {name}{to} -j ISTIO_REDIRECT"),
                nft: format!("iifname {name}{nft_to} counter jump istio-redirect"),
            };
            self.insert(rule, 1);
        }
    }
}

/// A family's own words.
struct Words {
    ip: &'static str,
    loopback: String,
    /// The proxy's source address towards its own application.
    passthrough: &'static str,
}

struct Range<'a> {
    families: Families,
    ip: &'static str,
    text: &'a str,
}

/// IPv4 first, each family in the given order.
fn by_family(ranges: &[Cidr]) -> impl Iterator<Item = Range<'_>> {
    let of = |is_v4: bool| {
        ranges
            .iter()
            .filter(move |range| range.address.is_ipv4() == is_v4)
    };
    of(true)
        .map(|range| Range {
            families: Families::V4,
            ip: "ip",
            text: &range.text,
        })
        .chain(of(false).map(|range| Range {
            families: Families::V6,
            ip: "ip6",
            text: &range.text,
        }))
}

fn proxy_matches(exempt: &Exempt) -> Vec<ProxyMatch> {
    let owner = |option: &str, key: &str, name: &String| ProxyMatch {
        iptables: format!("-m owner --{option} {name}"),
        iptables_not: format!("-m owner ! --{option} {name}"),
        nft: format!("{key} {name}"),
        nft_not: format!("{key} != {name}"),
        nft_meta: format!("meta {key} {name}"),
        is_user: key == "skuid",
    };
    match exempt {
        Exempt::Owner { users, groups } => users
            .iter()
            .map(|name| owner("uid-owner", "skuid", name))
            .chain(groups.iter().map(|name| owner("gid-owner", "skgid", name)))
            .collect(),
        Exempt::Mark(mark) => vec![ProxyMatch {
            iptables: format!("-m mark --mark {mark}"),
            iptables_not: format!("-m mark ! --mark {mark}"),
            nft: format!("mark {mark}"),
            nft_not: format!("mark != {mark}"),
            nft_meta: format!("meta mark {mark}"),
            is_user: true,
        }],
    }
}
