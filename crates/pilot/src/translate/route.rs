//! HTTP routes of a virtual service as Envoy routes (istio.md 1.3, 2.4). Which matches apply to
//! a proxy is decided here, once; Envoy sees only those.

use std::collections::BTreeSet;
use std::sync::Arc;

use envoy_api::matcher::RegexMatchAndSubstitute;
use envoy_api::route::route_action::{
    ClusterSpecifier, HashPolicy, HostRewriteSpecifier, RequestMirrorPolicy,
};
use envoy_api::route::route_match::PathSpecifier;
use envoy_api::route::weighted_cluster::{ClusterWeight, cluster_weight};
use envoy_api::route::{Decorator, Route, RouteAction, WeightedCluster, route};
use mesh_api::kinds::destination::{Destination, Percent};
use mesh_api::kinds::virtual_service::{HttpMatchRequest, HttpRoute, HttpRouteDestination};
use mesh_api::mesh_config::MeshConfig;

use super::message::{duration, metadata, text};
use super::{route_filters, route_headers, route_match, route_reply, route_retry};
use crate::cluster_name::{self, Outbound};
use crate::model::{ProxyView, Service, selects};
use crate::snapshot::VirtualServiceEntry;

/// The routes of a virtual service that apply: the route's index and its match's.
pub type Selection = Vec<(usize, Option<usize>)>;

/// Resolves services and their hash policies for destinations.
pub trait Destinations {
    fn service(&self, hostname: &str) -> Option<Arc<Service>>;
    fn hash_policy(&self, destination: &Outbound) -> Option<HashPolicy>;
}

/// Where the routes will stand.
pub struct Place<'a> {
    /// Port of the listener, or of the gateway's server.
    pub port: u16,
    pub mesh: &'a MeshConfig,
    pub destinations: &'a dyn Destinations,
    /// Clients speak TLS to this server.
    pub tls: bool,
}

/// The matches that apply to a proxy on one port; a route that catches all ends the list.
pub fn select(
    entry: &VirtualServiceEntry,
    view: &ProxyView,
    gateways: &BTreeSet<&str>,
    port: u16,
) -> Selection {
    let mut selection = Selection::new();
    for (index, route) in entry.spec.http.iter().enumerate() {
        if route.r#match.is_empty() {
            selection.push((index, None));
            return selection;
        }
        for (part, written) in route.r#match.iter().enumerate() {
            if !applies(written, view, gateways, port) {
                continue;
            }
            selection.push((index, Some(part)));
            if route_match::is_catch_all(&route_match::translate(written)) {
                return selection;
            }
        }
    }
    selection
}

/// Conditions on the client that the control plane decides.
fn applies(
    written: &HttpMatchRequest,
    view: &ProxyView,
    gateways: &BTreeSet<&str>,
    port: u16,
) -> bool {
    let claims = |name: &String| name.starts_with(route_match::CLAIM_PREFIX);
    if written
        .headers
        .keys()
        .chain(written.without_headers.keys())
        .any(claims)
    {
        return false;
    }
    if written.port != 0 && written.port != u32::from(port) {
        return false;
    }
    if !written.gateways.is_empty() {
        return written
            .gateways
            .iter()
            .any(|name| gateways.contains(name.as_str()));
    }
    selects(&written.source_labels, &view.labels)
        && (written.source_namespace.is_empty() || written.source_namespace == view.namespace)
}

