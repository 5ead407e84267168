//! The rules of Istio's CRDs that need the document itself, because they tell "absent" from
//! "empty": values that must not be empty where they are given, sizes, and null in lists.
// tidy: table

use crate::decode::{Decoder, push_key};
use crate::diagnostic::Reason;
use crate::kinds::Kind;
use crate::node::{Node, Span, Value};

/// A rule for the nodes at a path; `[]` stands for each item, `{}` for each value of a map.
enum Rule {
    /// A string, list or map that must hold something if it is there.
    NotEmpty,
    /// At most so many characters, items or members.
    AtMost(usize),
}

use Rule::{AtMost, NotEmpty};

const RULES: &[(Kind, &str, Rule)] = &[
    (Kind::PeerAuthentication, "spec.portLevelMtls", NotEmpty),
    (
        Kind::PeerAuthentication,
        "spec.selector.matchLabels",
        AtMost(4096),
    ),
    (Kind::RequestAuthentication, "spec.jwtRules", AtMost(4096)),
    (
        Kind::RequestAuthentication,
        "spec.jwtRules[].issuer",
        NotEmpty,
    ),
    (
        Kind::RequestAuthentication,
        "spec.jwtRules[].jwksUri",
        NotEmpty,
    ),
    (
        Kind::RequestAuthentication,
        "spec.jwtRules[].jwksUri",
        AtMost(2048),
    ),
    (
        Kind::RequestAuthentication,
        "spec.jwtRules[].spaceDelimitedClaims",
        AtMost(64),
    ),
    (Kind::RequestAuthentication, "spec.targetRefs", AtMost(16)),
    (Kind::AuthorizationPolicy, "spec.rules", AtMost(512)),
    // Absent means "any"; an empty list looks as if it meant "none".
    (Kind::AuthorizationPolicy, "spec.rules[].from", NotEmpty),
    (Kind::AuthorizationPolicy, "spec.rules[].to", NotEmpty),
    (Kind::AuthorizationPolicy, "spec.rules[].from", AtMost(512)),
    (Kind::AuthorizationPolicy, "spec.targetRefs", AtMost(16)),
    (
        Kind::AuthorizationPolicy,
        "spec.rules[].from[].source.serviceAccounts[]",
        AtMost(320),
    ),
    (
        Kind::AuthorizationPolicy,
        "spec.rules[].from[].source.notServiceAccounts[]",
        AtMost(320),
    ),
    (
        Kind::DestinationRule,
        "spec.trafficPolicy.portLevelSettings",
        AtMost(4096),
    ),
    (
        Kind::DestinationRule,
        "spec.subsets[].trafficPolicy.portLevelSettings",
        AtMost(4096),
    ),
    (
        Kind::DestinationRule,
        "spec.workloadSelector.matchLabels",
        AtMost(4096),
    ),
    (Kind::EnvoyFilter, "spec.targetRefs", AtMost(16)),
    (
        Kind::EnvoyFilter,
        "spec.workloadSelector.labels",
        AtMost(256),
    ),
    (
        Kind::Gateway,
        "spec.servers[].tls.credentialNames",
        NotEmpty,
    ),
    (
        Kind::Gateway,
        "spec.servers[].tls.tlsCertificates",
        NotEmpty,
    ),
    (Kind::Sidecar, "spec.workloadSelector.labels", AtMost(256)),
    (Kind::ServiceEntry, "spec.hosts", AtMost(256)),
    (Kind::ServiceEntry, "spec.addresses", AtMost(256)),
    (Kind::ServiceEntry, "spec.addresses[]", AtMost(64)),
    (Kind::ServiceEntry, "spec.ports", AtMost(256)),
    (Kind::ServiceEntry, "spec.ports[].name", AtMost(256)),
    (Kind::ServiceEntry, "spec.ports[].protocol", AtMost(256)),
    (Kind::ServiceEntry, "spec.endpoints", AtMost(4096)),
    (Kind::ServiceEntry, "spec.endpoints[].address", AtMost(256)),
    (Kind::ServiceEntry, "spec.endpoints[].labels", AtMost(256)),
    (Kind::ServiceEntry, "spec.endpoints[].ports", AtMost(128)),
    (Kind::ServiceEntry, "spec.endpoints[].network", AtMost(2048)),
    (
        Kind::ServiceEntry,
        "spec.endpoints[].locality",
        AtMost(2048),
    ),
    (
        Kind::ServiceEntry,
        "spec.endpoints[].serviceAccount",
        AtMost(253),
    ),
    (
        Kind::ServiceEntry,
        "spec.workloadSelector.labels",
        AtMost(256),
    ),
    (Kind::WorkloadEntry, "spec.address", AtMost(256)),
    (Kind::WorkloadEntry, "spec.labels", AtMost(256)),
    (Kind::WorkloadEntry, "spec.ports", AtMost(128)),
    (Kind::WorkloadEntry, "spec.network", AtMost(2048)),
    (Kind::WorkloadEntry, "spec.locality", AtMost(2048)),
    (Kind::WorkloadEntry, "spec.serviceAccount", AtMost(253)),
    (Kind::WorkloadGroup, "spec.metadata.labels", AtMost(256)),
    (
        Kind::WorkloadGroup,
        "spec.metadata.annotations",
        AtMost(256),
    ),
    (Kind::WorkloadGroup, "spec.template.ports", AtMost(128)),
    (Kind::WorkloadGroup, "spec.probe.exec.command[]", NotEmpty),
    (
        Kind::ProxyConfig,
        "spec.environmentVariables{}",
        AtMost(2048),
    ),
    (
        Kind::Telemetry,
        "spec.metrics[].overrides[].match.customMetric",
        NotEmpty,
    ),
    (Kind::Telemetry, "spec.targetRefs", AtMost(16)),
    (Kind::WasmPlugin, "spec.imagePullSecret", NotEmpty),
    (Kind::WasmPlugin, "spec.imagePullSecret", AtMost(253)),
    (Kind::WasmPlugin, "spec.pluginName", NotEmpty),
    (Kind::WasmPlugin, "spec.pluginName", AtMost(256)),
    (Kind::WasmPlugin, "spec.vmConfig.env", AtMost(256)),
    (Kind::WasmPlugin, "spec.vmConfig.env[].name", AtMost(256)),
    (Kind::WasmPlugin, "spec.vmConfig.env[].value", AtMost(2048)),
    (Kind::WasmPlugin, "spec.targetRefs", AtMost(16)),
    (
        Kind::TrafficExtension,
        "spec.wasm.imagePullSecret",
        NotEmpty,
    ),
    (Kind::TrafficExtension, "spec.wasm.pluginName", NotEmpty),
    (
        Kind::TrafficExtension,
        "spec.wasm.vmConfig.env",
        AtMost(256),
    ),
    (Kind::TrafficExtension, "spec.targetRefs", AtMost(16)),
];

