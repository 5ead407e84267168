//! The command line of `stolos capture`: istio-iptables' flags and environment, one table.
// tidy: table

use std::collections::BTreeMap;

use super::CaptureError;
use super::options::{self, Cidr, Exempt, Mode, Options, Ports, Ranges};

/// What to do, beside the rules' own options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub options: Options,
    pub tool: Tool,
    pub action: Action,
    /// Print instead of doing.
    pub is_dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    Iptables,
    Nftables,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Apply,
    Cleanup,
    /// `--skip-rule-apply`: everything is checked, nothing is done.
    Nothing,
}

struct Flag {
    long: &'static str,
    short: Option<char>,
    env: &'static str,
    default: &'static str,
    help: &'static str,
}

const fn flag(
    long: &'static str,
    short: char,
    env: &'static str,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag {
        long,
        short: if short == ' ' { None } else { Some(short) },
        env,
        default,
        help,
    }
}

/// Flags whose default is `false` may stand without a value.
const FLAGS: [Flag; 31] = [
    flag(
        "envoy-port",
        'p',
        "ENVOY_PORT",
        "15001",
        "port to which outbound traffic goes",
    ),
    flag(
        "inbound-capture-port",
        'z',
        "INBOUND_CAPTURE_PORT",
        "15006",
        "port to which inbound traffic goes",
    ),
    flag(
        "inbound-tunnel-port",
        'e',
        "INBOUND_TUNNEL_PORT",
        "15008",
        "port of HBONE, never captured",
    ),
    flag(
        "proxy-uid",
        'u',
        "PROXY_UID",
        "1337",
        "users whose traffic is not captured",
    ),
    flag(
        "proxy-gid",
        'g',
        "PROXY_GID",
        "1337",
        "groups whose traffic is not captured",
    ),
    flag(
        "proxy-mark",
        ' ',
        "PROXY_MARK",
        "",
        "socket mark that is not captured, instead of users and groups",
    ),
    flag(
        "istio-inbound-interception-mode",
        'm',
        "ISTIO_INBOUND_INTERCEPTION_MODE",
        "REDIRECT",
        "REDIRECT or TPROXY",
    ),
    flag(
        "istio-inbound-tproxy-mark",
        't',
        "ISTIO_INBOUND_TPROXY_MARK",
        "1337",
        "mark of captured packets",
    ),
    flag(
        "istio-inbound-tproxy-route-table",
        'r',
        "ISTIO_INBOUND_TPROXY_ROUTE_TABLE",
        "133",
        "routing table for them",
    ),
    flag(
        "istio-inbound-ports",
        'b',
        "ISTIO_INBOUND_PORTS",
        "",
        "inbound ports to capture: a list or *",
    ),
    flag(
        "istio-local-exclude-ports",
        'd',
        "ISTIO_LOCAL_EXCLUDE_PORTS",
        "",
        "inbound ports not to capture, with *",
    ),
    flag(
        "istio-service-cidr",
        'i',
        "ISTIO_SERVICE_CIDR",
        "",
        "destinations to capture: a list or *",
    ),
    flag(
        "istio-service-exclude-cidr",
        'x',
        "ISTIO_SERVICE_EXCLUDE_CIDR",
        "",
        "destinations not to capture",
    ),
    flag(
        "istio-outbound-ports",
        'q',
        "ISTIO_OUTBOUND_PORTS",
        "",
        "destination ports to capture",
    ),
    flag(
        "istio-local-outbound-ports-exclude",
        'o',
        "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE",
        "",
        "destination ports not to capture",
    ),
    flag(
        "kube-virt-interfaces",
        'k',
        "KUBE_VIRT_INTERFACES",
        "",
        "interfaces whose inbound traffic counts as outbound",
    ),
    flag(
        "istio-exclude-interfaces",
        'c',
        "ISTIO_EXCLUDE_INTERFACES",
        "",
        "interfaces not to capture",
    ),
    flag(
        "outbound-owner-groups",
        ' ',
        "ISTIO_OUTBOUND_OWNER_GROUPS",
        "*",
        "groups to capture",
    ),
    flag(
        "outbound-owner-groups-exclude",
        ' ',
        "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
        "",
        "groups not to capture",
    ),
    flag(
        "host-ipv4-loopback-cidr",
        ' ',
        "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR",
        "127.0.0.1/32",
        "the application's own loopback traffic",
    ),
    flag(
        "redirect-dns",
        ' ',
        "ISTIO_META_DNS_CAPTURE",
        "false",
        "capture DNS too",
    ),
    flag(
        "capture-all-dns",
        ' ',
        "CAPTURE_ALL_DNS",
        "false",
        "capture DNS to every server, not only resolv.conf's",
    ),
    flag(
        "dns-servers",
        ' ',
        "DNS_SERVERS",
        "",
        "instead of the servers of /etc/resolv.conf",
    ),
    flag(
        "drop-invalid",
        ' ',
        "INVALID_DROP",
        "false",
        "drop packets of no known connection",
    ),
    flag(
        "dual-stack",
        ' ',
        "ISTIO_DUAL_STACK",
        "false",
        "IPv6 rules too",
    ),
    flag(
        "native-nftables",
        ' ',
        "NATIVE_NFTABLES",
        "false",
        "nft instead of iptables",
    ),
    flag(
        "dry-run",
        'n',
        "DRY_RUN",
        "false",
        "print the rules, change nothing",
    ),
    flag(
        "cleanup-only",
        ' ',
        "CLEANUP_ONLY",
        "false",
        "remove the rules",
    ),
    flag(
        "skip-rule-apply",
        ' ',
        "SKIP_RULE_APPLY",
        "false",
        "check the options only",
    ),
    flag(
        "force-apply",
        ' ',
        "FORCE_APPLY",
        "false",
        "accepted: rules are always replaced as a whole",
    ),
    flag(
        "reconcile",
        ' ',
        "RECONCILE",
        "false",
        "accepted: rules are always replaced as a whole",
    ),
];

