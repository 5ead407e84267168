//! `ratings`: stars by reviewer, kept in memory; the faulty variants of Istio's image by version.

use crate::reply::{self, Reply};
use crate::settings::Settings;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const MAX_PRODUCTS: usize = 1000;

/// Ratings that users posted, and what the faulty variants need.
pub struct Ratings {
    posted: Mutex<BTreeMap<u32, Value>>,
    requests: AtomicU64,
    started: Instant,
}

impl Ratings {
    pub fn new() -> Ratings {
        Ratings {
            posted: Mutex::new(BTreeMap::new()),
            requests: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    pub async fn answer(&self, settings: &Settings, request: Call<'_>) -> Reply {
        if request.path == "/health" {
            return self.health(&settings.version);
        }
        let Some(id) = request.path.strip_prefix("/ratings/") else {
            return reply::not_found();
        };
        let Ok(id) = id.parse::<u32>() else {
            let error = json!({"error": "please provide numeric product ID"});
            return reply::json(StatusCode::BAD_REQUEST, &error);
        };
        match *request.method {
            Method::GET => self.read(settings, id).await,
            Method::POST => self.write(id, request.body),
            _ => reply::json(
                StatusCode::METHOD_NOT_ALLOWED,
                &json!({"error": "GET or POST"}),
            ),
        }
    }

    fn health(&self, version: &str) -> Reply {
        if version == "v-unhealthy" && !self.in_good_minute() {
            let body = json!({"status": "Ratings is not healthy"});
            return reply::json(StatusCode::INTERNAL_SERVER_ERROR, &body);
        }
        reply::json(StatusCode::OK, &json!({"status": "Ratings is healthy"}))
    }

    async fn read(&self, settings: &Settings, id: u32) -> Reply {
        // Every second request is the bad one: as often as the original's coin, but testable.
        let odd = self.requests.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        let unavailable = match settings.version.as_str() {
            "v-faulty" => odd,
            "v-unavailable" | "v-unhealthy" => !self.in_good_minute(),
            _ => false,
        };
        if unavailable {
            let error = json!({"error": "Service unavailable"});
            return reply::json(StatusCode::SERVICE_UNAVAILABLE, &error);
        }
        if settings.version == "v-delayed" && odd {
            tokio::time::sleep(Duration::from_secs(7)).await;
        }
        let posted = self
            .posted
            .lock()
            .map(|map| map.get(&id).cloned())
            .ok()
            .flatten();
        let [first, second] = settings.stars;
        let ratings = posted.unwrap_or_else(|| json!({"Reviewer1": first, "Reviewer2": second}));
        reply::json(StatusCode::OK, &json!({"id": id, "ratings": ratings}))
    }

    fn write(&self, id: u32, body: &[u8]) -> Reply {
        let Some(ratings) = valid_ratings(body) else {
            let error = json!({"error": "please provide valid ratings JSON"});
            return reply::json(StatusCode::BAD_REQUEST, &error);
        };
        let Ok(mut posted) = self.posted.lock() else {
            return reply::not_found();
        };
        if posted.len() >= MAX_PRODUCTS && !posted.contains_key(&id) {
            let error = json!({"error": "too many products"});
            return reply::json(StatusCode::INSUFFICIENT_STORAGE, &error);
        }
        posted.insert(id, ratings.clone());
        reply::json(StatusCode::OK, &json!({"id": id, "ratings": ratings}))
    }

    /// The variants that toggle are well for a minute, then ill for one.
    fn in_good_minute(&self) -> bool {
        (self.started.elapsed().as_secs() / 60).is_multiple_of(2)
    }
}

/// The parts of a request that `ratings` reads.
pub struct Call<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    pub body: &'a [u8],
}

/// An object of numbers 0 to 5, as the original's page can show it.
fn valid_ratings(body: &[u8]) -> Option<Value> {
    let map: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let good = map
        .values()
        .all(|stars| stars.as_u64().is_some_and(|n| n <= 5));
    good.then_some(Value::Object(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call<'a>(method: &'a Method, path: &'a str, body: &'a [u8]) -> Call<'a> {
        Call { method, path, body }
    }

    #[test]
    fn paths_and_methods() {
        let settings = Settings::from_environment(|_| None);
        let ratings = Ratings::new();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        for (method, path, body, want, why) in [
            (Method::GET, "/ratings/0", "", 200, "the built-in ratings"),
            (Method::GET, "/ratings/x", "", 400, "an id is a number"),
            (Method::GET, "/other", "", 404, "unknown path"),
            (Method::GET, "/health", "", 200, "health"),
            (Method::PUT, "/ratings/0", "", 405, "only GET and POST"),
            (
                Method::POST,
                "/ratings/0",
                "{\"Reviewer1\": 1}",
                200,
                "a new rating",
            ),
            (
                Method::POST,
                "/ratings/0",
                "{\"Reviewer1\": 9}",
                400,
                "at most five stars",
            ),
            (Method::POST, "/ratings/0", "nonsense", 400, "not JSON"),
        ] {
            let future = ratings.answer(&settings, call(&method, path, body.as_bytes()));
            assert_eq!(runtime.block_on(future).status(), want, "{why}");
        }
        assert_eq!(ratings.posted.lock().unwrap()[&0], json!({"Reviewer1": 1}));
    }

    #[test]
    fn the_faulty_variant_fails_every_second_time() {
        let faulty = |name: &str| (name == "SERVICE_VERSION").then(|| "v-faulty".to_owned());
        let settings = Settings::from_environment(faulty);
        let ratings = Ratings::new();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let statuses: Vec<u16> = (0..4)
            .map(|_| {
                let get = call(&Method::GET, "/ratings/0", b"");
                runtime
                    .block_on(ratings.answer(&settings, get))
                    .status()
                    .as_u16()
            })
            .collect();
        assert_eq!(statuses, [200, 503, 200, 503]);
    }
}
