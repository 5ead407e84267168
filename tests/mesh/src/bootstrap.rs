//! A case's `envoy.yaml` to a full Envoy bootstrap. The file is Envoy's own configuration with four
//! short forms: `http` (a listener with a connection manager), `tcp` (one with other network
//! filters), `clusters` (static, plain) and `bootstrap` (merged into the whole).

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What every request leaves in the log: `key=value` words.
pub const LOG_FORMAT: &str = "method=%REQ(:METHOD)% path=%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% \
    protocol=%PROTOCOL% code=%RESPONSE_CODE% flags=%RESPONSE_FLAGS% \
    details=%RESPONSE_CODE_DETAILS% route=%ROUTE_NAME% cluster=%UPSTREAM_CLUSTER% \
    host=%UPSTREAM_HOST% attempts=%UPSTREAM_REQUEST_ATTEMPT_COUNT% in=%BYTES_RECEIVED% \
    out=%BYTES_SENT%\n";

const TYPES: &str = "type.googleapis.com/";

/// The bootstrap with every `${placeholder}` replaced.
pub fn expand(case: &Value, places: &BTreeMap<String, String>) -> Result<Value> {
    let case = case.as_object().context("envoy.yaml is not a map")?;
    let mut listeners = list(case, "listeners");
    let mut bootstrap = json!({});
    let mut clusters = Vec::new();
    for (key, value) in case {
        match key.as_str() {
            "http" => listeners.insert(0, http_listener("http", value)?),
            "https" => listeners.push(http_listener("https", value)?),
            "tcp" => listeners.push(tcp_listener("tcp", value)),
            "listeners" => {}
            "clusters" => clusters = all_clusters(value)?,
            "bootstrap" => bootstrap = value.clone(),
            other => bail!("envoy.yaml: no such section: {other}"),
        }
    }
    if case.get("clusters").is_none() {
        clusters = vec![cluster("a", &json!({}))];
    }
    let mut whole = json!({
        "node": {"id": "test", "cluster": "test"},
        "admin": {"address": address("${admin}")},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    });
    merge(&mut whole, &bootstrap);
    fill(&mut whole, places)?;
    Ok(whole)
}

fn list(map: &Map<String, Value>, key: &str) -> Vec<Value> {
    map.get(key)
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default()
}

fn address(port: &str) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn extension(name: &str, kind: &str, config: &Value) -> Value {
    let mut typed = json!({"@type": format!("{TYPES}{kind}")});
    merge(&mut typed, config);
    json!({"name": name, "typed_config": typed})
}

fn file_log(format: &str) -> Value {
    let source = json!({"text_format_source": {"inline_string": format}});
    let config = json!({"path": "${access_log}", "log_format": source});
    extension(
        "file",
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        &config,
    )
}

/// `http: {filters, routes | virtual_hosts, route_config, hcm, chain, listener, log}`.
fn http_listener(name: &str, section: &Value) -> Result<Value> {
    let section = section.as_object().context("http: not a map")?;
    for key in section.keys() {
        let known = [
            "filters",
            "routes",
            "virtual_hosts",
            "virtual_host",
            "route_config",
            "hcm",
            "chain",
            "listener",
            "log",
            "router",
        ];
        if !known.contains(&key.as_str()) {
            bail!("http: no such key: {key}");
        }
    }
    let mut filters = list(section, "filters");
    let router = section.get("router").cloned().unwrap_or_else(|| json!({}));
    let kind = "envoy.extensions.filters.http.router.v3.Router";
    filters.push(extension("envoy.filters.http.router", kind, &router));
    let mut host = json!({"name": "all", "domains": ["*"], "routes": list(section, "routes")});
    if section.get("routes").is_none() {
        host["routes"] = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]);
    }
    merge(
        &mut host,
        section.get("virtual_host").unwrap_or(&Value::Null),
    );
    let hosts = match section.get("virtual_hosts") {
        Some(hosts) => hosts.clone(),
        None => json!([host]),
    };
    let mut routes = json!({"name": "local", "virtual_hosts": hosts});
    merge(
        &mut routes,
        section.get("route_config").unwrap_or(&Value::Null),
    );
    let log = section
        .get("log")
        .and_then(Value::as_str)
        .unwrap_or(LOG_FORMAT);
    let mut manager = json!({
        "stat_prefix": name,
        "access_log": [file_log(log)],
        "route_config": routes,
        "http_filters": filters,
    });
    let hcm = section.get("hcm").unwrap_or(&Value::Null);
    if hcm.get("rds").is_some() {
        manager
            .as_object_mut()
            .map(|map| map.remove("route_config"));
    }
    merge(&mut manager, hcm);
    let kind = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let filter = extension(
        "envoy.filters.network.http_connection_manager",
        kind,
        &manager,
    );
    Ok(listener(name, section, &[filter]))
}

