//! Routing: a route configuration as an immutable table, asked once per request.

use std::sync::Arc;
use std::time::Duration;

use crate::cluster::shared::RoutingPriority;
use crate::http::filters::Overrides;
use crate::http::request::RequestHead;
use crate::matcher::{Fraction, HeaderMatcher, QueryMatcher, Regex, Substitution};
use crate::parse::config_source::ConfigSource;
use crate::parse::http_connection_manager::Upgrade;
use crate::retry::RetryPolicy;
use crate::stream_info::StreamInfo;

pub mod edits;
mod finalize;
pub mod hash;
mod matching;
pub(crate) mod parse;
mod parse_action;
mod redirect;
mod timeouts;
mod virtual_host;

pub use edits::{HeaderEdit, HeaderEdits};
pub use hash::{HashPolicy, NewCookie, RequestHash};
pub use parse::route_table;
pub use redirect::{DirectResponse, Redirect, SchemeRewrite};
pub use timeouts::Timeouts;
pub use virtual_host::HostIndex;

/// A route configuration.
#[derive(Debug)]
pub struct RouteTable {
    pub name: Arc<str>,
    pub(crate) hosts: HostIndex,
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    pub(crate) ignore_port: bool,
    /// Look at this header instead of the authority.
    pub(crate) host_header: Option<String>,
    /// Removed from requests from outside.
    pub internal_only_headers: Vec<String>,
    pub(crate) ignore_path_parameters: bool,
    /// Virtual hosts come one by one.
    pub vhds: Option<ConfigSource>,
    /// Whether clusters must exist when the table is parsed (default: in the bootstrap).
    pub validate_clusters: Option<bool>,
    /// Kept so that virtual hosts that come later are parsed alike.
    pub(crate) shared: Arc<parse::Shared>,
}

