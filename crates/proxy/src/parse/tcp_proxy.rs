//! The TCP proxy's configuration.

use std::sync::Arc;
use std::time::Duration;

use envoy_api::tcp_proxy::{self, tcp_proxy as inner};

use super::Context;
use super::compat::Message as _;
use crate::access_log::AccessLog;
use crate::stats::{Group, tables as stats};

#[derive(Debug, Clone)]
pub struct TcpProxy {
    pub stat_prefix: Arc<str>,
    /// `tcp.PREFIX.`
    pub stats: Arc<Group<stats::TcpProxy>>,
    pub clusters: Clusters,
    /// `None` = never.
    pub idle_timeout: Option<Duration>,
    pub max_connect_attempts: u32,
    /// Hash the source address for balancers that want a hash.
    pub hash_source_ip: bool,
    pub max_connection_duration: Option<Duration>,
    pub access_logs: Vec<AccessLog>,
}

#[derive(Debug, Clone)]
pub enum Clusters {
    One(Arc<str>),
    Weighted {
        total: u64,
        members: Vec<(Arc<str>, u32)>,
    },
}

impl Clusters {
    pub fn pick(&self, random: u64) -> &Arc<str> {
        match self {
            Clusters::One(name) => name,
            Clusters::Weighted { total, members } => {
                let mut at = random % total.max(&1);
                for (name, weight) in members {
                    if at < u64::from(*weight) {
                        return name;
                    }
                    at -= u64::from(*weight);
                }
                &members[0].0
            }
        }
    }
}

fields! {
    tcp_proxy::TcpProxy {
        read: stat_prefix, idle_timeout, access_log, max_connect_attempts, hash_policy,
            max_downstream_connection_duration, access_log_options, cluster_specifier;
        reject: access_log_flush_interval, flush_access_log_on_connected, on_demand,
            metadata_match, downstream_idle_timeout, upstream_idle_timeout,
            tunneling_config, proxy_protocol_tlvs, proxy_protocol_tlv_merge_policy,
            upstream_connect_mode, max_early_data_bytes, check_drain_close,
            max_downstream_connection_duration_jitter_percentage;
        ignore: backoff_options = "a second attempt is made at once";
    }
    inner::WeightedCluster { read: clusters; }
    inner::weighted_cluster::ClusterWeight {
        read: name, weight;
        reject: metadata_match;
    }
    inner::TcpAccessLogOptions {
        reject: access_log_flush_interval, flush_access_log_on_connected,
            flush_access_log_on_start;
    }
}

pub fn parse(context: &mut Context, message: &tcp_proxy::TcpProxy) -> Option<TcpProxy> {
    use envoy_api::types::hash_policy::PolicySpecifier;
    message.check(context);
    context.non_empty("stat_prefix", &message.stat_prefix);
    let clusters = clusters(context, message);
    let mut hash_source_ip = false;
    for (index, policy) in message.hash_policy.iter().enumerate() {
        match &policy.policy_specifier {
            Some(PolicySpecifier::SourceIp(_)) => hash_source_ip = true,
            Some(PolicySpecifier::FilterState(_)) => {
                let place = format!("hash_policy[{index}].filter_state");
                context.error_at(&place, "is not supported");
            }
            None => {}
        }
    }
    if message.max_connect_attempts == Some(0) {
        context.error_at("max_connect_attempts", "must be at least 1");
    }
    let options = message.access_log_options.unwrap_or_default();
    context.field("access_log_options", |context| options.check(context));
    Some(TcpProxy {
        stat_prefix: message.stat_prefix.as_str().into(),
        stats: context
            .environment()
            .stats
            .group(&format!("tcp.{}.", message.stat_prefix)),
        clusters: clusters?,
        idle_timeout: context.timeout(
            "idle_timeout",
            message.idle_timeout.as_ref(),
            Some(Duration::from_secs(3600)),
        ),
        max_connect_attempts: message.max_connect_attempts.unwrap_or(1),
        hash_source_ip,
        max_connection_duration: context.timeout(
            "max_downstream_connection_duration",
            message.max_downstream_connection_duration.as_ref(),
            None,
        ),
        access_logs: crate::access_log::parse_list(context, "access_log", &message.access_log),
    })
}

fn clusters(context: &mut Context, message: &tcp_proxy::TcpProxy) -> Option<Clusters> {
    match &message.cluster_specifier {
        Some(inner::ClusterSpecifier::Cluster(name)) => {
            context.non_empty("cluster", name);
            Some(Clusters::One(name.as_str().into()))
        }
        Some(inner::ClusterSpecifier::WeightedClusters(weighted)) => {
            context.field("weighted_clusters", |context| {
                weighted.check(context);
                let members = context.each("clusters", &weighted.clusters, |context, one| {
                    one.check(context);
                    context.non_empty("name", &one.name);
                    if one.weight == 0 {
                        context.error_at("weight", "must be at least 1");
                    }
                    Some((Arc::from(one.name.as_str()), one.weight))
                });
                if members.is_empty() {
                    context.error_at("clusters", "must have at least one member");
                    return None;
                }
                let total = members.iter().map(|(_, weight)| u64::from(*weight)).sum();
                Some(Clusters::Weighted { total, members })
            })
        }
        None => {
            context.error_at("cluster_specifier", "is required");
            None
        }
    }
}
