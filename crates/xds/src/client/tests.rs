//! Scripted streams: what the client writes after each event, delta and state of the world.

use super::*;
use crate::wire::{Outgoing, encode_delta, encode_full};
use envoy_api::Resource;
use envoy_api::cluster::Cluster;
use prost::Message;

fn resource(kind: ResourceType, name: &str, version: &str) -> Resource {
    // A cluster and every other type have their name in field 1.
    let body = Cluster {
        name: name.into(),
        ..Default::default()
    }
    .encode_to_vec()
    .into();
    Resource {
        kind,
        name: name.into(),
        version: version.into(),
        body,
    }
}

fn names(names: &[&str]) -> Interest {
    Interest::Names(names.iter().map(|name| (*name).to_owned()).collect())
}

fn client(mode: Mode) -> Client {
    Client::new(
        Node {
            id: "n".into(),
            ..Default::default()
        },
        mode,
        Service::Aggregated,
    )
}

fn respond(client: &mut Client, nonce: &str, resources: &[Resource], removed: &[&str]) -> Update {
    let removed: Vec<String> = removed.iter().map(|name| (*name).to_owned()).collect();
    let kind = resources
        .first()
        .map_or(ResourceType::Cluster, |resource| resource.kind);
    let outgoing = Outgoing {
        kind,
        version: nonce,
        nonce,
        resources,
        removed: &removed,
    };
    let bytes = match client.mode {
        Mode::Delta => encode_delta(&outgoing),
        Mode::StateOfTheWorld => encode_full(&outgoing),
    };
    client
        .received(bytes.concat().into())
        .expect("a good response")
}

/// `TYPE +subscribed -unsubscribed {initial versions} ack/nack:nonce` of each request.
fn script(client: &mut Client) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(request) = client.next_request() {
        let (url, rest, nonce, error, node) = match request {
            Request::Delta(request) => (
                request.type_url,
                format!(
                    "+{} -{} {:?}",
                    request.resource_names_subscribe.join(","),
                    request.resource_names_unsubscribe.join(","),
                    request.initial_resource_versions,
                ),
                request.response_nonce,
                request.error_detail,
                request.node,
            ),
            Request::Full(request) => (
                request.type_url,
                format!(
                    "={} v{}",
                    request.resource_names.join(","),
                    request.version_info
                ),
                request.response_nonce,
                request.error_detail,
                request.node,
            ),
        };
        let kind = ResourceType::from_type_url(&url).map_or(url, |kind| kind.to_string());
        let error = error
            .map(|error| format!(" error:{}", error.message))
            .unwrap_or_default();
        let node = if node.is_some() { " node" } else { "" };
        lines.push(format!("{kind} {rest} n:{nonce}{error}{node}"));
    }
    lines
}

