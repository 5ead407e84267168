//! Outbound clusters: one per port and subset of every service a proxy sees (istio.md 2.5).

use std::sync::Arc;

use envoy_api::cluster::cluster::{
    ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbPolicy,
};
use envoy_api::cluster::{Cluster, Filter};
use envoy_api::core::Metadata;
use mesh_api::kinds::destination_rule::Subset;
use mesh_api::kinds::tls_settings::ClientTlsMode;

use super::cluster_policy::Policy;
use super::cluster_pool::{self, Upstream};
use super::cluster_tls::{self, Peer};
use super::message::{ads, boolean, duration, list, object, text};
use super::{cluster_balancer, endpoint};
use crate::cache::Fragment;
use crate::cluster_name::Outbound;
use crate::keys::{ClientKey, ClusterKey, FragmentKey};
use crate::model::{Port, ProxyView, Resolution, Service};
use crate::snapshot::{MergedRule, MtlsMode, ServiceEntryRef, Snapshot};

/// What of a proxy shapes clusters.
pub fn client_key(view: &ProxyView) -> ClientKey {
    ClientKey {
        router: view.is_router(),
        ipv4: view.supports_ipv4(),
        ipv6: view.supports_ipv6(),
        alpn: view.capabilities.alpn,
        metadata_exchange: view.capabilities.metadata_exchange,
    }
}

/// One cluster to translate.
#[derive(Clone)]
pub struct Target<'a> {
    pub entry: &'a ServiceEntryRef,
    pub port: &'a Port,
    pub subset: Option<&'a Subset>,
    pub rule: Option<&'a Arc<MergedRule>>,
    pub sni_dnat: bool,
}

impl Target<'_> {
    pub fn name(&self) -> Outbound {
        let subset = self
            .subset
            .map(|subset| subset.name.as_str())
            .unwrap_or_default();
        Outbound::new(self.port.number, subset, &self.entry.service.key.hostname)
    }
}

/// All clusters of a service: each port, and each subset of it.
pub fn targets<'a>(
    entry: &'a ServiceEntryRef,
    rule: Option<&'a Arc<MergedRule>>,
) -> impl Iterator<Item = Target<'a>> {
    let service = &entry.service;
    let usable = service.resolution != Resolution::Alias;
    let ports = service
        .ports
        .iter()
        .filter(move |port| usable && port.protocol != crate::model::Protocol::Udp);
    ports.flat_map(move |port| {
        let subsets = rule
            .into_iter()
            .flat_map(|rule| &rule.spec.subsets)
            .map(Some);
        std::iter::once(None)
            .chain(subsets)
            .map(move |subset| Target {
                entry,
                port,
                subset,
                rule,
                sni_dnat: false,
            })
    })
}

/// The encoded cluster, from the cache where its inputs did not change.
pub fn fragment(
    snapshot: &Snapshot,
    view: &ProxyView,
    target: &Target<'_>,
) -> Option<Arc<Fragment>> {
    let entry = target.entry;
    let service = &entry.service;
    let inline = discovery(service, target, snapshot, view.is_router()) != DiscoveryType::Eds;
    let identities = {
        let mut identities = snapshot.endpoints.read(&service.key).identities.clone();
        if !service.subject_alt_names.is_empty() {
            let all = identities.iter().chain(&service.subject_alt_names).cloned();
            identities = Arc::new(all.collect());
        }
        identities
    };
    let key = ClusterKey {
        service: service.key.clone(),
        service_revision: entry.revision,
        port: target.port.number,
        subset: target
            .subset
            .map(|subset| subset.name.clone())
            .unwrap_or_default(),
        rule: target.rule.map(|rule| rule.revision),
        mesh: snapshot.mesh_revision,
        identities,
        inline: inline.then(|| endpoint::key(snapshot, view, target)),
        mtls: snapshot.policies.namespace_mode(&service.key.namespace),
        sni_dnat: target.sni_dnat,
        client: client_key(view),
    };
    snapshot
        .cache
        .fragment(FragmentKey::Cluster(Box::new(key.clone())), || {
            let cluster = translate(snapshot, &key, target);
            Some(Fragment::new(cluster.name.clone(), &cluster))
        })
}

/// Whether the cluster's endpoints are sent on their own.
pub fn is_eds(snapshot: &Snapshot, target: &Target<'_>, router: bool) -> bool {
    discovery(&target.entry.service, target, snapshot, router) == DiscoveryType::Eds
}

