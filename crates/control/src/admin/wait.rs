//! `GET /v1/wait`: is a generation acknowledged everywhere? And `GET /v1/proxies`.

use std::time::Duration;

use daemon::admin::{Request, Response, json};
use http::StatusCode;
use serde_json::{Value, json as value};

use super::{Surface, error};
use crate::serve::proxies::Proxy;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(600);

pub(super) async fn wait(surface: &Surface, request: &Request) -> Response {
    let generation = match request.query("generation").map(|text| text.parse::<u64>()) {
        Some(Ok(generation)) => generation,
        _ => return error(StatusCode::BAD_REQUEST, "generation must be a number"),
    };
    let timeout = match request.query("timeout").map(|text| duration(&text)) {
        None => DEFAULT_TIMEOUT,
        Some(Some(timeout)) => timeout.min(LONGEST_TIMEOUT),
        Some(None) => return error(StatusCode::BAD_REQUEST, "timeout must be like 30s or 500ms"),
    };
    let mut changes = surface.proxies.changes();
    let settled = async {
        loop {
            let proxies = surface.proxies.list();
            if proxies.iter().all(|proxy| is_settled(proxy, generation)) {
                return;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(timeout, settled).await;
    json(
        StatusCode::OK,
        report(generation, &surface.proxies.list()).to_string(),
    )
}

/// It has acknowledged everything, or it refuses something and nothing more is on its way.
fn is_settled(proxy: &Proxy, generation: u64) -> bool {
    proxy.synced >= generation
        || proxy.is_idle && !proxy.rejections.is_empty() && newest_seen(proxy) >= generation
}

/// The newest generation that all its types have been compared with.
fn newest_seen(proxy: &Proxy) -> u64 {
    proxy
        .types
        .values()
        .map(|(sent, _)| *sent)
        .min()
        .unwrap_or(0)
}

fn report(generation: u64, proxies: &[Proxy]) -> Value {
    let waiting: Vec<&str> = proxies
        .iter()
        .filter(|proxy| proxy.synced < generation)
        .map(|proxy| proxy.id.as_str())
        .collect();
    let rejected: Vec<Value> = proxies.iter().flat_map(rejections).collect();
    value!({
        "done": waiting.is_empty(),
        "generation": generation,
        "proxies": proxies.iter().map(|proxy| value!({
            "id": proxy.id,
            "generation": proxy.synced,
            "state": state(proxy, generation),
        })).collect::<Vec<_>>(),
        "waiting": waiting,
        "rejected": rejected,
    })
}

fn rejections(proxy: &Proxy) -> Vec<Value> {
    let rejection = |rejected: &crate::serve::proxies::Rejected| {
        value!({
            "id": proxy.id,
            "type": rejected.kind.short_name(),
            "name": rejected.name,
            "generation": rejected.generation,
            "message": rejected.message,
        })
    };
    proxy.rejections.iter().map(rejection).collect()
}

fn state(proxy: &Proxy, generation: u64) -> &'static str {
    match proxy {
        Proxy { synced, .. } if *synced >= generation => "synced",
        Proxy { rejections, .. } if !rejections.is_empty() => "rejected",
        Proxy { synced: 0, .. } => "starting",
        _ => "stale",
    }
}

pub(super) fn proxies(surface: &Surface) -> Response {
    let newest = surface
        .published
        .borrow()
        .as_ref()
        .map_or(0, |now| now.generation());
    let list: Vec<Value> = surface
        .proxies
        .list()
        .iter()
        .map(|proxy| describe(proxy, newest))
        .collect();
    json(
        StatusCode::OK,
        value!({ "generation": newest, "proxies": list }).to_string(),
    )
}

fn describe(proxy: &Proxy, newest: u64) -> Value {
    let types = proxy.types.iter().map(|(kind, (sent, acknowledged))| {
        let entry = value!({"sent": sent, "acknowledged": acknowledged});
        (kind.short_name().to_owned(), entry)
    });
    value!({
        "id": proxy.id,
        "node": proxy.node.id,
        "connection": proxy.connection,
        "namespace": proxy.view.namespace,
        "role": if proxy.view.is_router() { "router" } else { "sidecar" },
        "serviceAccount": proxy.view.service_account,
        "userAgent": proxy.node.user_agent_name,
        "version": version(proxy),
        "cluster": crate::debug::metadata_text(&proxy.node, "CLUSTER_ID").unwrap_or_default(),
        "control": "stolos-control",
        "address": proxy.address.to_string(),
        "connectedAt": proxy.connected_at.to_string(),
        "generation": proxy.synced,
        "state": state(proxy, newest),
        "types": types.collect::<serde_json::Map<String, Value>>(),
        "rejected": rejections(proxy),
    })
}

/// What the agent says of itself, else what the proxy says.
fn version(proxy: &Proxy) -> String {
    crate::debug::metadata_text(&proxy.node, "ISTIO_VERSION").unwrap_or_default()
}

/// `30s`, `500ms`, `2m`, or a number of seconds.
fn duration(text: &str) -> Option<Duration> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, want) in [
            ("30s", Some(30_000)),
            ("500ms", Some(500)),
            ("2m", Some(120_000)),
            ("7", Some(7000)),
            ("", None),
            ("s", None),
            ("1h", None),
            ("-1s", None),
        ] {
            assert_eq!(duration(text), want.map(Duration::from_millis), "{text}");
        }
    }
}
