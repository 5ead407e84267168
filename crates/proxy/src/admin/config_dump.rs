//! `/config_dump`: every resource in Envoy's own descriptors, with `include_eds`, `resource`,
//! `mask` and `name_regex`. Private keys are never shown.

use bytes::Bytes;
use envoy_api::{ResourceType, admin, tls};
use prost::Message as _;
use prost_types::Any;
use serde_json::{Map, Value, json};

use super::picture::timestamp;
use super::{Answer, Picture, Query, RawPicture, message_json};
use crate::matcher::Regex;

pub fn answer(query: &Query, picture: &Picture) -> Answer {
    let names = match query
        .get("name_regex")
        .map(|text| Regex::new(text))
        .transpose()
    {
        Ok(names) => names,
        Err(error) => {
            return Answer::failed(400, format!("Error while parsing name_regex: {error}"));
        }
    };
    let keep = |name: &str| {
        names
            .as_ref()
            .is_none_or(|one| one.is_full_match(name.as_bytes()))
    };
    let mut configs = sections(picture, query.contains_key("include_eds"), &keep);
    if let Some(resource) = query.get("resource") {
        match members(&configs, resource) {
            Some(found) => configs = found,
            None => return Answer::failed(404, format!("{resource} not found in config dump")),
        }
    }
    if let Some(mask) = query.get("mask") {
        let paths: Vec<Vec<&str>> = mask
            .split(',')
            .map(|path| path.split('.').collect())
            .collect();
        let known = |path: &Vec<&str>| {
            let first = path.first().copied().unwrap_or_default();
            configs.iter().any(|section| section.get(first).is_some()) || RESOURCES.contains(&first)
        };
        if !paths.iter().all(known) {
            let message = format!("FieldMask {mask} could not be successfully used.");
            return Answer {
                content_type: "text/plain",
                ..Answer::failed(400, message)
            };
        }
        configs = configs.into_iter().map(|one| masked(one, &paths)).collect();
    }
    Answer::json(&json!({ "configs": configs }))
}

fn any(kind: ResourceType, body: &Bytes) -> Option<Any> {
    Some(Any {
        type_url: kind.type_url().to_owned(),
        value: body.to_vec(),
    })
}

/// The dumps, in Envoy's order; empty ones are there too, but for secrets and endpoints.
fn sections(picture: &Picture, include_eds: bool, keep: &dyn Fn(&str) -> bool) -> Vec<Value> {
    let mut configs = vec![
        section(&admin::BootstrapConfigDump {
            bootstrap: Some((*picture.bootstrap).clone()),
            last_updated: Some(timestamp(picture.started)),
        }),
        section(&clusters(picture, keep)),
    ];
    if include_eds {
        configs.push(section(&endpoints(picture, keep)));
    }
    configs.push(section(&listeners(picture, keep)));
    configs.push(section(&admin::ScopedRoutesConfigDump::default()));
    configs.push(section(&routes(picture, keep)));
    let secrets = secrets(picture, keep);
    if secrets != admin::SecretsConfigDump::default() {
        configs.push(section(&secrets));
    }
    configs
}

/// A dump as Envoy writes it: its type first, then its fields.
fn section<M: prost::Message + prost::Name>(message: &M) -> Value {
    let mut fields = Map::new();
    fields.insert("@type".to_owned(), M::type_url().into());
    if let Value::Object(rest) = message_json(message) {
        fields.extend(rest);
    }
    Value::Object(fields)
}

/// The newest version of those that came by discovery.
fn newest<'a>(resources: impl Iterator<Item = &'a RawPicture>) -> String {
    let dynamic = resources.filter(|raw| !raw.is_static);
    dynamic
        .max_by_key(|raw| raw.updated)
        .map(|raw| raw.version.clone())
        .unwrap_or_default()
}

fn clusters(picture: &Picture, keep: &dyn Fn(&str) -> bool) -> admin::ClustersConfigDump {
    use admin::clusters_config_dump::{DynamicCluster, StaticCluster};
    let mut dump = admin::ClustersConfigDump {
        version_info: newest(picture.clusters.iter().map(|one| &one.raw)),
        ..Default::default()
    };
    for one in picture.clusters.iter().filter(|one| keep(&one.config.name)) {
        let cluster = any(ResourceType::Cluster, &one.raw.body);
        let last_updated = Some(timestamp(one.raw.updated));
        if one.raw.is_static {
            dump.static_clusters.push(StaticCluster {
                cluster,
                last_updated,
            });
            continue;
        }
        let version_info = one.raw.version.clone();
        let entry = DynamicCluster {
            version_info,
            cluster,
            last_updated,
            ..Default::default()
        };
        if one.warming {
            dump.dynamic_warming_clusters.push(entry);
        } else {
            dump.dynamic_active_clusters.push(entry);
        }
    }
    dump
}