/// `tcp: {filters, chain, listener}`; a `tcp_proxy` to `a` where no filter is given.
fn tcp_listener(name: &str, section: &Value) -> Value {
    let empty = Map::new();
    let section = section.as_object().unwrap_or(&empty);
    let mut filters = list(section, "filters");
    let answers = filters
        .iter()
        .any(|filter| filter["name"] == "envoy.filters.network.direct_response");
    if !answers {
        let mut config = json!({"stat_prefix": name, "cluster": "a"});
        let proxy = section.get("proxy").unwrap_or(&Value::Null);
        if proxy.get("weighted_clusters").is_some() {
            config.as_object_mut().map(|map| map.remove("cluster"));
        }
        merge(&mut config, proxy);
        let kind = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
        filters.push(extension("envoy.filters.network.tcp_proxy", kind, &config));
    }
    listener(name, section, &filters)
}

fn listener(name: &str, section: &Map<String, Value>, filters: &[Value]) -> Value {
    let mut chain = json!({"filters": filters});
    merge(&mut chain, section.get("chain").unwrap_or(&Value::Null));
    let mut listener = json!({
        "name": name,
        "address": address(&format!("${{port.{name}}}")),
        "filter_chains": [chain],
    });
    merge(
        &mut listener,
        section.get("listener").unwrap_or(&Value::Null),
    );
    listener
}

/// A map of name to the fields that differ, or a list of whole clusters.
fn all_clusters(value: &Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(list) => Ok(list.clone()),
        Value::Object(map) => Ok(map.iter().map(|(name, more)| cluster(name, more)).collect()),
        _ => bail!("clusters: neither a map nor a list"),
    }
}

/// `upstreams` names the servers (default: the one with the cluster's name); `http2: true`.
fn cluster(name: &str, more: &Value) -> Value {
    let mut more = more.as_object().cloned().unwrap_or_default();
    let servers = more.remove("upstreams").unwrap_or_else(|| json!([name]));
    let endpoints: Vec<Value> = servers
        .as_array()
        .into_iter()
        .flatten()
        .map(endpoint)
        .collect();
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    });
    if more.remove("http2").is_some() {
        let kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        let explicit = json!({"explicit_http_config": {"http2_protocol_options": {}}});
        let options = extension("", kind, &explicit)["typed_config"].clone();
        cluster["typed_extension_protocol_options"] = json!({kind: options});
    }
    merge(&mut cluster, &Value::Object(more));
    cluster
}

/// A name, or `{name, …}` with more fields of the endpoint.
fn endpoint(server: &Value) -> Value {
    let name = server
        .as_str()
        .or_else(|| server["name"].as_str())
        .unwrap_or_default();
    let mut made = json!({"endpoint": {"address": address(&format!("${{upstream.{name}}}"))}});
    if let Some(more) = server.as_object() {
        let mut more = more.clone();
        more.remove("name");
        merge(&mut made, &Value::Object(more));
    }
    made
}

/// Maps are merged, everything else is replaced; null takes away.
pub fn merge(into: &mut Value, from: &Value) {
    let (Some(target), Some(source)) = (into.as_object_mut(), from.as_object()) else {
        if !from.is_null() {
            *into = from.clone();
        }
        return;
    };
    for (key, value) in source {
        match target.get_mut(key) {
            _ if value.is_null() => {
                target.remove(key);
            }
            Some(old) if old.is_object() && value.is_object() => merge(old, value),
            _ => {
                target.insert(key.clone(), value.clone());
            }
        }
    }
}

fn fill(value: &mut Value, places: &BTreeMap<String, String>) -> Result<()> {
    match value {
        Value::String(text) if text.contains("${") => {
            let mut filled = text.clone();
            for (name, place) in places {
                filled = filled.replace(&format!("${{{name}}}"), place);
            }
            if filled.contains("${") {
                bail!("no value for a placeholder in {filled:?}");
            }
            let whole_port = text.starts_with("${") && text.ends_with('}');
            *value = match filled.parse::<u16>() {
                Ok(port) if whole_port => json!(port),
                _ => Value::String(filled),
            };
        }
        Value::Array(list) => list.iter_mut().try_for_each(|item| fill(item, places))?,
        Value::Object(map) => map.values_mut().try_for_each(|item| fill(item, places))?,
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_replaces_lists_and_removes_by_null() {
        let mut value = json!({"a": {"b": 1, "c": [1]}, "d": 2});
        merge(&mut value, &json!({"a": {"c": [2], "e": 3}, "d": null}));
        assert_eq!(value, json!({"a": {"b": 1, "c": [2], "e": 3}}));
    }

    #[test]
    fn a_port_becomes_a_number_and_a_missing_place_is_an_error() {
        let places = BTreeMap::from([("port.x".to_owned(), "80".to_owned())]);
        let mut value = json!({"p": "${port.x}", "t": "h:${port.x}"});
        fill(&mut value, &places).unwrap();
        assert_eq!(value, json!({"p": 80, "t": "h:80"}));
        assert!(fill(&mut json!("${nothing}"), &places).is_err());
    }
}
