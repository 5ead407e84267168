//! Answers: the few shapes that the services send.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, LOCATION, SET_COOKIE};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::Value;

pub type Reply = Response<Full<Bytes>>;

fn with_type(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

pub fn json(status: StatusCode, body: &Value) -> Reply {
    with_type(status, "application/json", body.to_string())
}

pub fn html(body: String) -> Reply {
    with_type(StatusCode::OK, "text/html; charset=utf-8", body)
}

pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    with_type(status, "text/plain; charset=utf-8", body)
}

pub fn not_found() -> Reply {
    json(
        StatusCode::NOT_FOUND,
        &serde_json::json!({"error": "not found"}),
    )
}

/// 302 to the product page, setting the session cookie.
pub fn to_product_page(cookie: &str) -> Reply {
    let mut reply = text(StatusCode::FOUND, "");
    reply
        .headers_mut()
        .insert(LOCATION, HeaderValue::from_static("/productpage"));
    if let Ok(value) = HeaderValue::from_str(cookie) {
        reply.headers_mut().insert(SET_COOKIE, value);
    }
    reply
}
