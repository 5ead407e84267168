//! Access logs from MeshConfig: a file, as text or JSON (istio.md 2.7).

use std::collections::BTreeMap;

use envoy_api::access_logger_file::{FileAccessLog, file_access_log::AccessLogFormat};
use envoy_api::accesslog::{
    AccessLog, AccessLogFilter, ResponseFlagFilter, access_log, access_log_filter,
};
use envoy_api::any::pack;
use envoy_api::core::{
    DataSource, SubstitutionFormatString, data_source, substitution_format_string::Format,
};
use mesh_api::mesh_config::{AccessLogEncoding, MeshConfig};
use prost_types::Struct;

use super::message::text;

const TEXT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% \
    %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% \
    %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% \
    %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \
    \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" \
    %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% \
    %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

const JSON: &[(&str, &str)] = &[
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    (
        "connection_termination_details",
        "%CONNECTION_TERMINATION_DETAILS%",
    ),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    (
        "upstream_service_time",
        "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    ),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    (
        "upstream_transport_failure_reason",
        "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    ),
];

/// Logs of requests and connections.
pub fn logs(mesh: &MeshConfig) -> Vec<AccessLog> {
    file(mesh, None).into_iter().collect()
}

/// Logs of connections for which no filter chain was found.
pub fn listener_logs(mesh: &MeshConfig) -> Vec<AccessLog> {
    if mesh.disable_envoy_listener_log {
        return Vec::new();
    }
    let no_route = ResponseFlagFilter {
        flags: vec!["NR".to_owned()],
    };
    let filter = AccessLogFilter {
        filter_specifier: Some(access_log_filter::FilterSpecifier::ResponseFlagFilter(
            no_route,
        )),
    };
    file(mesh, Some(filter)).into_iter().collect()
}

fn file(mesh: &MeshConfig, filter: Option<AccessLogFilter>) -> Option<AccessLog> {
    if mesh.access_log_file.is_empty() {
        return None;
    }
    let format = match mesh.access_log_encoding {
        AccessLogEncoding::Text if mesh.access_log_format.is_empty() => inline(TEXT),
        AccessLogEncoding::Text => {
            let mut text = mesh.access_log_format.clone();
            if !text.ends_with('\n') {
                text.push('\n');
            }
            inline(&text)
        }
        AccessLogEncoding::Json => Format::JsonFormat(json(&mesh.access_log_format)),
    };
    let config = FileAccessLog {
        path: mesh.access_log_file.clone(),
        access_log_format: Some(AccessLogFormat::LogFormat(SubstitutionFormatString {
            format: Some(format),
            ..Default::default()
        })),
    };
    Some(AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        filter,
        config_type: Some(access_log::ConfigType::TypedConfig(pack(&config))),
    })
}

fn inline(text: &str) -> Format {
    Format::TextFormatSource(DataSource {
        specifier: Some(data_source::Specifier::InlineString(text.to_owned())),
        ..Default::default()
    })
}

/// The user's JSON object, or Istio's keys when it is missing or no flat object.
fn json(written: &str) -> Struct {
    let parsed: Option<BTreeMap<String, String>> = serde_json::from_str(written).ok();
    let fields = match parsed {
        Some(fields) => fields
            .into_iter()
            .map(|(key, value)| (key, text(value)))
            .collect(),
        None => JSON
            .iter()
            .map(|(key, value)| ((*key).to_owned(), text(*value)))
            .collect(),
    };
    Struct { fields }
}