fn listeners(picture: &Picture, keep: &dyn Fn(&str) -> bool) -> admin::ListenersConfigDump {
    use admin::listeners_config_dump::{DynamicListener, DynamicListenerState, StaticListener};
    let mut dump = admin::ListenersConfigDump {
        version_info: newest(picture.listeners.iter().map(|one| &one.raw)),
        ..Default::default()
    };
    for one in picture
        .listeners
        .iter()
        .filter(|one| keep(&one.config.name))
    {
        let listener = any(ResourceType::Listener, &one.raw.body);
        let last_updated = Some(timestamp(one.raw.updated));
        if one.raw.is_static {
            dump.static_listeners.push(StaticListener {
                listener,
                last_updated,
            });
            continue;
        }
        let version_info = one.raw.version.clone();
        let state = Some(DynamicListenerState {
            version_info,
            listener,
            last_updated,
        });
        let name = one.config.name.to_string();
        let list = &mut dump.dynamic_listeners;
        let at = match list.iter().position(|other| other.name == name) {
            Some(at) => at,
            None => {
                list.push(DynamicListener {
                    name,
                    ..Default::default()
                });
                list.len() - 1
            }
        };
        if one.warming {
            list[at].warming_state = state;
        } else {
            list[at].active_state = state;
        }
    }
    dump
}

fn routes(picture: &Picture, keep: &dyn Fn(&str) -> bool) -> admin::RoutesConfigDump {
    use admin::routes_config_dump::{DynamicRouteConfig, StaticRouteConfig};
    let mut dump = admin::RoutesConfigDump::default();
    for listener in &picture.listeners {
        for (route_config, name) in inline_routes(&listener.raw.body) {
            if keep(&name) {
                let last_updated = Some(timestamp(listener.raw.updated));
                let route_config = Some(route_config);
                dump.static_route_configs.push(StaticRouteConfig {
                    route_config,
                    last_updated,
                });
            }
        }
    }
    for one in picture.routes.iter().filter(|one| keep(&one.name)) {
        dump.dynamic_route_configs.push(DynamicRouteConfig {
            version_info: one.raw.version.clone(),
            route_config: any(ResourceType::Route, &one.raw.body),
            last_updated: Some(timestamp(one.raw.updated)),
            ..Default::default()
        });
    }
    dump
}

/// Route configurations inside a listener.
fn inline_routes(listener: &Bytes) -> Vec<(Any, String)> {
    use envoy_api::hcm::http_connection_manager::RouteSpecifier;
    let Ok(listener) = envoy_api::listener::Listener::decode(listener.clone()) else {
        return Vec::new();
    };
    let chains = listener
        .filter_chains
        .iter()
        .chain(&listener.default_filter_chain);
    let configs = chains
        .flat_map(|chain| &chain.filters)
        .filter_map(|filter| {
            let envoy_api::listener::filter::ConfigType::TypedConfig(any) =
                filter.config_type.as_ref()?
            else {
                return None;
            };
            envoy_api::any::unpack::<envoy_api::hcm::HttpConnectionManager>(any).ok()
        });
    configs
        .filter_map(|manager| match manager.route_specifier? {
            RouteSpecifier::RouteConfig(config) => {
                Some((envoy_api::any::pack(&config), config.name))
            }
            _ => None,
        })
        .collect()
}

fn endpoints(picture: &Picture, keep: &dyn Fn(&str) -> bool) -> admin::EndpointsConfigDump {
    use admin::endpoints_config_dump::{DynamicEndpointConfig, StaticEndpointConfig};
    let mut dump = admin::EndpointsConfigDump::default();
    for cluster in picture.clusters.iter().filter(|one| keep(&one.config.name)) {
        let Ok(message) = envoy_api::cluster::Cluster::decode(cluster.raw.body.clone()) else {
            continue;
        };
        if let Some(mut assignment) = message.load_assignment {
            assignment.cluster_name = message.name;
            let endpoint_config = Some(envoy_api::any::pack(&assignment));
            let last_updated = None;
            dump.static_endpoint_configs.push(StaticEndpointConfig {
                endpoint_config,
                last_updated,
            });
        }
    }
    for one in picture.endpoints.iter().filter(|one| keep(&one.name)) {
        dump.dynamic_endpoint_configs.push(DynamicEndpointConfig {
            version_info: one.raw.version.clone(),
            endpoint_config: any(ResourceType::Endpoint, &one.raw.body),
            last_updated: Some(timestamp(one.raw.updated)),
            ..Default::default()
        });
    }
    dump
}

