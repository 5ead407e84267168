//! Which statistics exist and how their names become labels: Istio's defaults.

use serde_json::{Value, json};

use crate::options::Options;

/// Tag and regular expression: the first group is cut out of the name, the second is the value.
#[rustfmt::skip]
const TAGS: [(&str, &str); 15] = [
    ("cluster_name", r"^cluster(\.(.+);)"),
    ("tcp_prefix", r"^tcp\.((.*?)\.)\w+?$"),
    ("response_code", r"(response_code=\.=(.+?);\.;)|_rq(_(\.d{3}))$"),
    ("response_code_class", r"_rq(_(\dxx))$"),
    ("http_conn_manager_listener_prefix",
     r"^listener(?=\.).*?\.http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)"),
    ("http_conn_manager_prefix",
     r"^http\.(((outbound_([0-9]{1,3}\.{0,1}){4}_\d{0,5})|([^\.]+))\.)"),
    ("listener_address",
     r"^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)"),
    ("mongo_prefix", r"^mongo\.(.+?)\.(collection|cmd|cx_|op_|delays_|decoding_)(.*?)$"),
    ("thread_name", r"^(?:(?:server|listener_manager)\.((worker_\d+|main_thread)\.))"),
    ("authz_enforce_result", r"rbac(\.(allowed|denied))"),
    ("authz_dry_run_action", r"(\.istio_dry_run_(allow|deny)_)"),
    ("authz_dry_run_result", r"(\.shadow_(allowed|denied))"),
    ("cache", r"(cache\.(.+?)\.)"),
    ("component", r"(component\.(.+?)\.)"),
    ("tag", r"(tag\.(.+?);\.)"),
];

const PREFIXES: [&str; 8] = [
    "reporter=",
    "component",
    "istio",
    "cluster_manager",
    "listener_manager",
    "server",
    "cluster.xds-grpc",
    "wasm",
];
const SUFFIXES: [&str; 5] = [
    "rbac.allowed",
    "rbac.denied",
    "shadow_allowed",
    "shadow_denied",
    "downstream_cx_active",
];
const REGEXES: [&str; 1] = [r"vhost\..*\.route\..*"];

pub(super) fn config(options: &Options) -> Value {
    let tags = TAGS.iter().map(|(name, regex)| {
        // RE2 has no look-ahead; a name that starts so always has the dot.
        json!({"tag_name": name, "regex": regex.replace(r"(?=\.)", "")})
    });
    let matcher = &options.proxy_config.stats_matcher;
    let mut patterns = Vec::new();
    let annotation = |name: &str| {
        let text = options
            .pod
            .annotations
            .get(&format!("sidecar.istio.io/{name}"));
        text.into_iter()
            .flat_map(|text| text.split(','))
            .map(str::trim)
            .map(String::from)
    };
    let own = |all: &[&str]| all.iter().map(|text| text.to_string()).collect::<Vec<_>>();
    for (kind, fixed, configured, annotated) in [
        (
            "prefix",
            own(&PREFIXES),
            &matcher.inclusion_prefixes,
            "statsInclusionPrefixes",
        ),
        (
            "suffix",
            own(&SUFFIXES),
            &matcher.inclusion_suffixes,
            "statsInclusionSuffixes",
        ),
        (
            "safe_regex",
            own(&REGEXES),
            &matcher.inclusion_regexps,
            "statsInclusionRegexps",
        ),
    ] {
        let all = fixed
            .into_iter()
            .chain(configured.iter().cloned())
            .chain(annotation(annotated));
        for text in all.filter(|text| !text.is_empty()) {
            let text = text.replace("{pod_ip}", &pod_ip(options));
            patterns.push(match kind {
                "safe_regex" => json!({"safe_regex": {"regex": text}}),
                kind => json!({kind: text}),
            });
        }
    }
    json!({
        "use_all_default_tags": false,
        "stats_tags": tags.collect::<Vec<_>>(),
        "stats_matcher": {"inclusion_list": {"patterns": patterns}},
    })
}

fn pod_ip(options: &Options) -> String {
    options
        .pod
        .ips
        .first()
        .map(ToString::to_string)
        .unwrap_or_default()
}
