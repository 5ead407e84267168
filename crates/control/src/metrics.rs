//! The control plane's metrics under Istio's names (istio.md 7.4), as far as they apply.

use std::time::Duration;

use daemon::metrics::{Counter, Family, Gauge, Histogram, Registry};
use envoy_api::ResourceType;
use mesh_api::Kind;
use pilot::snapshot::statuses::Reason;
use pilot::{Changes, Event, Snapshot};

/// Cheap to clone; all clones count into one registry.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub registry: Registry,
    pub connected: Family<Gauge>,
    pub pushes: Family<Counter>,
    pub push_triggers: Family<Counter>,
    pub push_time: Family<Histogram>,
    pub config_size: Family<Histogram>,
    pub convergence_time: Histogram,
    pub rejects: Family<Counter>,
    pub expired_nonces: Family<Counter>,
    pub internal_errors: Counter,
    inbound_updates: Family<Counter>,
    snapshot_time: Histogram,
    services: Gauge,
    virtual_services: Gauge,
    duplicate_domains: Gauge,
    pub authority: AuthorityMetrics,
}

/// What the certificate service counts.
#[derive(Debug, Clone)]
pub struct AuthorityMetrics {
    pub requests: Counter,
    pub issued: Counter,
    pub parse_errors: Counter,
    pub sign_errors: Family<Counter>,
    pub authentication_failures: Counter,
    pub root_expiry: Gauge,
    pub chain_expiry: Gauge,
}

impl AuthorityMetrics {
    fn new(r: &Registry) -> AuthorityMetrics {
        let name = |name: &str| format!("citadel_server_{name}");
        let signing = "Requests that could not be signed.";
        AuthorityMetrics {
            requests: r.counter(&name("csr_count"), "Certificates asked for."),
            issued: r.counter(&name("success_cert_issuance_count"), "Certificates issued."),
            parse_errors: r.counter(&name("csr_parsing_err_count"), "Requests that are none."),
            sign_errors: r.counters(&name("csr_sign_err_count"), signing, &["error"]),
            authentication_failures: r.counter(
                &name("authentication_failure_count"),
                "Callers that are not known.",
            ),
            root_expiry: r.gauge(
                &name("root_cert_expiry_timestamp"),
                "When the root expires, Unix seconds.",
            ),
            chain_expiry: r.gauge(
                &name("cert_chain_expiry_timestamp"),
                "When the signing certificate expires, Unix seconds.",
            ),
        }
    }
}

const SECONDS: &[f64] = &[0.001, 0.01, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0];
const BYTES: &[f64] = &[1.0, 1e4, 1e6, 4e6, 1e7, 4e7];

impl Metrics {
    /// Registers everything; a registry belongs to one control plane.
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let version = env!("CARGO_PKG_VERSION");
        let info = registry.gauges("pilot_info", "Pilot version and build.", &["version"]);
        info.with(&[version]).set(1);
        let build = registry.gauges(
            "istio_build",
            "Build of a component.",
            &["component", "tag"],
        );
        build.with(&["pilot", version]).set(1);
        let r = &registry;
        let push_time = "Seconds to translate a response.";
        let converged = "Seconds from a change to its acknowledgement by a proxy.";
        let built = "Seconds to build a snapshot.";
        let size = "Bytes of a response.";
        let duplicates = "Virtual services whose host another one has.";
        Metrics {
            connected: r.gauges("pilot_xds", "Connected proxies.", &["version"]),
            pushes: r.counters("pilot_xds_pushes", "Responses sent.", &["type"]),
            push_triggers: r.counters("pilot_push_triggers", "Why was pushed.", &["type"]),
            push_time: r.histograms("pilot_xds_push_time", push_time, &["type"], SECONDS),
            config_size: r.histograms("pilot_xds_config_size_bytes", size, &["type"], BYTES),
            convergence_time: r.histogram("pilot_proxy_convergence_time", converged, SECONDS),
            rejects: r.counters("pilot_total_xds_rejects", "Refused responses.", &["type"]),
            expired_nonces: r.counters("pilot_xds_expired_nonce", "Stale requests.", &["type"]),
            internal_errors: r.counter("pilot_total_xds_internal_errors", "Our own errors."),
            inbound_updates: r.counters("pilot_inbound_updates", "Changes read.", &["type"]),
            snapshot_time: r.histogram("pilot_pushcontext_init_seconds", built, SECONDS),
            services: r.gauge("pilot_services", "Services known."),
            virtual_services: r.gauge("pilot_virt_services", "Virtual services known."),
            duplicate_domains: r.gauge("pilot_vservice_dup_domain", duplicates),
            authority: AuthorityMetrics::new(r),
            registry,
        }
    }

    pub(crate) fn inbound(&self, events: &[Event]) {
        for event in events {
            let kind = match event {
                Event::Object(_) | Event::ObjectRemoved(_) | Event::MeshConfig(_) => "config",
                Event::Service(_) => "svc",
                Event::ServiceRemoved(_) => "svcdelete",
                Event::Workload(_) | Event::WorkloadRemoved(_) => "proxy",
                Event::Endpoints { .. } => "eds",
            };
            self.inbound_updates.with(&[kind]).increment();
        }
    }

    pub(crate) fn built(&self, snapshot: &Snapshot, changes: &Changes, took: Duration) {
        self.snapshot_time.observe(took.as_secs_f64());
        self.services.set(snapshot.services.iter().count() as i64);
        let virtual_services = snapshot
            .statuses()
            .iter()
            .filter(|(key, _)| key.kind == Kind::VirtualService)
            .count();
        self.virtual_services.set(virtual_services as i64);
        let duplicates = snapshot.statuses().problems().filter(|(key, problem)| {
            key.kind == Kind::VirtualService && problem.reason == Reason::Conflict
        });
        self.duplicate_domains.set(duplicates.count() as i64);
        for (is_cause, cause) in [
            (changes.everything || changes.mesh, "global"),
            (!changes.objects.is_empty(), "config"),
            (!changes.services.is_empty(), "service"),
            (!changes.workloads.is_empty(), "proxy"),
            (!changes.endpoints.is_empty(), "endpoint"),
        ] {
            if is_cause {
                self.push_triggers.with(&[cause]).increment();
            }
        }
    }

    pub(crate) fn type_label(kind: ResourceType) -> String {
        kind.short_name().to_ascii_lowercase()
    }
}
