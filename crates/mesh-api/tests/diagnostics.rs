//! What a user reads when a file is wrong: place, field path, and what would be right.

// A helper of a test may panic as a test may.
#![allow(clippy::unwrap_used)]

use mesh_api::parse::{ParseOptions, parse};
use mesh_api::{Diagnostic, Kind, Reason, Spec, validate};

fn all(text: &str) -> Vec<Diagnostic> {
    let parsed = parse("f.yaml", text, &ParseOptions::default());
    let mut found = parsed.diagnostics;
    for object in &parsed.objects {
        found.extend(validate::validate(object));
    }
    found
}

fn shown(text: &str) -> Vec<String> {
    all(text).iter().map(ToString::to_string).collect()
}

/// A VirtualService whose spec is `spec`, which starts in line 5.
fn virtual_service(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec:\n\
         {spec}"
    )
}

#[test]
fn each_sort_of_mistake_has_place_path_and_remedy() {
    let route = "  hosts: [a]\n  http:\n  - route:\n    - destination: {host: b}\n";
    for (text, want, why) in [
        (
            "a: [1, 2\nb: 3\n".to_owned(),
            "f.yaml:2:2: error: illegal placement of",
            "syntax",
        ),
        (
            virtual_service(&format!("{route}      wieght: 5\n")),
            "f.yaml:9:7: error: spec.http[0].route[0].wieght: unknown field `wieght`, did you \
             mean `weight`? (allowed: destination, weight, headers)",
            "unknown field",
        ),
        (
            virtual_service(&format!("{route}      weight: heavy\n")),
            "f.yaml:9:15: error: spec.http[0].route[0].weight: expected a whole number, found a \
             string",
            "wrong type",
        ),
        (
            virtual_service(&format!("{route}    timeout: 5\n")),
            "f.yaml:9:14: error: spec.http[0].timeout: expected a duration such as \"1.5s\", \
             found a number",
            "a duration without unit",
        ),
        (
            virtual_service(&format!("{route}    timeout: 5x\n")),
            "f.yaml:9:14: error: spec.http[0].timeout: not a duration: \"5x\" has an unknown \
             unit (allowed: a number with a unit: 500ms, 1.5s, 2m, 1h30m)",
            "a duration with an unknown unit",
        ),
        (
            virtual_service(&format!(
                "{route}    match: [{{uri: {{exact: /, prefix: /}}}}]\n"
            )),
            "f.yaml:9:30: error: spec.http[0].match[0].uri.prefix: only one of these may be set \
             (allowed: exact | prefix | regex)",
            "two of a group",
        ),
        (
            virtual_service("  hosts: [a]\n  http:\n  - route: []\n"),
            "f.yaml:7:5: error: spec.http[0]: one of route, redirect and directResponse must be \
             set",
            "a rule of the kind",
        ),
        (
            "apiVersion: networking.istio.io/v2\nkind: Gateway\nmetadata: {name: a}\n".to_owned(),
            "f.yaml:1:13: error: apiVersion: Gateway has no version v2 (allowed: v1, v1beta1, \
             v1alpha3)",
            "a version",
        ),
        (
            "apiVersion: v1\nkind: Servce\nmetadata: {name: a}\n".to_owned(),
            "f.yaml:2:7: error: kind: the kind Servce of v1 is not supported, did you mean \
             `Service`? (allowed: ",
            "a kind",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: 1}\n".to_owned(),
            "f.yaml:4:11: error: data.a: expected a string, found a number (quote it)",
            "a number where Kubernetes wants a string",
        ),
        (
            "kind: ConfigMap\nmetadata: {name: a}\n".to_owned(),
            "f.yaml:1:1: error: apiVersion: `apiVersion` is missing",
            "no version",
        ),
        (
            virtual_service("  hosts: [a]\n  hosts: [b]\n"),
            "f.yaml:6:3: error: the key `hosts` is given twice",
            "a key twice",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  \
             - {name: a, image: b}\n  volumes:\n  - name: x\n    projected: {}\n"
                .to_owned(),
            "f.yaml:9:5: error: spec.volumes[0].projected: is not performed by this release \
             (this kind of volume)",
            "a volume that is refused by name",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  \
             - {name: a, image: b, resources: {limits: {cpu: 1}}}\n"
                .to_owned(),
            "f.yaml:6:25: warning: spec.containers[0].resources: is not performed by this \
             release (limits of resources)",
            "a field that is warned of",
        ),
    ] {
        let found = shown(&text);
        assert!(
            found.iter().any(|line| line.starts_with(want)),
            "{why}: {found:#?}"
        );
    }
}

#[test]
fn all_mistakes_of_a_document_are_collected() {
    let text = virtual_service(
        "  host: [a]\n  http:\n  - rout: []\n    timeout: x\n    retries: {attempts: many}\n",
    );
    let paths: Vec<String> = all(&text).into_iter().map(|d| d.path).collect();
    let want = [
        "spec.host",
        "spec.http[0].rout",
        "spec.http[0].timeout",
        "spec.http[0].retries.attempts",
    ];
    assert_eq!(paths, want);
}

