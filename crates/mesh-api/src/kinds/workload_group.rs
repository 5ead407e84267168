//! WorkloadGroup: the template of workloads that register themselves.

use std::collections::BTreeMap;

use super::workload_entry::WorkloadEntry;

message! {
    pub struct WorkloadGroup {
        metadata: Option<GroupMetadata>,
        template: Option<WorkloadEntry>,
        probe: Option<ReadinessProbe>,
    }
}

message! {
    pub struct GroupMetadata {
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
    }
}

message! {
    pub struct ReadinessProbe {
        initial_delay_seconds: i32,
        /// 0: 1.
        timeout_seconds: i32,
        /// 0: 10.
        period_seconds: i32,
        /// 0: 1.
        success_threshold: i32,
        /// 0: 3.
        failure_threshold: i32,
    } oneof {
        health_check_method: HealthCheckMethod,
    }
}

oneof! {
    pub enum HealthCheckMethod {
        HttpGet(HttpHealthCheck) = "httpGet",
        TcpSocket(TcpHealthCheck) = "tcpSocket",
        Exec(ExecHealthCheck) = "exec",
        Grpc(GrpcHealthCheck) = "grpc",
    }
}

message! {
    pub struct HttpHealthCheck {
        path: String,
        port: u32,
        host: String,
        scheme: String,
        http_headers: Vec<HttpHeader>,
    }
}

message! {
    pub struct HttpHeader {
        name: String,
        value: String,
    }
}

message! {
    pub struct TcpHealthCheck {
        host: String,
        port: u32,
    }
}

message! {
    pub struct ExecHealthCheck {
        command: Vec<String>,
    }
}

message! {
    pub struct GrpcHealthCheck {
        port: u32,
        service: String,
    }
}
