//! What TPROXY needs beside the common rules: diversion, marks, and exceptions from capture.

use super::{
    DIVERT, Families, INBOUND, OUTPUT, PREROUTING, Rule, Rules, TPROXY, Table, Words, proxy_matches,
};

/// Marks what goes from the proxy to the application over loopback, with TPROXY.
const OUTBOUND_MARK: u32 = 1338;

impl Rules<'_> {
    pub(super) fn tproxy_chains(&mut self) {
        let (mark, port) = (self.options.tproxy_mark, self.options.inbound_capture_port);
        self.add(
            Table::Mangle,
            DIVERT,
            &format!("-j MARK --set-mark {mark}"),
            &format!("counter meta mark set {mark}"),
        );
        self.add(Table::Mangle, DIVERT, "-j ACCEPT", "counter accept");
        self.each(Table::Mangle, TPROXY, |Words { ip, loopback, .. }| {
            let target = format!("-j TPROXY --tproxy-mark {mark}/0xffffffff --on-port {port}");
            let nft_target = format!("tproxy {ip} to :{port} meta mark set {mark} counter accept");
            (
                format!("! -d {loopback} -p tcp {target}"),
                format!("meta l4proto tcp {ip} daddr != {loopback} {nft_target}"),
            )
        });
    }

    pub(super) fn tproxy_marks(&mut self) {
        let mark = self.options.tproxy_mark;
        // Keeps the mark that the proxy's listener sets, for the whole connection.
        self.add(
            Table::Mangle,
            PREROUTING,
            &format!("-p tcp -m mark --mark {mark} -j CONNMARK --save-mark"),
            &format!("meta l4proto tcp mark {mark} counter ct mark set mark"),
        );
        self.add(
            Table::Mangle,
            OUTPUT,
            &format!("-p tcp -o lo -m mark --mark {mark} -j RETURN"),
            &format!("oifname lo meta l4proto tcp mark {mark} counter return"),
        );
        for proxy in proxy_matches(&self.options.exempt) {
            self.each(Table::Mangle, OUTPUT, |Words { ip, loopback, .. }| {
                let (is, nft_is) = (&proxy.iptables, &proxy.nft);
                let nft_to = format!("{ip} daddr != {loopback}");
                (
                    format!("! -d {loopback} -p tcp -o lo {is} -j MARK --set-mark {OUTBOUND_MARK}"),
                    format!(
                        "oifname lo meta l4proto tcp {nft_to} {nft_is} \
                         counter meta mark set {OUTBOUND_MARK}"
                    ),
                )
            });
        }
        self.add(
            Table::Mangle,
            OUTPUT,
            &format!("-p tcp -m connmark --mark {mark} -j CONNMARK --restore-mark"),
            &format!("meta l4proto tcp ct mark {mark} counter meta mark set ct mark"),
        );
        self.tproxy_exceptions();
    }

    /// Ahead of the capturing rules: what must not be captured again.
    pub(super) fn tproxy_exceptions(&mut self) {
        let mark = self.options.tproxy_mark;
        let rule = |families, iptables, nft| Rule {
            families,
            table: Table::Mangle,
            chain: INBOUND,
            position: None,
            iptables,
            nft,
        };
        let text = format!("-p tcp -m mark --mark {mark} -j RETURN");
        let nft = format!("meta l4proto tcp mark {mark} counter return");
        self.insert(rule(Families::Both, text, nft), 1);
        for families in [Families::V4, Families::V6] {
            let Words {
                ip, passthrough, ..
            } = self.words(families);
            let text = format!("-p tcp -s {passthrough} -i lo -j RETURN");
            let nft =
                format!("iifname lo meta l4proto tcp {ip} saddr {passthrough} counter return");
            self.insert(rule(families, text, nft), 2);
        }
        let text = format!("-p tcp -i lo -m mark ! --mark {OUTBOUND_MARK} -j RETURN");
        let nft = format!("iifname lo meta l4proto tcp mark != {OUTBOUND_MARK} counter return");
        self.insert(rule(Families::Both, text, nft), 3);
    }
}