/// Flags of istio-iptables that are refused by name, where ignoring them would be a lie.
const NOT_SUPPORTED: [&str; 6] = [
    "cni-mode",
    "network-namespace",
    "run-validation",
    "force-iptables-binary",
    "iptables-probe-port",
    "probe-timeout",
];

pub fn help() -> String {
    let mut text = "Flags (each also by the environment variable behind it):\n".to_string();
    for Flag {
        long,
        short,
        env,
        default,
        help,
    } in &FLAGS
    {
        let short = short.map(|short| format!("-{short}, ")).unwrap_or_default();
        text += &format!("  {short:>4}--{long} ({env}; default {default:?})\n        {help}\n");
    }
    text
}

/// `resolv_conf` is the text of /etc/resolv.conf, for `--redirect-dns`.
pub fn parse(
    arguments: &[String],
    environment: impl Fn(&str) -> Option<String>,
    resolv_conf: &str,
) -> Result<Command, CaptureError> {
    let mut values = BTreeMap::new();
    for flag in &FLAGS {
        let value = environment(flag.env).unwrap_or_else(|| flag.default.to_string());
        values.insert(flag.long, value);
    }
    read_arguments(arguments, &mut values)?;
    let values = Values(values);
    let action = match (
        values.is_on("cleanup-only")?,
        values.is_on("skip-rule-apply")?,
    ) {
        (true, _) => Action::Cleanup,
        (false, true) => Action::Nothing,
        (false, false) => Action::Apply,
    };
    let tool = if values.is_on("native-nftables")? {
        Tool::Nftables
    } else {
        Tool::Iptables
    };
    let options = values.options(resolv_conf)?;
    Ok(Command {
        options,
        tool,
        action,
        is_dry_run: values.is_on("dry-run")?,
    })
}

fn read_arguments(
    arguments: &[String],
    values: &mut BTreeMap<&'static str, String>,
) -> Result<(), CaptureError> {
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let error = |reason: &str| CaptureError::Option {
            flag: argument.clone(),
            reason: reason.to_string(),
        };
        let (name, inline) = match argument.split_once('=') {
            Some((name, value)) if name.starts_with('-') => (name, Some(value.to_string())),
            _ => (argument.as_str(), None),
        };
        let found = FLAGS.iter().find(|flag| match name.strip_prefix("--") {
            Some(long) => flag.long == long,
            None => {
                let mut characters = name.chars();
                characters.next() == Some('-')
                    && flag.short.is_some()
                    && characters.next() == flag.short
                    && characters.next().is_none()
            }
        });
        let Some(flag) = found else {
            let long = name.trim_start_matches('-');
            if NOT_SUPPORTED.contains(&long) {
                return Err(CaptureError::NotSupported(format!("--{long}")));
            }
            return Err(error("no such flag"));
        };
        let value = match inline {
            Some(value) => value,
            None if flag.default == "false" => "true".to_string(),
            None => rest.next().ok_or_else(|| error("needs a value"))?.clone(),
        };
        values.insert(flag.long, value);
    }
    Ok(())
}