#[test]
fn a_bad_document_does_not_cost_its_neighbours() {
    let good =
        |name: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n");
    let text = format!("{}---\nkind: [\n---\n{}", good("a"), good("b"));
    let parsed = parse("f.yaml", &text, &ParseOptions::default());
    let names: Vec<&str> = parsed
        .objects
        .iter()
        .map(|o| o.meta.name.as_str())
        .collect();
    assert!(names.contains(&"a"), "{names:?}");
    assert!(parsed.has_errors());
    let text = format!("{}data: {{}}\ndata: {{}}\n---\n{}", good("a"), good("b"));
    let parsed = parse("f.yaml", &text, &ParseOptions::default());
    let names: Vec<&str> = parsed
        .objects
        .iter()
        .map(|o| o.meta.name.as_str())
        .collect();
    assert_eq!(names, ["b"], "an ambiguous document is not taken");
}

#[test]
fn security_kinds_are_refused_where_a_condition_would_be_ignored() {
    let policy = |spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: a}}\n\
             spec: {spec}\n"
        )
    };
    for (spec, path, why) in [
        ("{action: AUDIT, rules: [{}]}", "spec.action", "an action"),
        (
            "{action: CUSTOM, provider: {name: x}, rules: [{}]}",
            "spec.provider",
            "a provider",
        ),
        (
            "{rules: [{from: [{source: {requestPrincipals: [x]}}]}]}",
            "spec.rules[0].from[0].source.requestPrincipals",
            "tokens",
        ),
        (
            "{rules: [{when: [{key: \"request.auth.claims[a]\", values: [x]}]}]}",
            "spec.rules[0].when[0].key",
            "claims",
        ),
        (
            "{targetRefs: [{kind: Service, name: x}], rules: [{}]}",
            "spec.targetRefs",
            "targets",
        ),
    ] {
        let found = all(&policy(spec));
        let hit = found
            .iter()
            .find(|d| d.path == path && d.reason == Reason::NotPerformed);
        assert!(hit.is_some_and(Diagnostic::is_error), "{why}: {found:#?}");
    }
    let performed = "{rules: [{from: [{source: {principals: [a], notIpBlocks: [10.0.0.0/8], \
                     remoteIpBlocks: [1.1.1.1], trustDomains: [x]}}], to: [{operation: {hosts: \
                     [a], methods: [GET], paths: [/x/*], ports: [\"80\"]}}], when: [{key: \
                     source.namespace, values: [x]}, {key: \"request.headers[a]\", values: [b]}, \
                     {key: connection.sni, values: [c]}]}]}";
    assert_eq!(shown(&policy(performed)), Vec::<String>::new());
    let tokens = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: \
                  {name: a}\nspec: {}\n";
    assert!(all(tokens).iter().any(Diagnostic::is_error), "a whole kind");
}

