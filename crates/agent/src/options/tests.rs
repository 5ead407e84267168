//! From environment and flags to options.

use super::*;

pub(crate) fn environment(more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let base = [
        ("POD_NAME", "reviews-v1-x"),
        ("POD_NAMESPACE", "default"),
        ("INSTANCE_IP", "10.0.0.7"),
        ("SERVICE_ACCOUNT", "bookinfo-reviews"),
        ("ISTIO_META_WORKLOAD_NAME", "reviews-v1"),
        (
            "ISTIO_METAJSON_LABELS",
            r#"{"app":"reviews","version":"v1"}"#,
        ),
    ];
    let all = base
        .iter()
        .chain(more)
        .map(|(name, value)| (name.to_string(), value.to_string()));
    all.collect()
}

fn parse(arguments: &[&str], more: &[(&str, &str)]) -> Result<Options, AgentError> {
    let arguments: Vec<String> = arguments.iter().map(|text| text.to_string()).collect();
    Options::parse(Role::Sidecar, &arguments, &environment(more))
}

#[test]
fn defaults_are_istios() {
    let options = parse(&[], &[]).unwrap();
    assert_eq!(
        options.node_id(),
        "sidecar~10.0.0.7~reviews-v1-x.default~default.svc.cluster.local"
    );
    assert_eq!(
        options.id.to_string(),
        "spiffe://cluster.local/ns/default/sa/bookinfo-reviews"
    );
    assert_eq!(options.discovery.address, "istiod.istio-system.svc:15012");
    assert_eq!(options.discovery, options.authority);
    assert_eq!(options.pod.labels["version"], "v1");
    assert_eq!(options.metadata["WORKLOAD_NAME"], "reviews-v1");
    assert_eq!(
        options.paths.xds_socket(),
        PathBuf::from("./etc/istio/proxy/XDS")
    );
    assert_eq!((options.ports.status, options.dns.is_on), (15020, false));
    assert_eq!(options.engine, Engine::Stolos);
}

#[test]
fn settings() {
    let config = r#"{"discoveryAddress":"10.9.9.9:15012","proxyMetadata":
        {"ISTIO_META_DNS_CAPTURE":"true","SECRET_TTL":"1h"}}"#;
    let options = parse(
        &[
            "--domain",
            "x.svc.cluster.local",
            "--configPath=/run/p",
            "--proxyLogLevel=debug",
        ],
        &[
            ("PROXY_CONFIG", config),
            ("STOLOS_PROXY", "envoy"),
            ("STOLOS_ENVOY_PATH", "/e"),
        ],
    )
    .unwrap();
    assert_eq!(
        options.discovery.name, "istiod.istio-system.svc",
        "an IP has no name to expect"
    );
    assert!(options.dns.is_on, "proxyMetadata counts as environment");
    assert_eq!(options.certificate_ttl, Duration::from_secs(3600));
    assert_eq!(options.engine, Engine::Envoy { path: "/e".into() });
    assert_eq!(options.paths.config, PathBuf::from("/run/p"));
    assert_eq!(options.log_level, "debug");
}

#[test]
fn bad_settings() {
    for (arguments, more, want) in [
        (&["--nope"][..], &[][..], "--nope: no such flag"),
        (&["--domain"], &[], "--domain: needs a value"),
        (&["--templateFile=x"], &[], "not supported: --templateFile"),
        (&[], &[("STOLOS_PROXY", "nginx")], "STOLOS_PROXY"),
        (&[], &[("INSTANCE_IP", "here")], "no IP address"),
        (&[], &[("POD_NAME", "")], "POD_NAME: is not set"),
        (&[], &[("CA_ADDR", "istiod")], "has no port"),
        (&[], &[("ISTIO_METAJSON_X", "{")], "ISTIO_METAJSON_X"),
        (&[], &[("POD_NAMESPACE", "a/b")], "SPIFFE id"),
    ] {
        let error = parse(arguments, more).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}
