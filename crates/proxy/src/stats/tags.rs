//! Which statistics are kept and how tags are cut out of their names.

use std::borrow::Cow;

use envoy_api::metrics;
use regex::Regex;

use crate::matcher::StringMatcher;
use crate::parse::Context;
use crate::parse::compat::Message as _;

/// `stats_config` of the bootstrap.
#[derive(Debug, Clone)]
pub struct StatsConfig {
    tags: Vec<Tag>,
    fixed: Vec<(String, String)>,
    keep: Keep,
    buckets: Vec<(StringMatcher, Vec<f64>)>,
}

#[derive(Debug, Clone)]
struct Tag {
    name: String,
    regex: Regex,
    /// The name must hold this text, so that most expressions are never run.
    contains: &'static str,
}

#[derive(Debug, Clone)]
enum Keep {
    All,
    None,
    Only(Vec<StringMatcher>),
    AllBut(Vec<StringMatcher>),
}

/// Envoy's default bounds, in milliseconds for times.
pub const DEFAULT_BUCKETS: &[f64] = &[
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Envoy's well-known tags: name, expression (the first group is cut, the last is the value), and
/// a text that the name must hold. Order matters: earlier ones see the name uncut, as Envoy does.
const DEFAULT_TAGS: &[(&str, &str, &str)] = &[
    ("envoy.response_code", r"_rq(_(\d{3}))$", "_rq_"),
    (
        "envoy.response_code_class",
        r"_rq(?:_completed)?_((\d))xx$",
        "_rq_",
    ),
    (
        "envoy.http_user_agent",
        r"^http(?:\..*?)?\.user_agent(\.(.*?))\.\w+?$",
        ".user_agent.",
    ),
    (
        "envoy.virtual_cluster",
        r"^vhost\..*?\.vcluster(\.(.*?))\.\w+$",
        ".vcluster.",
    ),
    (
        "envoy.fault_downstream_cluster",
        r"^http\..*?\.fault\.((.*?)\.)\w+?$",
        ".fault.",
    ),
    (
        "envoy.ssl_cipher",
        r"^listener\..*?\.ssl\.cipher(\.(.*?))$",
        ".ssl.cipher.",
    ),
    (
        "envoy.ssl_curve",
        r"^listener\..*?\.ssl\.curves(\.(.*?))$",
        ".ssl.curves.",
    ),
    (
        "envoy.ssl_version",
        r"\.ssl\.versions(\.([^.]+))$",
        ".ssl.versions.",
    ),
    ("envoy.listener_address", LISTENER_ADDRESS, "listener."),
    (
        "envoy.http_conn_manager_prefix",
        r"^http\.((.*?)\.)",
        "http.",
    ),
    (
        "envoy.http_conn_manager_listener_prefix",
        r"^listener\..*?\.http\.((.*?)\.)",
        ".http.",
    ),
    ("envoy.tcp_prefix", r"^tcp\.((.*?)\.)\w+?$", "tcp."),
    ("envoy.virtual_host", r"^vhost\.((.*?)\.)", "vhost."),
    ("envoy.route", r"^vhost\..*?\.route\.((.*?)\.)", ".route."),
    ("envoy.cluster_name", r"^cluster\.((.*?)\.)", "cluster."),
    (
        "envoy.local_http_ratelimit_prefix",
        r"^(?:.*\.)?((.*?)\.)http_local_rate_limit\.",
        ".http_local",
    ),
    ("envoy.worker_id", r"\.(worker_(\d+)\.)", "worker_"),
    ("envoy.rbac_prefix", r"^((.*?)\.)rbac\.", ".rbac."),
];

const LISTENER_ADDRESS: &str =
    r"^listener\.(((?:\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[[_a-fA-F\d]*\])?_\d+|admin|[^.]+)\.)";

fields! {
    metrics::StatsConfig {
        read: stats_tags, use_all_default_tags, stats_matcher, histogram_bucket_settings;
        ignore: allow_default_tag_overrides = "a tag of one's own always wins";
    }
    metrics::TagSpecifier { read: tag_name, tag_value; }
    metrics::StatsMatcher { read: stats_matcher; }
    metrics::HistogramBucketSettings {
        read: r#match, buckets;
        reject: bins;
    }
}

impl Default for StatsConfig {
    fn default() -> Self {
        StatsConfig {
            tags: default_tags(),
            fixed: Vec::new(),
            keep: Keep::All,
            buckets: Vec::new(),
        }
    }
}

fn default_tags() -> Vec<Tag> {
    DEFAULT_TAGS
        .iter()
        .filter_map(|(name, regex, contains)| {
            let regex = Regex::new(regex).ok()?;
            Some(Tag {
                name: (*name).to_owned(),
                regex,
                contains,
            })
        })
        .collect()
}

impl StatsConfig {
    pub fn parse(context: &mut Context, message: Option<&metrics::StatsConfig>) -> StatsConfig {
        let Some(message) = message else {
            return StatsConfig::default();
        };
        context.field("stats_config", |context| {
            message.check(context);
            let mut config = StatsConfig {
                keep: keep(context, message),
                ..Self::default()
            };
            if message.use_all_default_tags == Some(false) {
                config.tags.clear();
            }
            let own = context.each("stats_tags", &message.stats_tags, |context, tag| {
                own_tag(context, tag, &mut config)
            });
            // A tag of one's own takes the place of the default of that name.
            config
                .tags
                .retain(|tag| !own.iter().any(|other| other.name == tag.name));
            config.tags.splice(0..0, own);
            config.buckets = context.each(
                "histogram_bucket_settings",
                &message.histogram_bucket_settings,
                |context, one| {
                    one.check(context);
                    let matcher =
                        context.required("match", one.r#match.as_ref(), StringMatcher::parse)?;
                    Some((matcher, one.buckets.clone()))
                },
            );
            config
        })
    }

    pub fn includes(&self, name: &str) -> bool {
        let any = |list: &[StringMatcher]| list.iter().any(|one| one.matches(name.as_bytes()));
        match &self.keep {
            Keep::All => true,
            Keep::None => false,
            Keep::Only(list) => any(list),
            Keep::AllBut(list) => !any(list),
        }
    }

    pub fn buckets(&self, name: &str) -> &[f64] {
        let found = self
            .buckets
            .iter()
            .find(|(matcher, _)| matcher.matches(name.as_bytes()));
        found.map_or(DEFAULT_BUCKETS, |(_, buckets)| buckets)
    }

    /// The name without its tags, and the tags.
    pub fn extract<'a>(&self, name: &'a str) -> (Cow<'a, str>, Vec<(String, String)>) {
        let mut cuts: Vec<std::ops::Range<usize>> = Vec::new();
        let mut tags: Vec<(String, String)> = Vec::new();
        for tag in &self.tags {
            if !name.contains(tag.contains) || tags.iter().any(|(name, _)| *name == tag.name) {
                continue;
            }
            let Some(captures) = tag.regex.captures(name) else {
                continue;
            };
            let Some(cut) = captures.get(1) else { continue };
            let value = captures.get(2).unwrap_or(cut);
            // What is inside another tag's cut stays with that one.
            cuts.push(cut.range());
            tags.push((tag.name.clone(), value.as_str().to_owned()));
        }
        tags.extend(self.fixed.iter().cloned());
        if cuts.is_empty() {
            return (Cow::Borrowed(name), tags);
        }
        cuts.sort_by_key(|cut| cut.start);
        let mut out = String::with_capacity(name.len());
        let mut done = 0;
        for cut in cuts {
            if cut.start >= done {
                out.push_str(&name[done..cut.start]);
            }
            done = done.max(cut.end);
        }
        out.push_str(&name[done..]);
        (Cow::Owned(out), tags)
    }
}

fn own_tag(
    context: &mut Context,
    message: &metrics::TagSpecifier,
    config: &mut StatsConfig,
) -> Option<Tag> {
    use metrics::tag_specifier::TagValue;
    message.check(context);
    match &message.tag_value {
        Some(TagValue::FixedValue(value)) => {
            config.fixed.push((message.tag_name.clone(), value.clone()));
            None
        }
        Some(TagValue::Regex(text)) => {
            let built = regex::RegexBuilder::new(text).size_limit(4 << 20).build();
            match built {
                Ok(regex) => Some(Tag {
                    name: message.tag_name.clone(),
                    regex,
                    contains: "",
                }),
                Err(error) => {
                    context.error_at("regex", error.to_string());
                    None
                }
            }
        }
        // By name only: one of the defaults.
        None => default_tags()
            .into_iter()
            .find(|tag| tag.name == message.tag_name)
            .or_else(|| {
                context.error_at(
                    "tag_name",
                    "no default tag has this name and no regex is given",
                );
                None
            }),
    }
}

fn keep(context: &mut Context, message: &metrics::StatsConfig) -> Keep {
    use metrics::stats_matcher::StatsMatcher;
    let Some(matcher) = message
        .stats_matcher
        .as_ref()
        .and_then(|one| one.stats_matcher.as_ref())
    else {
        return Keep::All;
    };
    let mut list = |name: &str, patterns: &envoy_api::matcher::ListStringMatcher| {
        context.field("stats_matcher", |context| {
            context.each(name, &patterns.patterns, StringMatcher::parse)
        })
    };
    match matcher {
        StatsMatcher::RejectAll(true) => Keep::None,
        StatsMatcher::RejectAll(false) => Keep::All,
        StatsMatcher::InclusionList(patterns) => Keep::Only(list("inclusion_list", patterns)),
        StatsMatcher::ExclusionList(patterns) => Keep::AllBut(list("exclusion_list", patterns)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_default_tags() {
        let config = StatsConfig::default();
        for (name, want, tags) in [
            (
                "cluster.outbound_80.upstream_rq_200",
                "cluster.upstream_rq",
                vec![
                    ("envoy.response_code", "200"),
                    ("envoy.cluster_name", "outbound_80"),
                ],
            ),
            (
                "cluster.a.upstream_rq_2xx",
                "cluster.upstream_rq_xx",
                vec![
                    ("envoy.response_code_class", "2"),
                    ("envoy.cluster_name", "a"),
                ],
            ),
            (
                "http.ingress_http.downstream_cx_total",
                "http.downstream_cx_total",
                vec![("envoy.http_conn_manager_prefix", "ingress_http")],
            ),
            (
                "listener.0.0.0.0_15006.downstream_cx_active",
                "listener.downstream_cx_active",
                vec![("envoy.listener_address", "0.0.0.0_15006")],
            ),
            ("server.uptime", "server.uptime", vec![]),
        ] {
            let (cut, found) = config.extract(name);
            let found: Vec<(&str, &str)> = found
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            assert_eq!((cut.as_ref(), found), (want, tags), "{name}");
        }
    }
}