struct Values(BTreeMap<&'static str, String>);

impl Values {
    fn text(&self, name: &'static str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    fn error(&self, name: &str, reason: String) -> CaptureError {
        CaptureError::Option {
            flag: format!("--{name}"),
            reason,
        }
    }

    fn is_on(&self, name: &'static str) -> Result<bool, CaptureError> {
        match self.text(name) {
            "true" | "1" => Ok(true),
            "false" | "0" | "" => Ok(false),
            text => Err(self.error(name, format!("{text:?} is neither true nor false"))),
        }
    }

    fn number<N: std::str::FromStr>(&self, name: &'static str) -> Result<N, CaptureError> {
        let text = self.text(name);
        text.parse()
            .map_err(|_| self.error(name, format!("{text:?} is not a number in range")))
    }

    fn options(&self, resolv_conf: &str) -> Result<Options, CaptureError> {
        let ports = |name: &'static str| options::ports(&format!("--{name}"), self.text(name));
        let cidrs = |name: &'static str| options::cidrs(&format!("--{name}"), self.text(name));
        let list = |name: &'static str| self.names(name);
        let mode = match self.text("istio-inbound-interception-mode") {
            "REDIRECT" | "" => Mode::Redirect,
            "TPROXY" => Mode::Tproxy,
            text => {
                let reason = format!("{text:?} is neither REDIRECT nor TPROXY");
                return Err(self.error("istio-inbound-interception-mode", reason));
            }
        };
        let loopback = Cidr::parse(self.text("host-ipv4-loopback-cidr"))
            .map_err(|reason| self.error("host-ipv4-loopback-cidr", reason))?;
        let dns_servers = match self.text("dns-servers") {
            "" => name_servers(resolv_conf),
            _ => cidrs("dns-servers")?,
        };
        Ok(Options {
            proxy_port: self.number("envoy-port")?,
            inbound_capture_port: self.number("inbound-capture-port")?,
            inbound_tunnel_port: self.number("inbound-tunnel-port")?,
            exempt: match self.text("proxy-mark") {
                "" => Exempt::Owner {
                    users: list("proxy-uid")?,
                    groups: list("proxy-gid")?,
                },
                _ => Exempt::Mark(self.number("proxy-mark")?),
            },
            mode,
            tproxy_mark: self.number("istio-inbound-tproxy-mark")?,
            tproxy_route_table: self.number("istio-inbound-tproxy-route-table")?,
            inbound_ports: match self.text("istio-inbound-ports") {
                "*" => Ports::All,
                _ => Ports::Only(ports("istio-inbound-ports")?),
            },
            inbound_ports_exclude: ports("istio-local-exclude-ports")?,
            outbound_ranges: match self.text("istio-service-cidr") {
                "*" => Ranges::All,
                _ => Ranges::Only(cidrs("istio-service-cidr")?),
            },
            outbound_ranges_exclude: cidrs("istio-service-exclude-cidr")?,
            outbound_ports: ports("istio-outbound-ports")?,
            outbound_ports_exclude: ports("istio-local-outbound-ports-exclude")?,
            owner_groups: match self.text("outbound-owner-groups") {
                "*" => None,
                _ => Some(list("outbound-owner-groups")?),
            },
            owner_groups_exclude: list("outbound-owner-groups-exclude")?,
            virtual_interfaces: list("kube-virt-interfaces")?,
            exclude_interfaces: list("istio-exclude-interfaces")?,
            redirect_dns: self.is_on("redirect-dns")?,
            capture_all_dns: self.is_on("capture-all-dns")?,
            dns_servers,
            drop_invalid: self.is_on("drop-invalid")?,
            ipv6: self.is_on("dual-stack")?,
            loopback: loopback.text,
        })
    }

    /// Users, groups and interfaces go into rules as they are: nothing else may come with them.
    fn names(&self, name: &'static str) -> Result<Vec<String>, CaptureError> {
        let names = options::list(self.text(name));
        let allowed =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'@');
        for text in &names {
            if text.len() > 32 || text.starts_with('-') || !text.bytes().all(allowed) {
                return Err(self.error(name, format!("{text:?} is not a name or number")));
            }
        }
        Ok(names)
    }
}