fn secrets(picture: &Picture, keep: &dyn Fn(&str) -> bool) -> admin::SecretsConfigDump {
    use admin::secrets_config_dump::{DynamicSecret, StaticSecret};
    let mut dump = admin::SecretsConfigDump::default();
    for one in picture.secrets.iter().filter(|one| keep(&one.name)) {
        let secret = tls::Secret::decode(one.raw.body.clone()).ok().map(redacted);
        let secret = secret.map(|secret| envoy_api::any::pack(&secret));
        let last_updated = Some(timestamp(one.raw.updated));
        let name = one.name.to_string();
        if one.raw.is_static {
            dump.static_secrets.push(StaticSecret {
                name,
                last_updated,
                secret,
            });
        } else {
            dump.dynamic_active_secrets.push(DynamicSecret {
                name,
                version_info: one.raw.version.clone(),
                last_updated,
                secret,
                ..Default::default()
            });
        }
    }
    dump
}

/// The secret as it may be shown.
fn redacted(mut secret: tls::Secret) -> tls::Secret {
    use envoy_api::core::data_source::Specifier;
    let hide = |source: &mut Option<envoy_api::core::DataSource>| {
        if let Some(source) = source {
            source.specifier = Some(Specifier::InlineString("[redacted]".to_owned()));
        }
    };
    match &mut secret.r#type {
        Some(tls::secret::Type::TlsCertificate(one)) => {
            hide(&mut one.private_key);
            hide(&mut one.password);
            hide(&mut one.pkcs12);
        }
        Some(tls::secret::Type::SessionTicketKeys(one)) => {
            one.keys.iter_mut().for_each(|key| {
                key.specifier = Some(Specifier::InlineString("[redacted]".to_owned()));
            });
        }
        Some(tls::secret::Type::GenericSecret(one)) => hide(&mut one.secret),
        Some(tls::secret::Type::ValidationContext(_)) | None => {}
    }
    secret
}

/// `resource=dynamic_active_clusters`: that list of the section that has it.
fn members(configs: &[Value], resource: &str) -> Option<Vec<Value>> {
    let known = configs.iter().find_map(|section| section.get(resource));
    let Some(list) = known.and_then(Value::as_array) else {
        return RESOURCES.contains(&resource).then(Vec::new);
    };
    let wrapped = list.iter().map(|member| {
        let mut fields = Map::new();
        if let Some(kind) = member_type(resource) {
            fields.insert("@type".to_owned(), kind.into());
        }
        if let Value::Object(rest) = member {
            fields.extend(rest.clone());
        }
        Value::Object(fields)
    });
    Some(wrapped.collect())
}

const RESOURCES: &[&str] = &[
    "static_clusters",
    "dynamic_active_clusters",
    "dynamic_warming_clusters",
    "static_listeners",
    "dynamic_listeners",
    "static_route_configs",
    "dynamic_route_configs",
    "static_endpoint_configs",
    "dynamic_endpoint_configs",
    "static_secrets",
    "dynamic_active_secrets",
    "dynamic_warming_secrets",
];

fn member_type(resource: &str) -> Option<String> {
    let (dump, member) = match resource {
        "static_clusters" => ("Clusters", "StaticCluster"),
        "dynamic_active_clusters" | "dynamic_warming_clusters" => ("Clusters", "DynamicCluster"),
        "static_listeners" => ("Listeners", "StaticListener"),
        "dynamic_listeners" => ("Listeners", "DynamicListener"),
        "static_route_configs" => ("Routes", "StaticRouteConfig"),
        "dynamic_route_configs" => ("Routes", "DynamicRouteConfig"),
        "static_endpoint_configs" => ("Endpoints", "StaticEndpointConfig"),
        "dynamic_endpoint_configs" => ("Endpoints", "DynamicEndpointConfig"),
        "static_secrets" => ("Secrets", "StaticSecret"),
        "dynamic_active_secrets" | "dynamic_warming_secrets" => ("Secrets", "DynamicSecret"),
        _ => return None,
    };
    Some(format!(
        "type.googleapis.com/envoy.admin.v3.{dump}ConfigDump.{member}"
    ))
}

/// Only the fields on these paths.
fn masked(value: Value, paths: &[Vec<&str>]) -> Value {
    let Value::Object(fields) = value else {
        return value;
    };
    let mut kept = Map::new();
    for (key, inner) in fields {
        if key == "@type" {
            kept.insert(key, inner);
            continue;
        }
        let below: Vec<Vec<&str>> = paths
            .iter()
            .filter(|path| path.first() == Some(&key.as_str()))
            .map(|path| path[1..].to_vec())
            .collect();
        if below.is_empty() {
            continue;
        }
        let whole = below.iter().any(Vec::is_empty);
        kept.insert(key, if whole { inner } else { masked(inner, &below) });
    }
    Value::Object(kept)
}
