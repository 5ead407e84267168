//! Verdicts over policies written as Istio emits them.

use std::rc::Rc;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::stream_info::{Connection, TlsPeer};

fn rules(value: serde_json::Value) -> Rbac {
    let message = envoy_api::json::from_json::<rbac::Rbac>(value).expect("a message");
    let mut context = Context::new();
    let parsed = Rbac::parse(&mut context, &message).expect("rules");
    assert!(!context.has_problems(), "{context:?}");
    parsed
}

fn stream(principal: Option<&str>) -> StreamInfo {
    let mut connection = Connection::plain(
        1,
        ([10, 0, 0, 1], 8080).into(),
        ([192, 168, 1, 5], 40_000).into(),
    );
    connection.tls = principal.map(|name| {
        Arc::new(TlsPeer {
            verified: true,
            uri_sans: vec![name.to_owned()],
            ..TlsPeer::default()
        })
    });
    connection.requested_server_name = Some("sni.example".into());
    StreamInfo::new(Rc::new(connection), None)
}

#[test]
fn permissions_and_principals() {
    let any = || json!({"any": true});
    let id = "spiffe://cluster.local/ns/foo/sa/bar";
    let exact = |text: &str| json!({"exact": text});
    let cases = [
        (any(), any(), true, "anyone may"),
        (json!({"notRule": any()}), any(), false, "not"),
        (
            json!({"header": {"name": ":method", "stringMatch": exact("GET")}}),
            any(),
            true,
            "method",
        ),
        (
            json!({"header": {"name": ":authority", "stringMatch":
            {"exact": "A.COM", "ignoreCase": true}}}),
            any(),
            true,
            "host",
        ),
        (
            json!({"urlPath": {"path": exact("/p")}}),
            any(),
            true,
            "path without its query",
        ),
        (
            json!({"urlPath": {"path": {"prefix": "/x"}}}),
            any(),
            false,
            "another path",
        ),
        (json!({"destinationPort": 8080}), any(), true, "port"),
        (json!({"destinationPort": 80}), any(), false, "another port"),
        (
            json!({"destinationIp": {"addressPrefix": "10.0.0.0", "prefixLen": 8}}),
            any(),
            true,
            "ip",
        ),
        (
            json!({"requestedServerName": exact("sni.example")}),
            any(),
            true,
            "server name",
        ),
        (
            json!({"andRules": {"rules": [any(), {"destinationPort": 1}]}}),
            any(),
            false,
            "and",
        ),
        (
            json!({"orRules": {"rules": [{"destinationPort": 1}, any()]}}),
            any(),
            true,
            "or",
        ),
        (
            any(),
            json!({"authenticated": {"principalName": exact(id)}}),
            true,
            "identity",
        ),
        (
            any(),
            json!({"authenticated": {"principalName": exact("spiffe://x")}}),
            false,
            "other",
        ),
        (any(), json!({"authenticated": {}}), true, "any identity"),
        (
            any(),
            json!({"notId": {"authenticated": {"principalName": {"safeRegex":
            {"regex": ".*/ns/foo/.*"}}}}}),
            false,
            "not from the namespace",
        ),
        (
            any(),
            json!({"directRemoteIp": {"addressPrefix": "192.168.0.0", "prefixLen": 16}}),
            true,
            "source",
        ),
        (
            any(),
            json!({"remoteIp": {"addressPrefix": "1.2.3.4", "prefixLen": 32}}),
            false,
            "client",
        ),
        (
            any(),
            json!({"metadata": {"filter": "x", "path": [{"key": "k"}],
            "value": {"stringMatch": exact("v")}}}),
            false,
            "no metadata",
        ),
        (
            any(),
            json!({"filterState": {"key": "io.istio.peer_principal",
            "stringMatch": exact(id)}}),
            true,
            "Istio's newer identity",
        ),
    ];
    for (permission, principal, want, why) in cases {
        let rules = rules(
            json!({"action": "ALLOW", "policies": {"ns[foo]-policy[p]-rule[0]":
            {"permissions": [permission], "principals": [principal]}}}),
        );
        let stream = stream(Some(id));
        let head = RequestHead::new("GET", "a.com", "/p?q=1");
        let verdict = rules.evaluate(&Facts {
            stream: &stream,
            request: Some(&head),
        });
        assert_eq!(verdict.allowed, want, "{why}");
    }
}

#[test]
fn actions_and_details() {
    let policy = json!({"permissions": [{"any": true}],
        "principals": [{"authenticated": {"principalName": {"prefix": "spiffe://"}}}]});
    for (action, principal, allowed, details, why) in [
        ("ALLOW", Some("spiffe://a"), true, "[a_b]", "matched"),
        ("ALLOW", None, false, "[none]", "plain text is nobody"),
        ("DENY", Some("spiffe://a"), false, "[a_b]", "matched"),
        ("DENY", None, true, "[none]", "not matched"),
        ("LOG", None, true, "[none]", "never denies"),
    ] {
        let rules = rules(json!({"action": action, "policies": {"a b": policy}}));
        let verdict = rules.evaluate(&Facts {
            stream: &stream(principal),
            request: None,
        });
        assert_eq!(verdict.allowed, allowed, "{action}: {why}");
        let want = format!("rbac_access_denied_matched_policy{details}");
        assert_eq!(verdict.details(), want, "{action}: {why}");
    }
    let none = rules(json!({"action": "ALLOW"}));
    let verdict = none.evaluate(&Facts {
        stream: &stream(None),
        request: None,
    });
    assert!(!verdict.allowed, "no policy allows nobody");
}

#[test]
fn http_rules_on_a_connection_match_nothing() {
    for permission in [
        json!({"header": {"name": ":method", "stringMatch": {"exact": "GET"}}}),
        json!({"urlPath": {"path": {"prefix": "/"}}}),
    ] {
        let rules = rules(json!({"policies": {"p":
            {"permissions": [permission], "principals": [{"any": true}]}}}));
        let verdict = rules.evaluate(&Facts {
            stream: &stream(None),
            request: None,
        });
        assert!(!verdict.allowed, "{permission}");
    }
}

#[test]
fn deep_nesting_is_refused() {
    let mut permission = rbac::Permission {
        rule: Some(permission::Rule::Any(true)),
    };
    for _ in 0..200 {
        permission = rbac::Permission {
            rule: Some(permission::Rule::NotRule(Box::new(permission))),
        };
    }
    let policy = rbac::Policy {
        permissions: vec![permission],
        principals: vec![rbac::Principal {
            identifier: Some(principal::Identifier::Any(true)),
        }],
        ..Default::default()
    };
    let message = rbac::Rbac {
        policies: [("p".to_owned(), policy)].into(),
        ..Default::default()
    };
    let mut context = Context::new();
    Rbac::parse(&mut context, &message);
    assert!(context.has_problems(), "nested too deep");
}