/// How the endpoints are found.
fn discovery(
    service: &Service,
    target: &Target<'_>,
    snapshot: &Snapshot,
    router: bool,
) -> DiscoveryType {
    let policy = Policy::resolve(
        target.rule.map(|rule| &rule.spec),
        target.subset,
        target.port.number,
        &snapshot.mesh,
    );
    if cluster_balancer::is_passthrough(policy.load_balancer.as_ref()) && !router {
        return DiscoveryType::OriginalDst;
    }
    match service.resolution {
        Resolution::ClientSide | Resolution::Alias => DiscoveryType::Eds,
        Resolution::Dns => DiscoveryType::StrictDns,
        Resolution::DnsRoundRobin => DiscoveryType::LogicalDns,
        Resolution::Passthrough if router => DiscoveryType::Eds,
        // A headless service whose balancing a rule names is balanced over its endpoints.
        Resolution::Passthrough if service.is_headless() && balances(&policy) => DiscoveryType::Eds,
        Resolution::Passthrough => DiscoveryType::OriginalDst,
    }
}

fn balances(policy: &Policy) -> bool {
    policy
        .load_balancer
        .as_ref()
        .is_some_and(|settings| settings.lb_policy.is_some())
}

fn translate(snapshot: &Snapshot, key: &ClusterKey, target: &Target<'_>) -> Cluster {
    let service = &target.entry.service;
    let mesh = &snapshot.mesh;
    let name = target.name();
    let rule = target.rule.map(|rule| &rule.spec);
    let policy = Policy::resolve(rule, target.subset, target.port.number, mesh);
    let shown = if target.sni_dnat {
        name.sni()
    } else {
        name.to_string()
    };
    let mut cluster = Cluster {
        alt_stat_name: stat_name(&mesh.outbound_cluster_stat_name, &shown, target),
        name: shown,
        circuit_breakers: Some(cluster_pool::circuit_breakers(
            policy.connection_pool.as_ref(),
            policy.retry_budget.as_ref(),
        )),
        metadata: Some(metadata(target, &policy)),
        ..Default::default()
    };
    let discovery = discovery(service, target, snapshot, key.client.router);
    cluster_balancer::apply(&mut cluster, policy.load_balancer.as_ref());
    apply_discovery(&mut cluster, discovery, snapshot, key, target);
    cluster_pool::apply_pool(&mut cluster, policy.connection_pool.as_ref(), mesh);
    let http = policy
        .connection_pool
        .as_ref()
        .and_then(|pool| pool.http.as_ref());
    let router = key.client.router;
    let upstream = Upstream::choose(target.port.protocol, http, router, mesh);
    if !target.sni_dnat {
        let sni = policy.tls.as_ref().and_then(cluster_tls::automatic_sni);
        let pool = policy.connection_pool.as_ref();
        cluster_pool::apply_http(&mut cluster, upstream, pool, sni);
    }
    // Endpoints that fail are sent too; panicking into them is a rule's choice.
    cluster
        .common_lb_config
        .get_or_insert_default()
        .healthy_panic_threshold = Some(envoy_api::types::Percent { value: 0.0 });
    cluster_pool::apply_outlier(&mut cluster, policy.outlier_detection.as_ref());
    let locality = cluster_balancer::locality(policy.load_balancer.as_ref(), mesh);
    let outlier = policy.outlier_detection.is_some();
    cluster_balancer::apply_locality(&mut cluster, locality, outlier);
    if target.sni_dnat {
        return cluster;
    }
    let peer = Peer {
        identities: &key.identities,
        sni: name.sni(),
        protocol: target.port.protocol,
        upstream,
        client: &key.client,
    };
    let auto = mesh.enable_auto_mtls
        && !service.external
        && key.mtls != MtlsMode::Disable
        && discovery != DiscoveryType::OriginalDst;
    let mutual = apply_tls(&mut cluster, &policy, &peer, auto);
    if mutual && key.client.metadata_exchange {
        cluster.filters.push(metadata_exchange());
    }
    cluster
}

/// The rule's TLS, else the mesh's own; whether it is mutual TLS of the mesh.
fn apply_tls(cluster: &mut Cluster, policy: &Policy, peer: &Peer<'_>, auto: bool) -> bool {
    match &policy.tls {
        Some(settings) => {
            cluster_tls::apply_rule(cluster, settings, peer)
                && settings.mode == ClientTlsMode::IstioMutual
        }
        None => {
            if auto {
                cluster_tls::apply_auto(cluster, peer);
            }
            auto
        }
    }
}

