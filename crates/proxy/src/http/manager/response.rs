//! A response's head on the way out: server, date, via, request id.
use super::request::append_with_comma;
use crate::http::request::ResponseHead;
use crate::parse::http_connection_manager::{HttpConnectionManager, ServerHeader};
use crate::stream_info::StreamInfo;

pub fn apply(
    head: &mut ResponseHead,
    info: &StreamInfo,
    config: &HttpConnectionManager,
    date: &[u8],
) {
    let headers = &mut head.headers;
    match config.server_header {
        ServerHeader::Overwrite => headers.set("server", config.server_name.as_bytes()),
        ServerHeader::AppendIfAbsent if !headers.contains("server") => {
            headers.append("server", config.server_name.as_bytes());
        }
        ServerHeader::AppendIfAbsent | ServerHeader::PassThrough => {}
    }
    if !headers.contains("date") {
        headers.append("date", date);
    }
    if config.always_set_request_id_in_response
        && let Some(id) = &info.request_id
    {
        headers.set("x-request-id", id.as_bytes());
    }
    if !config.via.is_empty() {
        append_with_comma(headers, "via", config.via.as_bytes());
    }
}