fn name_servers(resolv_conf: &str) -> Vec<Cidr> {
    let servers = resolv_conf
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"));
    // A zone (fe80::1%eth0) cannot stand in a rule.
    let servers = servers.filter_map(|text| Cidr::parse(text.trim().split('%').next()?).ok());
    servers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &str, env: &[(&str, &str)]) -> Result<Command, CaptureError> {
        let words: Vec<String> = words.split_whitespace().map(String::from).collect();
        let env = |name: &str| {
            env.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.to_string())
        };
        parse(
            &words,
            env,
            "# x\nnameserver 10.0.0.10\nnameserver fe80::1%eth0\nsearch a\n",
        )
    }

    #[test]
    fn the_injectors_arguments() {
        let command = parse_words(
            "-p 15001 -z 15006 -u 1337 -m REDIRECT -i * -x  -b * -d 15090,15021,15020 \
             --log_output_level=default:info",
            &[],
        );
        // An empty value is lost by this test's splitting; the next flag is then its value.
        assert!(command.is_err());
        let arguments = [
            "-p",
            "15001",
            "-z",
            "15006",
            "-u",
            "1337",
            "-m",
            "REDIRECT",
            "-i",
            "*",
            "-x",
            "",
            "-b",
            "*",
            "-d",
            "15090,15021,15020",
            "--redirect-dns",
        ]
        .map(String::from);
        let command = parse(&arguments, |_| None, "nameserver 10.0.0.10").unwrap();
        assert_eq!(command.options.inbound_ports, Ports::All);
        assert_eq!(command.options.outbound_ranges, Ranges::All);
        assert_eq!(command.options.inbound_ports_exclude, [15090, 15021, 15020]);
        assert_eq!(command.options.dns_servers[0].text, "10.0.0.10/32");
        assert!(command.options.captures_dns());
        assert_eq!(
            (command.action, command.tool),
            (Action::Apply, Tool::Iptables)
        );
    }

    #[test]
    fn flags_win_over_the_environment() {
        let env = [("ENVOY_PORT", "7"), ("ISTIO_META_DNS_CAPTURE", "true")];
        let command = parse_words("--native-nftables --cleanup-only", &env).unwrap();
        assert_eq!(command.options.proxy_port, 7);
        assert!(command.options.redirect_dns);
        assert_eq!(
            (command.action, command.tool),
            (Action::Cleanup, Tool::Nftables)
        );
        assert_eq!(parse_words("-p 8", &env).unwrap().options.proxy_port, 8);
        let command = parse_words("--proxy-mark=77", &env).unwrap();
        assert_eq!(command.options.exempt, Exempt::Mark(77));
    }

    #[test]
    fn bad_values_are_refused() {
        for (words, want, why) in [
            ("--nonsense", "no such flag", "unknown"),
            ("-p", "needs a value", "no value"),
            ("-p 70000", "number in range", "no port"),
            ("-b 80,x", "is not a port", "a word among ports"),
            ("-i 10.0.0.0/33", "prefix length", "a prefix too long"),
            ("-i 10.0.0", "is not an address", "half an address"),
            ("-m SIDEWAYS", "neither REDIRECT nor TPROXY", "a mode"),
            ("-u 1;reboot", "is not a name", "a shell's character"),
            ("-c eth0{", "is not a name", "nft's character"),
            (
                "--run-validation",
                "not supported: --run-validation",
                "refused by name",
            ),
            ("--dry-run=maybe", "neither true nor false", "no boolean"),
        ] {
            let error = parse_words(words, &[]).unwrap_err().to_string();
            assert!(error.contains(want), "{why}: {error}");
        }
    }
}
