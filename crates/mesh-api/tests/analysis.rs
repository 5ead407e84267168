//! What analysis says about objects together, beyond Istio's own cases.

// A helper of a test may panic as a test may.
#![allow(clippy::unwrap_used)]

use mesh_api::analyze::{AnalyzeOptions, analyze};
use mesh_api::parse::{ParseOptions, parse};

/// Codes and objects found in `text`, but for what concerns each object by itself.
fn found(text: &str, only: &str) -> Vec<String> {
    let parsed = parse("f.yaml", text, &ParseOptions::default());
    assert_eq!(parsed.diagnostics, []);
    let options = AnalyzeOptions {
        only: vec![only.to_owned()],
        ..AnalyzeOptions::default()
    };
    analyze(&parsed.objects, &options)
        .iter()
        .map(|message| format!("{} {}", message.code, message.origin()))
        .collect()
}

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {app: a, version: v1}}\n\
                   spec: {containers: [{name: c}]}\n---\n";
const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n\
                       spec: {selector: {app: a}, ports: [{name: http, port: 80}]}\n---\n";

fn object(kind: &str, name: &str, spec: &str) -> String {
    let kind = mesh_api::Kind::from_name(kind).unwrap();
    format!(
        "apiVersion: {}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n",
        kind.api_version()
    )
}

#[test]
fn analyzers_find_what_is_wrong_between_objects() {
    let sidecar = |name: &str| object("Sidecar", name, "{egress: [{hosts: [./*]}]}");
    let rule = |spec: &str| object("DestinationRule", "dr", spec);
    let route = |spec: &str| object("VirtualService", "vs", spec);
    let entry = |name: &str, protocol: &str| {
        let ports = format!("[{{number: 80, name: x, protocol: {protocol}}}]");
        object(
            "ServiceEntry",
            name,
            &format!("{{hosts: [a.com], ports: {ports}}}"),
        )
    };
    for (text, only, want, why) in [
        (
            format!("{}{}", sidecar("one"), sidecar("two")),
            "sidecar.SelectorAnalyzer",
            vec!["IST0111 Sidecar one.default", "IST0111 Sidecar two.default"],
            "two sidecars for a namespace",
        ),
        (
            format!(
                "{SERVICE}{POD}{}",
                rule(
                    "{host: a, subsets: [{name: v1, labels: {version: v1}}, {name: v2, \
                      labels: {version: v2}}]}"
                )
            ),
            "destinationrule.PodNotSelectedAnalyzer",
            vec!["IST0173 DestinationRule dr.default"],
            "a subset without pods",
        ),
        (
            rule("{host: nothing}"),
            "destinationrule.PodNotSelectedAnalyzer",
            vec!["IST0174 DestinationRule dr.default"],
            "a host that does not exist",
        ),
        (
            format!("{}{}", entry("one", "HTTP"), entry("two", "TCP")),
            "serviceentry.ConflictingServiceEntryProtocolAnalyzer",
            vec![
                "IST0177 ServiceEntry one.default",
                "IST0177 ServiceEntry two.default",
            ],
            "two protocols for one port",
        ),
        (
            object(
                "AuthorizationPolicy",
                "ap",
                "{selector: {matchLabels: {app: x}}, rules: [{from: [{source: {namespaces: \
                 [nowhere]}}]}]}",
            ),
            "auth.AuthorizationPoliciesAnalyzer",
            vec![
                "IST0101 AuthorizationPolicy ap.default",
                "IST0127 AuthorizationPolicy ap.default",
            ],
            "nobody from nowhere",
        ),
        (
            format!(
                "{SERVICE}{}",
                route("{hosts: [a], http: [{route: [{destination: {host: a, subset: v9}}]}]}")
            ),
            "virtualservice.DestinationRuleAnalyzer",
            vec!["IST0101 VirtualService vs.default"],
            "a subset that nobody defines",
        ),
        (
            route("{hosts: [a.com], gateways: [gw], http: [{directResponse: {status: 200}}]}"),
            "virtualservice.GatewayAnalyzer",
            vec!["IST0101 VirtualService vs.default"],
            "a gateway that does not exist",
        ),
        (
            object(
                "Gateway",
                "gw",
                "{selector: {istio: ingressgateway}, servers: []}",
            ),
            "gateway.IngressGatewayPortAnalyzer",
            vec![],
            "the platform starts this gateway",
        ),
        (
            route(
                "{hosts: [a], http: [{directResponse: {status: 200}}, {directResponse: \
                   {status: 201}}]}",
            ),
            "schema.ValidationAnalyzer",
            vec!["IST0130 VirtualService vs.default"],
            "a rule after one that takes everything",
        ),
        (
            format!(
                "{}{}",
                object(
                    "Gateway",
                    "one",
                    "{servers: [{tls: {mode: SIMPLE, credentialName: c}}]}"
                ),
                object(
                    "Gateway",
                    "two",
                    "{servers: [{tls: {mode: SIMPLE, credentialName: c}}]}"
                ),
            ),
            "gateway.CertificateAnalyzer",
            vec!["IST0138 Gateway one.default", "IST0138 Gateway two.default"],
            "one certificate for two gateways",
        ),
        (
            format!(
                "{}{}{}",
                object(
                    "Deployment",
                    "d",
                    "{template: {metadata: {labels: {app: a}}, spec: {containers: []}}}"
                ),
                object(
                    "Service",
                    "s",
                    "{selector: {app: a}, ports: [{port: 1, targetPort: 9}]}"
                ),
                object(
                    "Service",
                    "t",
                    "{selector: {app: a}, ports: [{port: 2, targetPort: 9}]}"
                ),
            ),
            "deployment.ServiceAssociationAnalyzer",
            vec!["IST0137 Deployment d.default"],
            "two ports for one target port",
        ),
        (
            route("{hosts: [a], http: []}"),
            "schema.ValidationAnalyzer",
            vec!["IST0106 VirtualService vs.default"],
            "against the rules of the kind",
        ),
        (
            format!(
                "{SERVICE}{}",
                "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: vs\n\
                 \x20 annotations: {galley.istio.io/analyze-suppress: \"IST0101, IST0109\"}\n\
                 spec: {hosts: [a], http: [{route: [{destination: {host: x}}]}]}\n"
            ),
            "virtualservice.DestinationHostAnalyzer",
            vec![],
            "suppressed by annotation",
        ),
    ] {
        assert_eq!(found(&text, only), want, "{why}");
    }
}

#[test]
fn a_message_reads_as_istios_do() {
    let text = object("DestinationRule", "dr", "{host: nothing}");
    let parsed = parse("dir/f.yaml", &text, &ParseOptions::default());
    let messages = analyze(&parsed.objects, &AnalyzeOptions::default());
    let shown: Vec<String> = messages.iter().map(ToString::to_string).collect();
    let want = "Warning [IST0174] (DestinationRule dr.default dir/f.yaml:4) the host \"nothing\" \
                matches no service of the mesh";
    assert_eq!(shown, [want]);
}