#[derive(Debug)]
pub struct VirtualHost {
    pub name: Arc<str>,
    pub domains: Vec<String>,
    pub routes: Vec<Arc<RouteEntry>>,
    pub(crate) index: matching::Index,
    pub require_tls: RequireTls,
    pub include_request_attempt_count: bool,
    pub include_attempt_count_in_response: bool,
    pub include_is_timeout_retry_header: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequireTls {
    No,
    External,
    All,
}

#[derive(Debug)]
pub struct RouteEntry {
    pub name: Arc<str>,
    pub criteria: Criteria,
    pub action: Action,
    /// In the order in which they apply: Envoy's levels.
    pub request_edits: Vec<Arc<HeaderEdits>>,
    pub response_edits: Vec<Arc<HeaderEdits>>,
    pub overrides: Overrides,
    pub metadata: Arc<envoy_api::core::Metadata>,
    /// `decorator.operation`.
    pub operation: Option<Arc<str>>,
    pub stat_prefix: Option<Arc<str>>,
    /// Request bodies that must be held (retries, mirrors) up to this; `None` = the listener's.
    pub buffer_limit: Option<usize>,
}

#[derive(Debug, Clone)]
pub struct Criteria {
    pub path: PathMatch,
    pub case_sensitive: bool,
    pub headers: Vec<HeaderMatcher>,
    pub query: Vec<QueryMatcher>,
    pub fraction: Option<Fraction>,
    pub grpc: bool,
    /// `tls_context`: the client's certificate was presented / validated.
    pub tls: Option<(Option<bool>, Option<bool>)>,
}

#[derive(Debug, Clone)]
pub enum PathMatch {
    Prefix(String),
    Exact(String),
    Regex(Regex),
    /// `/a` matches `/a` and `/a/b`, not `/ab`.
    SeparatedPrefix(String),
    Connect,
}

#[derive(Debug)]
pub enum Action {
    Forward(Box<Forward>),
    Redirect(Box<Redirect>),
    Direct(DirectResponse),
    /// Matches and leads nowhere (`non_forwarding_action`).
    None,
}

#[derive(Debug)]
pub struct Forward {
    pub clusters: ClusterChoice,
    /// Status of a request to a cluster that is not there.
    pub cluster_not_found_status: u16,
    pub path_rewrite: PathRewrite,
    pub host_rewrite: HostRewrite,
    pub append_x_forwarded_host: bool,
    /// `None` = no limit.
    pub timeout: Option<Duration>,
    /// `None`: the connection manager's; `Some(None)`: never.
    pub idle_timeout: Option<Option<Duration>>,
    /// `Some(0)`: as long as the client says.
    pub max_grpc_timeout: Option<Duration>,
    pub grpc_timeout_offset: Option<Duration>,
    pub max_stream: Option<MaxStream>,
    pub retry: Option<Arc<RetryPolicy>>,
    pub mirrors: Vec<Mirror>,
    pub hash: Vec<HashPolicy>,
    pub priority: RoutingPriority,
    /// Overrides of the connection manager's list, by name.
    pub upgrades: Vec<Upgrade>,
}

#[derive(Debug, Clone, Default)]
pub struct MaxStream {
    pub duration: Option<Duration>,
    pub grpc_header_max: Option<Duration>,
    pub grpc_header_offset: Option<Duration>,
}

#[derive(Debug)]
pub enum ClusterChoice {
    One(Arc<str>),
    /// Named by this request header.
    Header(String),
    Weighted {
        total: u64,
        members: Vec<WeightedCluster>,
        random_header: Option<String>,
    },
}

#[derive(Debug)]
pub struct WeightedCluster {
    pub name: ClusterName,
    pub weight: u32,
    pub request_edits: Option<Arc<HeaderEdits>>,
    pub response_edits: Option<Arc<HeaderEdits>>,
    pub host_rewrite: Option<String>,
    /// All levels resolved.
    pub overrides: Overrides,
}

#[derive(Debug)]
pub enum ClusterName {
    Fixed(Arc<str>),
    Header(String),
}

#[derive(Debug, Clone)]
pub enum PathRewrite {
    None,
    /// Replaces what the path criterion matched.
    Prefix(String),
    Regex(Substitution),
}

#[derive(Debug, Clone)]
pub enum HostRewrite {
    None,
    Literal(String),
    /// The chosen host's name.
    Auto,
    /// The value of a request header.
    Header(String),
    PathRegex(Substitution),
}

#[derive(Debug, Clone)]
pub struct Mirror {
    pub cluster: MirrorCluster,
    pub fraction: Fraction,
    /// `-shadow` is appended to the host unless this is set.
    pub keep_host: bool,
    pub host_rewrite: Option<String>,
    pub trace_sampled: Option<bool>,
}

#[derive(Debug, Clone)]
pub enum MirrorCluster {
    Fixed(Arc<str>),
    Header(String),
}

/// What a request found.
#[derive(Debug, Clone)]
pub enum Selection {
    Route(Selected),
    /// The virtual host wants TLS: answer with this status and `location`.
    TlsRequired {
        location: Vec<u8>,
    },
    NoVirtualHost,
    NoRoute(Arc<VirtualHost>),
}

/// A route, and the cluster that was drawn for it.
#[derive(Debug, Clone)]
pub struct Selected {
    pub virtual_host: Arc<VirtualHost>,
    pub route: Arc<RouteEntry>,
    /// `None` for routes that do not forward (or whose cluster header is missing).
    pub cluster: Option<Arc<str>>,
    weighted: Option<usize>,
}

impl Selected {
    pub fn forward(&self) -> Option<&Forward> {
        match &self.route.action {
            Action::Forward(forward) => Some(forward),
            _ => None,
        }
    }

    /// The hash for the cluster's balancer, by the route's policies.
    pub fn hash(&self, head: &RequestHead, stream: &StreamInfo) -> RequestHash {
        match self.forward() {
            Some(forward) if !forward.hash.is_empty() => hash::hash_of(&forward.hash, head, stream),
            _ => RequestHash::default(),
        }
    }

