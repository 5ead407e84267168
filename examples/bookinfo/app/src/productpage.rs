//! `productpage`: the front end; asks `details` and `reviews` and renders the page.

use crate::call::{self, Answer};
use crate::forward::forwarded_for;
use crate::page::{self, Section};
use crate::reply::{self, Reply};
use crate::settings::{Peer, Settings};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(3);
const COOKIE: &str = "session";

/// Counters for `/metrics`.
#[derive(Default)]
pub struct ProductPage {
    requests: AtomicU64,
    pages: AtomicU64,
}

/// A request with its body read.
pub struct Call<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

impl ProductPage {
    pub async fn answer(&self, settings: &Settings, call: Call<'_>) -> Reply {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let user = session_user(call.headers);
        let headers = forwarded_for(call.headers, user.as_deref());
        match (call.method, call.path) {
            (&Method::POST, "/login") => login(call.body),
            (_, "/logout") => reply::to_product_page("session=; Path=/; Max-Age=0; HttpOnly"),
            (&Method::GET | &Method::HEAD, path) => match path {
                "/" | "/index.html" => reply::html(page::index(settings)),
                "/health" => reply::text(StatusCode::OK, "Product page is healthy"),
                "/metrics" => self.metrics(),
                "/productpage" => self.page(settings, user.as_deref(), headers).await,
                path => match path.strip_prefix("/api/v1/products") {
                    Some(rest) => api(settings, rest, headers).await,
                    None => reply::not_found(),
                },
            },
            _ => reply::json(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": "method"})),
        }
    }

    async fn page(&self, settings: &Settings, user: Option<&str>, headers: HeaderMap) -> Reply {
        self.pages.fetch_add(1, Ordering::Relaxed);
        let (details, reviews) = tokio::join!(
            details(settings, 0, headers.clone()),
            reviews(settings, 0, headers)
        );
        let details = section(details, "Sorry, product details are currently unavailable");
        let reviews = section(reviews, "Sorry, product reviews are currently unavailable");
        reply::html(page::product(user, &details, &reviews, settings))
    }

    fn metrics(&self) -> Reply {
        let line = |name: &str, value: &AtomicU64| {
            format!(
                "# TYPE {name} counter\n{name} {}\n",
                value.load(Ordering::Relaxed)
            )
        };
        let mut reply = reply::text(
            StatusCode::OK,
            line("bookinfo_requests_total", &self.requests)
                + &line("bookinfo_product_pages_total", &self.pages),
        );
        let kind = HeaderValue::from_static("text/plain; version=0.0.4");
        reply.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        reply
    }
}

async fn details(settings: &Settings, id: u32, headers: HeaderMap) -> Option<Answer> {
    get(&settings.details, &format!("/details/{id}"), headers).await
}

/// As the original: one more try when the first brings no good answer.
async fn reviews(settings: &Settings, id: u32, headers: HeaderMap) -> Option<Answer> {
    let path = format!("/reviews/{id}");
    match get(&settings.reviews, &path, headers.clone()).await {
        Some(answer) if answer.status == StatusCode::OK => Some(answer),
        _ => get(&settings.reviews, &path, headers).await,
    }
}

async fn get(peer: &Peer, path: &str, headers: HeaderMap) -> Option<Answer> {
    let result = call::get(peer, path, headers, TIMEOUT).await;
    result
        .inspect_err(|error| eprintln!("productpage: {}{path}: {error}", peer.host))
        .ok()
}

/// The section's JSON, or the sentence that the page shows in its place.
fn section(answer: Option<Answer>, sorry: &str) -> Section {
    let good = answer.filter(|answer| answer.status == StatusCode::OK);
    match good.and_then(|answer| serde_json::from_slice::<Value>(&answer.body).ok()) {
        Some(value) => Section::Loaded(value),
        None => Section::Missing(format!("{sorry} for this book.")),
    }
}

async fn api(settings: &Settings, rest: &str, headers: HeaderMap) -> Reply {
    let parts: Vec<&str> = rest.trim_start_matches('/').split('/').collect();
    let (id, what) = match parts.as_slice() {
        [""] => return reply::json(StatusCode::OK, &json!([page::book()])),
        [id] => (*id, "details"),
        [id, what @ ("reviews" | "ratings")] => (*id, *what),
        _ => return reply::not_found(),
    };
    let Ok(id) = id.parse::<u32>() else {
        return reply::not_found();
    };
    let answer = match what {
        "details" => details(settings, id, headers).await,
        "reviews" => reviews(settings, id, headers).await,
        _ => get(&settings.ratings, &format!("/ratings/{id}"), headers).await,
    };
    pass_on(answer, what)
}

/// The other service's JSON with its status; a word of apology where there is none.
fn pass_on(answer: Option<Answer>, what: &str) -> Reply {
    let status = answer
        .as_ref()
        .map_or(StatusCode::INTERNAL_SERVER_ERROR, |a| a.status);
    let value = answer.as_ref().filter(|a| a.status == StatusCode::OK);
    let value = value.and_then(|a| serde_json::from_slice::<Value>(&a.body).ok());
    let sorry = || {
        let text = format!("Sorry, product {what} are currently unavailable for this book.");
        json!({"error": text})
    };
    let mut reply = reply::json(status, &value.unwrap_or_else(sorry));
    if let Some(pod) = answer.as_ref().and_then(|a| a.headers.get("x-served-by")) {
        reply.headers_mut().insert("x-answered-by", pod.clone());
    }
    reply
}

/// Any password will do, as in the original: the name only shows routing by user.
fn login(body: &[u8]) -> Reply {
    let name = form_value(body, "username").filter(|name| valid_user(name));
    match name {
        Some(name) => {
            let cookie = format!("{COOKIE}={name}; Path=/; HttpOnly; SameSite=Lax");
            reply::to_product_page(&cookie)
        }
        None => reply::text(
            StatusCode::BAD_REQUEST,
            "username: 1 to 64 letters, digits, '.', '-', '_' or '@'\n",
        ),
    }
}

fn valid_user(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".-_@".contains(&b))
}

fn session_user(headers: &HeaderMap) -> Option<String> {
    let cookies = headers
        .get_all(http::header::COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok());
    let mut pairs = cookies
        .flat_map(|line| line.split(';'))
        .filter_map(|p| p.trim().split_once('='));
    let user = pairs
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value.to_owned());
    user.filter(|user| valid_user(user))
}

fn form_value(body: &[u8], key: &str) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let mut pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| percent_decoded(value))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_form() {
        for (body, want, why) in [
            ("username=jason&passwd=x", 302, "a name"),
            ("passwd=&username=a%40b.c", 302, "an encoded name"),
            ("username=", 400, "empty"),
            (
                "username=a%0d%0aset-cookie:x",
                400,
                "no line breaks into the cookie",
            ),
            ("username=%zz", 400, "bad escape"),
            ("", 400, "no form"),
        ] {
            assert_eq!(login(body.as_bytes()).status(), want, "{why}");
        }
        let reply = login(b"username=jason");
        assert!(
            reply.headers()["set-cookie"]
                .to_str()
                .unwrap()
                .starts_with("session=jason;")
        );
    }

    #[test]
    fn the_session_is_one_cookie_among_others() {
        for (cookie, want) in [
            ("a=b; session=jason; c=d", Some("jason")),
            ("session=<x>", None),
            ("session=", None),
            ("xsession=eve", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("cookie", HeaderValue::from_static(cookie));
            assert_eq!(session_user(&headers).as_deref(), want, "{cookie}");
        }
    }
}
