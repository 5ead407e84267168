//! Endpoints over a picture made by hand.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::*;
use crate::parse::Environment;

fn raw<M: prost::Message>(message: &M, is_static: bool) -> RawPicture {
    RawPicture {
        body: message.encode_to_vec().into(),
        version: "v1".into(),
        updated: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
        is_static,
    }
}

fn picture() -> Picture {
    let cluster = envoy_api::cluster::Cluster {
        name: "echo".into(),
        ..Default::default()
    };
    let listener = envoy_api::json::from_json::<envoy_api::listener::Listener>(serde_json::json!({
        "name": "l1",
        "address": {"socketAddress": {"address": "127.0.0.1", "portValue": 80}},
        "filterChains": [{}],
    }))
    .expect("listener");
    let secret = envoy_api::json::from_json::<envoy_api::tls::Secret>(serde_json::json!({
        "name": "default",
        "tlsCertificate": {"certificateChain": {"inlineString": "chain"},
            "privateKey": {"inlineString": "very secret"}},
    }))
    .expect("secret");
    let environment = Environment::default();
    environment
        .stats
        .counter("cluster.echo.upstream_rq_total")
        .add(3);
    environment.stats.counter("cluster.echo.unused");
    let parsed = crate::parse::listener::listener(&listener, &environment).expect("parses");
    Picture {
        bootstrap: Arc::default(),
        environment,
        started: SystemTime::now(),
        clusters: vec![ClusterPicture {
            config: Arc::new(crate::parse::cluster::cluster(&cluster).expect("parses")),
            block: None,
            endpoints: Arc::default(),
            raw: raw(&cluster, false),
            warming: false,
        }],
        listeners: vec![ListenerPicture {
            config: Arc::new(parsed),
            addresses: vec![([127, 0, 0, 1], 80).into()],
            raw: raw(&listener, true),
            warming: false,
        }],
        routes: Vec::new(),
        endpoints: Vec::new(),
        secrets: vec![ResourcePicture {
            name: "default".into(),
            raw: raw(&secret, false),
        }],
        runtime: vec![("a.b".into(), "1".into())],
        concurrency: 1,
        ready: true,
        draining: false,
        failed: false,
        drain_time: Duration::from_secs(600),
    }
}

fn ask(path: &str) -> Answer {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let query = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    read(path, &query, &picture())
}

#[test]
fn answers() {
    for (path, status, part) in [
        ("/ready", 200, "LIVE\n"),
        ("/listeners", 200, "l1::127.0.0.1:80\n"),
        ("/listeners?format=json", 200, "\"port_value\": 80"),
        ("/clusters", 200, "echo::default_priority::max_retries::3\n"),
        ("/clusters", 200, "echo::added_via_api::true\n"),
        ("/clusters?format=json", 200, "\"name\": \"echo\""),
        (
            "/stats?usedonly",
            200,
            "cluster.echo.upstream_rq_total: 3\n",
        ),
        ("/stats?format=json&usedonly", 200, "\"value\":3"),
        ("/stats?filter=(", 400, "Invalid regex"),
        ("/stats?format=xml", 400, "usage"),
        (
            "/stats/prometheus?usedonly",
            200,
            "envoy_cluster_upstream_rq_total{envoy_cluster_name=\"echo\"} 3\n",
        ),
        ("/server_info", 200, "\"state\": \"LIVE\""),
        ("/memory", 200, "total_physical_bytes"),
        ("/runtime", 200, "\"final_value\": \"1\""),
        ("/certs", 200, "certificates"),
        ("/config_dump", 200, "envoy.admin.v3.BootstrapConfigDump"),
        (
            "/config_dump?resource=dynamic_active_clusters",
            200,
            "\"version_info\": \"v1\"",
        ),
        ("/config_dump?resource=nonsense", 404, "not found"),
        ("/config_dump?name_regex=(", 400, "name_regex"),
        ("/nonsense", 404, "invalid path"),
    ] {
        let answer = ask(path);
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(
            answer.body.contains(part),
            "{path} without {part}: {}",
            answer.body
        );
    }
}

#[test]
fn keeps_secrets() {
    let dump = ask("/config_dump").body;
    assert!(
        dump.contains("[redacted]") && !dump.contains("very secret"),
        "{dump}"
    );
}

#[test]
fn masks_fields() {
    let body = ask("/config_dump?resource=dynamic_active_clusters&mask=cluster.name").body;
    assert!(
        body.contains("echo") && !body.contains("version_info"),
        "{body}"
    );
}

#[test]
fn commands_by_path() {
    for path in COMMAND_PATHS {
        assert!(command(path, &Query::new()).is_some(), "{path}");
    }
    assert_eq!(command("/stats", &Query::new()), None);
    let query = Query::from([("inboundonly".to_owned(), String::new())]);
    assert_eq!(
        command("/drain_listeners", &query),
        Some(Command::DrainListeners {
            inbound_only: true,
            graceful: false
        })
    );
}
