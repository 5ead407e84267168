//! DNS to the agent, and conntrack zones that keep its own queries apart.

use super::{
    Families, INBOUND, ISTIO_OUTPUT, OUTPUT, OUTPUT_DNS, PREROUTING, Range, Rules, Table,
    by_family, proxy_matches,
};

/// Port on which the agent answers DNS.
const DNS_PORT: u16 = 15053;

impl Rules<'_> {
    pub(super) fn dns(&mut self) {
        let options = self.options;
        self.add(
            Table::Raw,
            OUTPUT,
            "-j ISTIO_OUTPUT_DNS",
            "counter jump istio-output-dns",
        );
        let jump = ("-j ISTIO_OUTPUT_DNS", "counter jump istio-output-dns");
        self.once_for_servers(Table::Nat, ISTIO_OUTPUT, jump);
        for (protocol, option) in [("tcp", "--to-ports"), ("udp", "--to-port")] {
            let target = format!("-j REDIRECT {option} {DNS_PORT}");
            let nft_target = format!("{protocol} dport 53 counter redirect to :{DNS_PORT}");
            if options.capture_all_dns {
                let text = format!("-p {protocol} --dport 53 {target}");
                self.add(Table::Nat, OUTPUT_DNS, &text, &nft_target);
                continue;
            }
            for Range { families, ip, text } in by_family(&options.dns_servers) {
                let rule = format!("-p {protocol} --dport 53 -d {text} {target}");
                let nft = format!("{ip} daddr {text} {nft_target}");
                self.push(families, Table::Nat, OUTPUT_DNS, (rule, nft));
            }
        }
        self.dns_zones();
        self.once_for_servers(
            Table::Raw,
            PREROUTING,
            ("-j ISTIO_INBOUND", "counter jump istio-inbound"),
        );
        let (query, reply) = ("-p udp --dport 53", "-p udp --sport 53");
        if options.capture_all_dns {
            let nft = "udp dport 53 counter ct zone set 2";
            self.add(
                Table::Raw,
                OUTPUT_DNS,
                &format!("{query} -j CT --zone 2"),
                nft,
            );
            let nft = "udp sport 53 counter ct zone set 1";
            self.add(Table::Raw, INBOUND, &format!("{reply} -j CT --zone 1"), nft);
            return;
        }
        for Range { families, ip, text } in by_family(&options.dns_servers) {
            let rule = format!("{query} -d {text} -j CT --zone 2");
            let nft = format!("udp dport 53 {ip} daddr {text} counter ct zone set 2");
            self.push(families, Table::Raw, OUTPUT_DNS, (rule, nft));
            let rule = format!("{reply} -s {text} -j CT --zone 1");
            let nft = format!("udp sport 53 {ip} saddr {text} counter ct zone set 1");
            self.push(families, Table::Raw, INBOUND, (rule, nft));
        }
    }

    /// Queries of the agent and of the application have the same addresses and ports after
    /// redirection; conntrack zones keep them apart.
    pub(super) fn dns_zones(&mut self) {
        for proxy in proxy_matches(&self.options.exempt) {
            for (port, option, zone) in [(53, "dport", 1), (DNS_PORT, "sport", 2)] {
                let (is, nft_is) = (&proxy.iptables, &proxy.nft_meta);
                self.add(
                    Table::Raw,
                    OUTPUT_DNS,
                    &format!("-p udp --{option} {port} {is} -j CT --zone {zone}"),
                    &format!("udp {option} {port} {nft_is} counter ct zone set {zone}"),
                );
            }
        }
    }

    /// In each family that has a DNS server; once in nft's table, which holds both families.
    pub(super) fn once_for_servers(
        &mut self,
        table: Table,
        chain: &'static str,
        text: (&str, &str),
    ) {
        let options = self.options;
        if options.capture_all_dns {
            return self.add(table, chain, text.0, text.1);
        }
        let mut nft = text.1;
        for (families, is_v4) in [(Families::V4, true), (Families::V6, false)] {
            if options
                .dns_servers
                .iter()
                .any(|server| server.address.is_ipv4() == is_v4)
            {
                self.push(
                    families,
                    table,
                    chain,
                    (text.0.to_string(), nft.to_string()),
                );
                // Left out for IPv6, where the rule of IPv4 holds already.
                nft = "";
            }
        }
    }
}