pub(super) fn check(node: &Node, kind: Kind, decoder: &mut Decoder) {
    for (_, path, rule) in RULES.iter().filter(|(of, ..)| *of == kind) {
        visit(node, path, String::new(), &mut |node, place| {
            if let Some(why) = broken(node, rule) {
                report(decoder, place, node.span, why);
            }
        });
    }
    if let (true, Some(body)) = (kind.has_spec(), node.member("spec")) {
        lists(body, "spec".to_owned(), decoder);
    }
}

fn report(decoder: &mut Decoder, place: &str, span: Span, why: String) {
    let path = place.to_owned();
    decoder.report_at(path, span, Reason::Invalid, why);
}

/// How much the node holds; `None` where that has no meaning.
fn size(node: &Node) -> Option<usize> {
    match &node.value {
        Value::String(text) => Some(text.chars().count()),
        Value::List(items) => Some(items.len()),
        Value::Map(entries) => Some(entries.len()),
        _ => None,
    }
}

fn broken(node: &Node, rule: &Rule) -> Option<String> {
    let size = size(node)?;
    match rule {
        NotEmpty if size == 0 => Some("must not be empty where it is given".to_owned()),
        AtMost(most) if size > *most => Some(format!("holds {size}, at most {most} are allowed")),
        _ => None,
    }
}

/// Calls `found` for every node at `path` below `node`, which stands at `place`.
fn visit(node: &Node, path: &str, place: String, found: &mut dyn FnMut(&Node, &str)) {
    if path.is_empty() {
        return found(node, &place);
    }
    if let Some(rest) = path.strip_prefix("[]") {
        if let Value::List(items) = &node.value {
            for (index, item) in items.iter().enumerate() {
                visit(item, after(rest), format!("{place}[{index}]"), found);
            }
        }
        return;
    }
    if let Some(rest) = path.strip_prefix("{}") {
        if let Value::Map(entries) = &node.value {
            for entry in entries {
                let mut place = place.clone();
                push_key(&mut place, &entry.key);
                visit(&entry.value, after(rest), place, found);
            }
        }
        return;
    }
    let end = path.find(['.', '[', '{']).unwrap_or(path.len());
    if let Some(member) = node.member(&path[..end]) {
        let mut place = place;
        push_key(&mut place, &path[..end]);
        visit(member, after(&path[end..]), place, found);
    }
}

fn after(path: &str) -> &str {
    path.strip_prefix('.').unwrap_or(path)
}

/// More items than this in one list or map of a spec are refused: some checks compare each with
/// each.
const MAX_ITEMS: usize = 10_000;

/// Null as an item of a list has no meaning (but in free-form content), and sizes are limited.
fn lists(node: &Node, place: String, decoder: &mut Decoder) {
    if matches!(node.value, Value::List(_) | Value::Map(_))
        && size(node).is_some_and(|size| size > MAX_ITEMS)
    {
        return report(
            decoder,
            &place,
            node.span,
            format!("more than {MAX_ITEMS} entries"),
        );
    }
    match &node.value {
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                let place = format!("{place}[{index}]");
                if item.value == Value::Null {
                    report(decoder, &place, item.span, "must not be null".to_owned());
                }
                lists(item, place, decoder);
            }
        }
        Value::Map(entries) => {
            let free = ["value", "pluginConfig", "plugin_config", "args", "command"];
            for entry in entries
                .iter()
                .filter(|entry| !free.contains(&entry.key.as_str()))
            {
                let mut place = place.clone();
                push_key(&mut place, &entry.key);
                lists(&entry.value, place, decoder);
            }
        }
        _ => {}
    }
}
