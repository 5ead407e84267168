//! How a container's health is asked.

use super::IntOrString;

message! {
    pub struct Probe {
        initial_delay_seconds: i32,
        /// 0: 1.
        timeout_seconds: i32,
        /// 0: 10.
        period_seconds: i32,
        /// 0: 1.
        success_threshold: i32,
        /// 0: 3.
        failure_threshold: i32,
        termination_grace_period_seconds: Option<i64>,
    } oneof {
        handler: ProbeHandler,
    }
}

oneof! {
    pub enum ProbeHandler {
        HttpGet(HttpGetAction) = "httpGet",
        TcpSocket(TcpSocketAction) = "tcpSocket",
        Exec(ExecAction) = "exec",
        Grpc(GrpcAction) = "grpc",
    }
}

message! {
    pub struct HttpGetAction {
        path: String,
        port: IntOrString,
        host: String,
        /// `HTTP` (also when empty) or `HTTPS`.
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
    pub struct TcpSocketAction {
        port: IntOrString,
        host: String,
    }
}

message! {
    pub struct ExecAction {
        command: Vec<String>,
    }
}

message! {
    pub struct GrpcAction {
        port: i32,
        service: String,
    }
}