// The DNS fields' successor is a cluster extension that older Envoys do not have.
#[allow(deprecated)]
fn apply_discovery(
    cluster: &mut Cluster,
    discovery: DiscoveryType,
    snapshot: &Snapshot,
    key: &ClusterKey,
    target: &Target<'_>,
) {
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(discovery as i32));
    match discovery {
        DiscoveryType::Eds => {
            cluster.eds_cluster_config = Some(EdsClusterConfig {
                eds_config: Some(ads()),
                service_name: cluster.name.clone(),
            });
            // Passthrough towards endpoints that are sent: nothing else balances them.
            if cluster.lb_policy == LbPolicy::ClusterProvided as i32 {
                cluster.lb_policy = LbPolicy::LeastRequest as i32;
            }
        }
        DiscoveryType::OriginalDst => {
            cluster.lb_policy = LbPolicy::ClusterProvided as i32;
            cluster.lb_config = None;
        }
        DiscoveryType::StrictDns | DiscoveryType::LogicalDns | DiscoveryType::Static => {
            let family = match (key.client.ipv4, key.client.ipv6) {
                (true, true) => DnsLookupFamily::All,
                (false, true) => DnsLookupFamily::V6Only,
                _ => DnsLookupFamily::V4Only,
            };
            cluster.dns_lookup_family = family as i32;
            cluster.dns_refresh_rate = snapshot.mesh.dns_refresh_rate.map(duration);
            cluster.respect_dns_ttl = true;
            cluster.dns_jitter = Some(duration(std::time::Duration::from_millis(100)));
            if let Some(inline) = &key.inline {
                let name = cluster.name.clone();
                let single = discovery == DiscoveryType::LogicalDns;
                let mut assignment = endpoint::translate(snapshot, inline, target);
                assignment.cluster_name = name;
                if single {
                    endpoint::keep_one(&mut assignment);
                }
                cluster.load_assignment = Some(assignment);
            }
        }
    }
}

/// The name in statistics. The trailing `;` lets the bootstrap's tag rules cut it off.
fn stat_name(pattern: &str, name: &str, target: &Target<'_>) -> String {
    if pattern.is_empty() {
        return format!("{name};");
    }
    let service = &target.entry.service;
    let subset = target
        .subset
        .map(|subset| subset.name.as_str())
        .unwrap_or_default();
    let short = format!("{}.{}", service.name, service.key.namespace);
    let filled = pattern
        .replace("%SERVICE%", &short)
        .replace("%SERVICE_NAME%", &service.name)
        .replace("%SERVICE_FQDN%", &service.key.hostname)
        .replace("%SERVICE_PORT%", &target.port.number.to_string())
        .replace("%SERVICE_PORT_NAME%", &target.port.name)
        .replace("%SUBSET_NAME%", subset);
    format!("{filled};")
}

fn metadata(target: &Target<'_>, policy: &Policy) -> Metadata {
    let service = &target.entry.service;
    let mut fields = vec![(
        "services",
        list(vec![object([
            ("host", text(&service.key.hostname)),
            ("name", text(&service.name)),
            ("namespace", text(&service.key.namespace)),
        ])]),
    )];
    if let Some(rule) = target.rule {
        let (namespace, name) = (&rule.key.namespace, &rule.key.name);
        let path =
            format!("/apis/networking.istio.io/v1/namespaces/{namespace}/destination-rule/{name}");
        fields.push(("config", text(path)));
    }
    if let Some(subset) = target.subset {
        fields.push(("subset", text(&subset.name)));
    }
    if service.external {
        fields.push(("external", boolean(true)));
    }
    let mode = policy.tls.as_ref().map(|tls| tls.mode);
    if matches!(mode, Some(ClientTlsMode::Simple | ClientTlsMode::Mutual)) {
        fields.push(("alpn_override", text("false")));
    }
    super::message::metadata("istio", fields)
}

/// The upstream half of the TCP metadata exchange.
fn metadata_exchange() -> Filter {
    let config = envoy_api::istio::MetadataExchange {
        protocol: "istio-peer-exchange".to_owned(),
        ..Default::default()
    };
    Filter {
        name: "istio.metadata_exchange".to_owned(),
        typed_config: Some(envoy_api::any::pack(&config)),
        ..Default::default()
    }
}
