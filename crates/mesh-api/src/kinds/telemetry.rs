//! Telemetry: metrics, access logs and traces of a workload.

use std::collections::BTreeMap;
use std::time::Duration;

use super::selector::{PolicyTargetReference, WorkloadSelector};

message! {
    pub struct Telemetry {
        selector: Option<WorkloadSelector>,
        target_ref: Option<PolicyTargetReference>,
        target_refs: Vec<PolicyTargetReference>,
        tracing: Vec<Tracing>,
        metrics: Vec<Metrics>,
        access_logging: Vec<AccessLogging>,
    }
}

enumeration! {
    pub enum TelemetryMode {
        ClientAndServer = "CLIENT_AND_SERVER",
        Client = "CLIENT",
        Server = "SERVER",
    }
}

message! {
    pub struct ProviderRef {
        name: String,
    }
}

message! {
    pub struct ModeSelector {
        mode: TelemetryMode,
    }
}

message! {
    pub struct Tracing {
        r#match: Option<ModeSelector>,
        providers: Vec<ProviderRef>,
        random_sampling_percentage: Option<f64>,
        disable_span_reporting: Option<bool>,
        custom_tags: BTreeMap<String, CustomTag>,
        use_request_id_for_trace_sampling: Option<bool>,
        enable_istio_tags: Option<bool>,
        disable_context_propagation: Option<bool>,
    }
}

message! {
    pub struct CustomTag {
    } oneof {
        r#type: CustomTagType,
    }
}

oneof! {
    pub enum CustomTagType {
        Literal(TagValue) = "literal",
        Environment(TagSource) = "environment",
        Header(TagSource) = "header",
        Formatter(TagValue) = "formatter",
    }
}

message! {
    pub struct TagValue {
        value: String,
    }
}

message! {
    pub struct TagSource {
        name: String,
        default_value: String,
    }
}

message! {
    pub struct Metrics {
        providers: Vec<ProviderRef>,
        overrides: Vec<MetricsOverrides>,
        reporting_interval: Option<Duration>,
    }
}

message! {
    pub struct MetricsOverrides {
        r#match: Option<MetricSelector>,
        disabled: Option<bool>,
        tag_overrides: BTreeMap<String, TagOverride>,
    }
}

message! {
    pub struct MetricSelector {
        mode: TelemetryMode,
    } oneof {
        metric_match: MetricMatch,
    }
}

oneof! {
    pub enum MetricMatch {
        Metric(IstioMetric) = "metric",
        CustomMetric(String) = "customMetric",
    }
}

enumeration! {
    pub enum IstioMetric {
        AllMetrics = "ALL_METRICS",
        RequestCount = "REQUEST_COUNT",
        RequestDuration = "REQUEST_DURATION",
        RequestSize = "REQUEST_SIZE",
        ResponseSize = "RESPONSE_SIZE",
        TcpOpenedConnections = "TCP_OPENED_CONNECTIONS",
        TcpClosedConnections = "TCP_CLOSED_CONNECTIONS",
        TcpSentBytes = "TCP_SENT_BYTES",
        TcpReceivedBytes = "TCP_RECEIVED_BYTES",
        GrpcRequestMessages = "GRPC_REQUEST_MESSAGES",
        GrpcResponseMessages = "GRPC_RESPONSE_MESSAGES",
    }
}

message! {
    pub struct TagOverride {
        operation: TagOperation,
        value: String,
    }
}

enumeration! {
    pub enum TagOperation { Upsert = "UPSERT", Remove = "REMOVE" }
}

message! {
    pub struct AccessLogging {
        r#match: Option<ModeSelector>,
        providers: Vec<ProviderRef>,
        disabled: Option<bool>,
        filter: Option<Filter>,
    }
}

message! {
    pub struct Filter {
        expression: String,
    }
}