    /// Settings of this filter for the route, the most specific level first.
    pub fn overrides(&self) -> &Overrides {
        self.weighted()
            .map_or(&self.route.overrides, |one| &one.overrides)
    }

    fn weighted(&self) -> Option<&WeightedCluster> {
        match (&self.route.action, self.weighted) {
            (Action::Forward(forward), Some(at)) => match &forward.clusters {
                ClusterChoice::Weighted { members, .. } => members.get(at),
                _ => None,
            },
            _ => None,
        }
    }
}

impl RouteTable {
    /// The route for this request. `random` decides fractions and weights.
    pub fn select(&self, head: &RequestHead, stream: &StreamInfo, random: u64) -> Selection {
        let Some(virtual_host) = self.virtual_host(head) else {
            return Selection::NoVirtualHost;
        };
        if let Some(location) = redirect::to_https(virtual_host.require_tls, head) {
            return Selection::TlsRequired { location };
        }
        let path = matching::Path::of(head, self.ignore_path_parameters);
        let Some(route) = virtual_host.find(head, &path, stream, random) else {
            return Selection::NoRoute(virtual_host.clone());
        };
        let (cluster, weighted) = match &route.action {
            Action::Forward(forward) => forward.clusters.pick(head, random),
            _ => (None, None),
        };
        let (virtual_host, route) = (virtual_host.clone(), route.clone());
        Selection::Route(Selected {
            virtual_host,
            route,
            cluster,
            weighted,
        })
    }

    /// Clusters that routes name.
    pub fn cluster_names(&self) -> impl Iterator<Item = &str> {
        let routes = self.virtual_hosts.iter().flat_map(|host| &host.routes);
        let forwards = routes.filter_map(|route| match &route.action {
            Action::Forward(forward) => Some(forward),
            _ => None,
        });
        forwards.flat_map(|forward| match &forward.clusters {
            ClusterChoice::One(name) => vec![&**name],
            ClusterChoice::Header(_) => Vec::new(),
            ClusterChoice::Weighted { members, .. } => members
                .iter()
                .filter_map(|one| match &one.name {
                    ClusterName::Fixed(name) => Some(&**name),
                    ClusterName::Header(_) => None,
                })
                .collect(),
        })
    }

    pub fn virtual_host(&self, head: &RequestHead) -> Option<&Arc<VirtualHost>> {
        let from_header = self
            .host_header
            .as_deref()
            .and_then(|name| head.header(name));
        let host = from_header.as_deref().unwrap_or(&head.authority);
        self.hosts
            .find(host, self.ignore_port)
            .map(|at| &self.virtual_hosts[at])
    }
}

impl ClusterChoice {
    fn pick(&self, head: &RequestHead, random: u64) -> (Option<Arc<str>>, Option<usize>) {
        let by_header = |name: &str| {
            let value = head.header(name)?;
            std::str::from_utf8(&value)
                .ok()
                .filter(|name| !name.is_empty())
                .map(Arc::from)
        };
        match self {
            ClusterChoice::One(name) => (Some(name.clone()), None),
            ClusterChoice::Header(name) => (by_header(name), None),
            ClusterChoice::Weighted {
                total,
                members,
                random_header,
            } => {
                let given = random_header.as_deref().and_then(|name| head.header(name));
                let given = given.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
                let mut at = given.unwrap_or(random) % total.max(&1);
                for (index, member) in members.iter().enumerate() {
                    let weight = u64::from(member.weight);
                    if at < weight {
                        let name = match &member.name {
                            ClusterName::Fixed(name) => Some(name.clone()),
                            ClusterName::Header(name) => by_header(name),
                        };
                        return (name, Some(index));
                    }
                    at -= weight;
                }
                (None, None)
            }
        }
    }
}

pub(crate) fn compat_rows() -> Vec<crate::parse::compat::MessageSupport> {
    [
        edits::compat_rows(),
        parse::compat_rows(),
        parse_action::compat_rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests;