/// The selected routes of one virtual service.
pub fn translate(
    entry: &VirtualServiceEntry,
    selection: &Selection,
    place: &Place<'_>,
) -> Vec<Route> {
    let one = |(index, part): &(usize, Option<usize>)| {
        let written = entry.spec.http.get(*index)?;
        let condition = part.and_then(|part| written.r#match.get(part));
        one_route(entry, written, condition, place)
    };
    selection.iter().filter_map(one).collect()
}

fn one_route(
    entry: &VirtualServiceEntry,
    written: &HttpRoute,
    condition: Option<&HttpMatchRequest>,
    place: &Place<'_>,
) -> Option<Route> {
    let wire_match = condition.map_or_else(route_match::all, route_match::translate);
    let name = match (written.name.as_str(), condition.map(|c| c.name.as_str())) {
        (name, None | Some("")) => name.to_owned(),
        (name, Some(part)) => format!("{name}.{part}"),
    };
    let headers = route_headers::translate(written.headers.as_ref());
    let (namespace, object) = (&entry.key.namespace, &entry.key.name);
    let config =
        format!("/apis/networking.istio.io/v1/namespaces/{namespace}/virtual-service/{object}");
    let action = if let Some(redirect) = &written.redirect {
        route::Action::Redirect(route_reply::redirect(redirect, place)?)
    } else if let Some(response) = &written.direct_response {
        route::Action::DirectResponse(route_reply::direct(response))
    } else {
        route::Action::Route(forward(
            written,
            &wire_match.path_specifier,
            &headers,
            place,
        )?)
    };
    let decorated = matches!(action, route::Action::Route(_));
    let operation = operation(&action, object, place.port, &wire_match.path_specifier);
    Some(Route {
        name,
        r#match: Some(wire_match),
        metadata: Some(metadata("istio", [("config", text(config))])),
        decorator: decorated.then_some(Decorator {
            operation,
            propagate: None,
        }),
        typed_per_filter_config: route_filters::per_route(written),
        request_headers_to_add: headers.request_add,
        request_headers_to_remove: headers.request_remove,
        response_headers_to_add: headers.response_add,
        response_headers_to_remove: headers.response_remove,
        stat_prefix: condition.map(|c| c.stat_prefix.clone()).unwrap_or_default(),
        action: Some(action),
        ..Default::default()
    })
}

/// What traces call the route: `host:port/path*`.
fn operation(
    action: &route::Action,
    object: &str,
    port: u16,
    path: &Option<PathSpecifier>,
) -> String {
    let path = match path {
        Some(PathSpecifier::Prefix(prefix)) => format!("{prefix}*"),
        Some(PathSpecifier::Path(path)) => path.clone(),
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex.clone(),
        _ => "/*".to_owned(),
    };
    let host = match action {
        route::Action::Route(RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(name)),
            ..
        }) => Outbound::parse(name).map(|name| name.hostname),
        _ => None,
    };
    format!("{}:{port}{path}", host.as_deref().unwrap_or(object))
}

/// The cluster of a destination: its own port, else the service's only one, else the listener's.
pub fn cluster(destination: &Destination, place: &Place<'_>) -> Outbound {
    let written = destination
        .port
        .as_ref()
        .and_then(|port| u16::try_from(port.number).ok());
    let port = written.unwrap_or_else(|| {
        let service = place.destinations.service(&destination.host);
        match service.as_deref().map(|service| service.ports.as_slice()) {
            Some([only]) => only.number,
            _ => place.port,
        }
    });
    Outbound::new(port, &destination.subset, &destination.host)
}

/// A route to the one service of a virtual host without rules.
pub fn default_route(cluster: &Outbound, place: &Place<'_>) -> Route {
    let mut action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_string())),
        ..timeouts(None)
    };
    let hash = place.destinations.hash_policy(cluster);
    action.retry_policy = route_retry::policy(
        None,
        place.mesh.default_http_retry_policy.as_ref(),
        hash.is_some(),
    );
    action.hash_policy = hash.into_iter().collect();
    Route {
        name: "default".to_owned(),
        r#match: Some(route_match::all()),
        decorator: Some(Decorator {
            operation: format!("{}:{}/*", cluster.hostname, cluster.port),
            propagate: None,
        }),
        action: Some(route::Action::Route(action)),
        ..Default::default()
    }
}

/// No limit of time unless one is written; then gRPC's own limit may only shorten it.
#[allow(deprecated)] // its successor limits the whole stream, which would end streaming calls
pub fn timeouts(written: Option<std::time::Duration>) -> RouteAction {
    let timeout = duration(written.unwrap_or_default());
    RouteAction {
        timeout: Some(timeout),
        max_grpc_timeout: Some(timeout),
        ..Default::default()
    }
}

