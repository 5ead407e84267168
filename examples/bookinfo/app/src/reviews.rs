//! `reviews`: two reviews; v2 and v3 add the stars that `ratings` knows.

use crate::call;
use crate::forward::forwarded;
use crate::reply::{self, Reply};
use crate::settings::Settings;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;

const TEXTS: [(&str, &str); 2] = [
    (
        "Reviewer1",
        "Two pairs of twins, one town, no end of mix-ups. I laughed all the way through!",
    ),
    (
        "Reviewer2",
        "A light and quick evening. Less depth than the later plays, and no worse for it.",
    ),
];

pub async fn answer(settings: &Settings, path: &str, headers: &HeaderMap) -> Reply {
    if path == "/health" {
        return reply::json(StatusCode::OK, &json!({"status": "Reviews is healthy"}));
    }
    let Some(id) = path.strip_prefix("/reviews/") else {
        return reply::not_found();
    };
    let Ok(id) = id.parse::<u32>() else {
        return reply::not_found();
    };
    let ratings = match settings.ratings_enabled {
        true => Some(ratings(settings, id, headers).await),
        false => None,
    };
    reply::json(StatusCode::OK, &body(settings, id, ratings.as_ref()))
}

/// The map of stars, or `Null` when `ratings` does not answer.
async fn ratings(settings: &Settings, id: u32, headers: &HeaderMap) -> Value {
    // As the original: the black-star version is patient, which makes the 7 s fault visible.
    let seconds = if settings.star_color == "black" {
        10_000
    } else {
        2_500
    };
    let timeout = Duration::from_millis(seconds);
    let path = format!("/ratings/{id}");
    match call::get(&settings.ratings, &path, forwarded(headers), timeout).await {
        Ok(answer) if answer.status == StatusCode::OK => serde_json::from_slice(&answer.body)
            .map_or(Value::Null, |v: Value| v["ratings"].clone()),
        Ok(answer) => {
            eprintln!("reviews: ratings answered {}", answer.status);
            Value::Null
        }
        Err(error) => {
            eprintln!("reviews: {error}");
            Value::Null
        }
    }
}

fn body(settings: &Settings, id: u32, ratings: Option<&Value>) -> Value {
    let reviews: Vec<Value> = TEXTS
        .iter()
        .map(|(reviewer, text)| {
            let mut review = json!({"reviewer": reviewer, "text": text});
            match ratings.map(|map| map[*reviewer].as_u64()) {
                None => {}
                Some(Some(stars)) => {
                    review["rating"] = json!({"stars": stars, "color": settings.star_color});
                }
                Some(None) => {
                    let error = "Ratings service is currently unavailable";
                    review["rating"] = json!({"error": error});
                }
            }
            review
        })
        .collect();
    json!({
        "id": id.to_string(),
        "podname": settings.pod,
        "clustername": settings.cluster,
        "reviews": reviews,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_by_version() {
        let red = Settings::from_environment(|name| match name {
            "SERVICE_VERSION" => Some("v3".into()),
            "HOSTNAME" => Some("reviews-v3-1".into()),
            _ => None,
        });
        let with = body(&red, 0, Some(&json!({"Reviewer1": 5, "Reviewer2": 4})));
        assert_eq!(
            with["reviews"][0]["rating"],
            json!({"stars": 5, "color": "red"})
        );
        assert_eq!(with["podname"], "reviews-v3-1");
        let failed = body(&red, 0, Some(&Value::Null));
        assert!(
            failed["reviews"][1]["rating"]["error"].is_string(),
            "an error instead of stars"
        );
        let without = body(&red, 0, None);
        assert_eq!(
            without["reviews"][0].get("rating"),
            None,
            "v1 shows no stars at all"
        );
    }
}