#[test]
fn delta_stream_with_reconnect() {
    let mut client = client(Mode::Delta);
    client.subscribe(ResourceType::Cluster, Interest::Wildcard);
    client.subscribe(ResourceType::Endpoint, names(&[]));
    assert!(
        script(&mut client).is_empty(),
        "nothing is written before a stream is open"
    );
    client.connected();
    assert_eq!(
        script(&mut client),
        ["CDS + - {} n: node"],
        "no name: wildcard; EDS not yet"
    );

    let cds = ResourceType::Cluster;
    let update = respond(
        &mut client,
        "1",
        &[resource(cds, "a", "1"), resource(cds, "b", "1")],
        &[],
    );
    assert!(script(&mut client).is_empty(), "nothing before accept");
    client.accept(&update);
    client.subscribe(ResourceType::Endpoint, names(&["a", "b"]));
    assert_eq!(
        script(&mut client),
        ["CDS + - {} n:1", "EDS +a,b - {} n:"],
        "ACK goes first"
    );

    let update = respond(&mut client, "2", &[resource(cds, "a", "2")], &["b"]);
    client.reject(&update, "bad a".into());
    assert_eq!(script(&mut client), ["CDS + - {} n:2 error:bad a"]);
    client.subscribe(ResourceType::Endpoint, names(&["b", "c"]));
    assert_eq!(
        script(&mut client),
        ["EDS +c -a {} n:"],
        "only the difference"
    );

    let eds = ResourceType::Endpoint;
    let update = respond(&mut client, "3", &[resource(eds, "b", "7")], &[]);
    client.disconnected();
    client.connected();
    let want = [r#"CDS + - {"a": "1", "b": "1"} n: node"#];
    assert_eq!(
        script(&mut client),
        want,
        "EDS waits until its last update is answered"
    );
    client.accept(&update);
    assert_eq!(script(&mut client), [r#"EDS +b,c - {"b": "7"} n:"#]);
    client.disconnected();
    client.connected();
    let want = [
        r#"CDS + - {"a": "1", "b": "1"} n: node"#,
        r#"EDS +b,c - {"b": "7"} n:"#,
    ];
    assert_eq!(
        script(&mut client),
        want,
        "held: what was accepted, even after the stream's end"
    );
    client.accept(&update);
    assert!(
        script(&mut client).is_empty(),
        "no acknowledgement on another stream"
    );

    let update = respond(&mut client, "4", &[], &["b"]);
    client.accept(&update);
    client.connected();
    assert_eq!(
        script(&mut client)[0],
        r#"CDS + - {"a": "1"} n: node"#,
        "b is gone"
    );
}

#[test]
fn delta_changes_between_names_and_wildcard() {
    let mut client = client(Mode::Delta);
    client.subscribe(ResourceType::Listener, names(&["a"]));
    client.connected();
    assert_eq!(script(&mut client), ["LDS +a - {} n: node"]);
    client.subscribe(ResourceType::Listener, Interest::Wildcard);
    assert_eq!(script(&mut client), ["LDS +* -a {} n:"]);
    client.subscribe(ResourceType::Listener, names(&["b"]));
    assert_eq!(script(&mut client), ["LDS +b -* {} n:"]);
}

#[test]
fn full_stream_with_reconnect() {
    let mut client = client(Mode::StateOfTheWorld);
    let (cds, eds) = (ResourceType::Cluster, ResourceType::Endpoint);
    client.subscribe(cds, Interest::Wildcard);
    client.connected();
    assert_eq!(script(&mut client), ["CDS = v n: node"]);
    let update = respond(
        &mut client,
        "1",
        &[resource(cds, "a", ""), resource(cds, "b", "")],
        &[],
    );
    client.accept(&update);
    client.subscribe(eds, names(&["a"]));
    assert_eq!(script(&mut client), ["CDS = v1 n:1", "EDS =a v n:"]);

    let update = respond(&mut client, "2", &[resource(cds, "c", "")], &[]);
    assert_eq!(update.removed, ["a", "b"], "what vanished is named");
    client.reject(&update, "no".into());
    assert_eq!(
        script(&mut client),
        ["CDS = v1 n:2 error:no"],
        "a NACK keeps the old version"
    );

    let update = respond(&mut client, "3", &[resource(eds, "a", "")], &[]);
    client.subscribe(eds, names(&["a", "z"]));
    assert_eq!(
        script(&mut client),
        ["EDS =a,z v n:"],
        "an unread response is not acknowledged"
    );
    client.accept(&update);
    assert_eq!(script(&mut client), ["EDS =a,z v3 n:3"]);

    client.disconnected();
    client.connected();
    let want = ["CDS = v1 n: node", "EDS =a,z v3 n:"];
    assert_eq!(
        script(&mut client),
        want,
        "the versions outlive the stream, nonces do not"
    );
}

#[test]
fn refuses_types_that_it_did_not_ask_for() {
    let mut client = client(Mode::Delta);
    client.connected();
    let bytes = encode_delta(&Outgoing {
        kind: ResourceType::Route,
        version: "1",
        nonce: "9",
        resources: &[],
        removed: &[],
    });
    let error = client
        .received(bytes.concat().into())
        .expect_err("not asked for");
    assert!(matches!(error, ClientError::Unasked(_)), "{error}");
    let want = [format!("RDS + - {{}} n:9 error:{error} node")].map(|line| {
        line.replace("the server sent ", "")
            .replace(", which was", " was")
    });
    assert_eq!(script(&mut client), want);
}

#[test]
fn what_was_given_up_and_is_wanted_again_is_asked_for_again() {
    for (mode, want) in [
        (Mode::Delta, vec!["EDS +a - {} n:"]),
        (
            Mode::StateOfTheWorld,
            vec!["EDS =b v1 n:1", "EDS =a,b v1 n:1"],
        ),
    ] {
        let mut client = client(mode);
        let eds = ResourceType::Endpoint;
        client.subscribe(eds, names(&["a", "b"]));
        client.connected();
        script(&mut client);
        let update = respond(&mut client, "1", &[resource(eds, "a", "1")], &[]);
        client.accept(&update);
        script(&mut client);
        client.subscribe(eds, names(&["b"]));
        client.subscribe(eds, names(&["a", "b"]));
        assert_eq!(script(&mut client), want, "{mode:?}");
        assert!(script(&mut client).is_empty(), "{mode:?}: once");
    }
}