fn forward(
    written: &HttpRoute,
    path: &Option<PathSpecifier>,
    headers: &route_headers::Mutations,
    place: &Place<'_>,
) -> Option<RouteAction> {
    let mut action = timeouts(written.timeout);
    let live: Vec<&HttpRouteDestination> = match written.route.as_slice() {
        [only] => vec![only],
        many => many
            .iter()
            .filter(|destination| destination.weight > 0)
            .collect(),
    };
    let targets: Vec<(&HttpRouteDestination, Outbound)> = live
        .into_iter()
        .filter_map(|route| Some((route, cluster(route.destination.as_ref()?, place))))
        .collect();
    action.hash_policy = targets
        .iter()
        .find_map(|(_, c)| place.destinations.hash_policy(c))
        .into_iter()
        .collect();
    action.retry_policy = route_retry::policy(
        written.retries.as_ref(),
        place.mesh.default_http_retry_policy.as_ref(),
        !action.hash_policy.is_empty(),
    );
    rewrite(&mut action, written, path, headers);
    action.request_mirror_policies = mirrors(written, place);
    action.cluster_specifier = Some(match targets.as_slice() {
        [] => ClusterSpecifier::Cluster(cluster_name::BLACK_HOLE.to_owned()),
        [(route, cluster)] if route.headers.is_none() => {
            ClusterSpecifier::Cluster(cluster.to_string())
        }
        many => weighted(many),
    });
    Some(action)
}

fn weighted(targets: &[(&HttpRouteDestination, Outbound)]) -> ClusterSpecifier {
    let alone = targets.len() == 1;
    let weights = targets.iter().map(|(route, cluster)| {
        let headers = route_headers::translate(route.headers.as_ref());
        let weight = if alone {
            100
        } else {
            u32::try_from(route.weight).unwrap_or_default()
        };
        ClusterWeight {
            name: cluster.to_string(),
            weight: Some(weight),
            request_headers_to_add: headers.request_add,
            request_headers_to_remove: headers.request_remove,
            response_headers_to_add: headers.response_add,
            response_headers_to_remove: headers.response_remove,
            host_rewrite_specifier: headers
                .host
                .map(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
            ..Default::default()
        }
    });
    ClusterSpecifier::WeightedClusters(WeightedCluster {
        clusters: weights.collect(),
        ..Default::default()
    })
}

fn rewrite(
    action: &mut RouteAction,
    written: &HttpRoute,
    path: &Option<PathSpecifier>,
    headers: &route_headers::Mutations,
) {
    let mut host = headers.host.clone();
    if let Some(rewrite) = &written.rewrite {
        if let Some(regex) = &rewrite.uri_regex_rewrite {
            action.regex_rewrite = Some(RegexMatchAndSubstitute {
                pattern: Some(route_match::regex(&regex.r#match)),
                substitution: regex.rewrite.clone(),
            });
        } else if !rewrite.uri.is_empty() {
            match path {
                // Envoy replaces what a regex matched only by a regex: here the whole path.
                Some(PathSpecifier::SafeRegex(_)) => {
                    action.regex_rewrite = Some(RegexMatchAndSubstitute {
                        pattern: Some(route_match::regex("^/.*$")),
                        substitution: rewrite.uri.clone(),
                    });
                }
                _ => action.prefix_rewrite.clone_from(&rewrite.uri),
            }
        }
        if !rewrite.authority.is_empty() {
            host = Some(rewrite.authority.clone());
        }
    }
    action.host_rewrite_specifier = host.map(HostRewriteSpecifier::HostRewriteLiteral);
}

fn mirrors(written: &HttpRoute, place: &Place<'_>) -> Vec<RequestMirrorPolicy> {
    let old = written.mirror.as_ref().map(|destination| {
        let percentage = written.mirror_percentage.clone().or_else(|| {
            written.mirror_percent.map(|value| Percent {
                value: f64::from(value),
            })
        });
        (destination, percentage)
    });
    let listed = written
        .mirrors
        .iter()
        .filter_map(|mirror| Some((mirror.destination.as_ref()?, mirror.percentage.clone())));
    old.into_iter()
        .chain(listed)
        // 0 % is "off": Envoy would take a missing fraction for everything.
        .filter(|(_, percent)| percent.as_ref().is_none_or(|percent| percent.value > 0.0))
        .map(|(destination, percent)| RequestMirrorPolicy {
            cluster: cluster(destination, place).to_string(),
            runtime_fraction: Some(route_filters::runtime(match &percent {
                Some(percent) => route_filters::millionths(percent),
                None => route_filters::hundredths(100),
            })),
            trace_sampled: Some(false),
            disable_shadow_host_suffix_append: true,
            ..Default::default()
        })
        .collect()
}