#[test]
fn leniency_is_istios_and_no_more() {
    for (spec, good, why) in [
        (
            "  hosts: [a]\n  http: [{direct_response: {status: 200}}]\n",
            true,
            "snake_case",
        ),
        (
            "  hosts: [a]\n  http: [{directResponse: {status: 200}}]\n",
            true,
            "camelCase",
        ),
        (
            "  hosts: [a]\n  http: [{directResponse: {status: 200.0}}]\n",
            true,
            "a whole float",
        ),
        (
            "  hosts: [a]\n  http: [{directResponse: {status: \"200\"}}]\n",
            false,
            "quoted int32",
        ),
        (
            "  hosts: a\n  http: [{directResponse: {status: 200}}]\n",
            false,
            "no list",
        ),
        (
            "  hosts: [a]\n  exportTo: null\n  http: [{directResponse: {status: 200}}]\n",
            true,
            "null is unset",
        ),
        (
            "  hosts: [a]\n  export_to: []\n  exportTo: []\n  http: [{directResponse: {status: \
             200}}]\n",
            false,
            "both spellings",
        ),
    ] {
        let found = all(&virtual_service(spec));
        assert_eq!(
            !found.iter().any(Diagnostic::is_error),
            good,
            "{why}: {found:#?}"
        );
    }
    let text = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\n\
                spec: {host: b, trafficPolicy: {loadBalancer: {consistentHash: {ringHash: \
                {minimumRingSize: \"10\"}, useSourceIp: true}}}}\nstatus: {anything: [1]}\n";
    assert_eq!(
        shown(text),
        Vec::<String>::new(),
        "a quoted uint64, and a status"
    );
}

#[test]
fn objects_get_namespaces_and_times() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n  \
                metadata: {name: x}\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: z, \
                creationTimestamp: \"2026-01-02T03:04:05Z\", resourceVersion: \"7\"}\n";
    let options = ParseOptions {
        default_namespace: "prod".to_owned(),
    };
    let parsed = parse("f.yaml", text, &options);
    assert_eq!(parsed.diagnostics, Vec::new());
    let keys: Vec<String> = parsed.objects.iter().map(|o| o.key().to_string()).collect();
    assert_eq!(keys, ["Namespace//x", "ConfigMap/prod/z"]);
    let meta = &parsed.objects[1].meta;
    assert_eq!(
        (meta.creation_timestamp, meta.resource_version),
        (Some(1_767_323_045), 7)
    );
    assert_eq!(meta.kind, Kind::ConfigMap);
    assert!(matches!(parsed.objects[1].spec, Spec::ConfigMap(_)));
}

#[test]
fn hostile_documents_end_soon() {
    let many = |one: &str, count: usize| one.repeat(count);
    let long_key = "k".repeat(200_000);
    for (text, why) in [
        (
            virtual_service(&format!("  hosts: [{}]\n", many("a, ", 200_000))),
            "many hosts",
        ),
        (
            virtual_service(&format!("  {{{}}}\n", many("a_b: 1, ", 1000))),
            "equal unknown fields",
        ),
        (
            virtual_service(
                &(0..50_000)
                    .map(|n| format!("  unknown_{n}: 1\n"))
                    .collect::<String>(),
            ),
            "many unknown fields",
        ),
        (
            virtual_service(&format!("  ? {long_key}\n  : 1\n")),
            "a long key",
        ),
        (
            virtual_service(&format!("  http: [{}]\n", many("{}, ", 20_000))),
            "many routes",
        ),
        (
            format!("{}\n", many("---\n- a\n", 20_000)),
            "many documents",
        ),
        (many("[{a: ", 20_000), "deep nesting"),
        ("\u{0}\u{1}\u{feff}".to_owned(), "control characters"),
        (
            "%YAML 9.9\n---\na: !<tag:x> {<<: [*y]}\n".to_owned(),
            "directives and tags",
        ),
    ] {
        let parsed = parse("f.yaml", &text, &ParseOptions::default());
        assert!(parsed.has_errors(), "{why}");
        assert!(parsed.diagnostics.len() < 25_000, "{why}");
        assert!(
            parsed
                .diagnostics
                .iter()
                .all(|d| d.to_string().len() < 4_000),
            "{why}"
        );
    }
}

/// Documents with most of what the kinds in force can hold.
const SEED: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, labels: {x: y}}
spec:
  hosts: [\"*.a.com\", b]
  gateways: [mesh, ns/gw]
  http:
  - name: n
    match: [{uri: {regex: \"/x.*\"}, headers: {h: {exact: v}}, port: 80}]
    route: [{destination: {host: b, subset: s, port: {number: 80}}, weight: 5}]
    fault: {delay: {fixedDelay: 1s, percentage: {value: 10}}}
    retries: {attempts: 3, perTryTimeout: 2s, retryOn: \"5xx,503\"}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p}
spec: &anchor
  rules:
  - from: [{source: {principals: [\"a/*\"], ipBlocks: [10.0.0.0/8]}}]
    to: [{operation: {paths: [\"/a/{*}/{**}\"], ports: [\"80\"]}}]
    when: [{key: \"request.headers[x]\", values: [y]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d}
spec:
  host: b
  trafficPolicy:
    loadBalancer: {consistentHash: {httpCookie: {name: c, ttl: 0s}, maglev: {tableSize: 65537}}}
    tls: {mode: MUTUAL, clientCertificate: a, privateKey: b}
";

#[test]
fn damaged_documents_never_panic() {
    let pieces: Vec<&[u8]> = vec![
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b"- ",
        b"*",
        b"&a ",
        b"*a",
        b"<<: ",
        b"\n",
        b"\t",
        b"'",
        b"\"",
        b"|",
        b"!",
        b"%",
        b"null",
        b"~",
        b"-1",
        b"1e999",
        b"\xc3\xbc",
        b"0x",
        b"{**}",
    ];
    let mut state: u64 = 0x2545_f491_4f6c_dd1d;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for _ in 0..3000 {
        let mut bytes = SEED.as_bytes().to_vec();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes.truncate(at.max(1)),
                1 => drop(bytes.drain(at..(at + 1 + random(8)).min(bytes.len()))),
                _ => {
                    let piece = pieces[random(pieces.len())];
                    bytes.splice(at..at, piece.iter().copied());
                }
            }
            if bytes.is_empty() {
                bytes.push(b'a');
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let parsed = parse("f.yaml", &text, &ParseOptions::default());
        for object in &parsed.objects {
            let found = validate::validate(object);
            assert!(found.iter().all(|d| !d.to_string().is_empty()));
            let again = object.to_json().to_string();
            let again = parse("again", &again, &ParseOptions::default());
            assert_eq!(again.objects.first(), Some(object), "{text}");
        }
        mesh_api::analyze::analyze(&parsed.objects, &Default::default());
    }
}
