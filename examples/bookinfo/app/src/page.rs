//! The HTML of the product page; everything that came from elsewhere is escaped.

use crate::settings::Settings;
use serde_json::{Value, json};
use std::fmt::Write;

/// A part of the page that another service fills.
pub enum Section {
    Loaded(Value),
    /// The sentence shown instead.
    Missing(String),
}

/// The one book of the shop.
pub fn book() -> Value {
    json!({
        "id": 0,
        "title": "The Comedy of Errors",
        "descriptionHtml": "A farce by <b>William Shakespeare</b>: two pairs of identical twins, \
            parted at birth, meet in Ephesus, and nobody knows any more who is who.",
    })
}

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--link:#2563eb}\
*{box-sizing:border-box}\
body{margin:0;font:16px/1.55 system-ui,sans-serif}\
header{display:flex;justify-content:space-between;align-items:center;gap:1rem;padding:.7rem 1.2rem;\
border-bottom:1px solid var(--line)}\
header a{color:inherit;text-decoration:none;font-weight:700}\
header form{display:flex;gap:.5rem;align-items:center;margin:0}\
main{max-width:62rem;margin:0 auto;padding:1.5rem 1.2rem}\
h1{margin:.2rem 0 .6rem;font-size:2rem}h2{margin:0 0 .8rem;font-size:1.15rem}\
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(19rem,1fr));gap:1.2rem}\
.card{border:1px solid var(--line);border-radius:.6rem;padding:1.1rem 1.3rem}\
dl{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.2rem;margin:0}\
dt{opacity:.65}dd{margin:0}\
blockquote{margin:0 0 1rem;padding:.1rem 0 .1rem .9rem;border-left:3px solid var(--line)}\
.who{opacity:.65;font-size:.9rem}.pod{opacity:.65;font-size:.85rem;margin:1rem 0 0}\
.stars{letter-spacing:.1em;font-size:1.1rem}.stars.red{color:#dc2626}\
.sorry{background:#dc26261a;border-radius:.4rem;padding:.6rem .8rem;margin:0}\
input,button{font:inherit;padding:.25rem .6rem;border:1px solid var(--line);border-radius:.4rem}\
code{background:var(--soft);padding:.1rem .3rem;border-radius:.3rem}";

fn frame(title: &str, header: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head>\n<body>\n\
         <header><a href=\"/\">Bookinfo</a>{header}</header>\n<main>\n{body}\n</main>\n\
         </body></html>\n"
    )
}

/// The start page.
pub fn index(settings: &Settings) -> String {
    let peers = [
        ("details", &settings.details),
        ("reviews", &settings.reviews),
    ];
    let mut rows = String::new();
    for (name, peer) in peers.into_iter().chain([("ratings", &settings.ratings)]) {
        let host = escaped(&peer.host);
        let _ = write!(
            rows,
            "<dt>{name}</dt><dd><code>{host}:{}</code></dd>",
            peer.port
        );
    }
    let body = format!(
        "<h1>Hello! This is Bookinfo.</h1>\n\
         <p>A small shop with one book and four services, made to try a service mesh with.</p>\n\
         <p><a href=\"/productpage\">The product page</a></p>\n\
         <section class=\"card\"><h2>What this page calls</h2><dl>{rows}</dl></section>"
    );
    frame("Bookinfo", "", &body)
}

/// The product page.
pub fn product(
    user: Option<&str>,
    details: &Section,
    reviews: &Section,
    settings: &Settings,
) -> String {
    let session = match user {
        Some(user) => {
            format!(
                "<span>{} (<a href=\"/logout\">sign out</a>)</span>",
                escaped(user)
            )
        }
        None => "<form method=\"post\" action=\"/login\"><input name=\"username\" \
                 placeholder=\"user name\" aria-label=\"user name\" autocomplete=\"username\" \
                 required><button>Sign in</button></form>"
            .to_owned(),
    };
    let book = book();
    let title = book["title"].as_str().unwrap_or_default();
    let summary = book["descriptionHtml"].as_str().unwrap_or_default();
    let body = format!(
        "<h1>{title}</h1>\n<p>{summary}</p>\n<div class=\"columns\">\n\
         <section class=\"card\" id=\"details\"><h2>Book Details</h2>\n{}</section>\n\
         <section class=\"card\" id=\"reviews\"><h2>Book Reviews</h2>\n{}</section>\n</div>\n\
         <p class=\"pod\">This page was made by <code>{}</code></p>",
        details_html(details),
        reviews_html(reviews),
        escaped(&settings.pod),
    );
    frame("Simple Bookstore App", &session, &body)
}

fn details_html(section: &Section) -> String {
    let details = match section {
        Section::Loaded(details) => details,
        Section::Missing(sentence) => return sorry("Error fetching product details!", sentence),
    };
    let mut rows = String::new();
    for (label, field) in [
        ("Author", "author"),
        ("Year", "year"),
        ("Type", "type"),
        ("Pages", "pages"),
        ("Publisher", "publisher"),
        ("Language", "language"),
        ("ISBN-10", "ISBN-10"),
        ("ISBN-13", "ISBN-13"),
    ] {
        let _ = write!(
            rows,
            "<dt>{label}</dt><dd>{}</dd>",
            escaped(&plain(&details[field]))
        );
    }
    format!("<dl>{rows}</dl>\n")
}

fn reviews_html(section: &Section) -> String {
    let reviews = match section {
        Section::Loaded(reviews) => reviews,
        Section::Missing(sentence) => return sorry("Error fetching product reviews!", sentence),
    };
    let mut out = String::new();
    for review in reviews["reviews"].as_array().into_iter().flatten() {
        let text = escaped(&plain(&review["text"]));
        let who = escaped(&plain(&review["reviewer"]));
        let rating = rating_html(&review["rating"]);
        let _ = writeln!(
            out,
            "<blockquote><p>{text}</p><p class=\"who\">{who}</p>{rating}</blockquote>"
        );
    }
    let pod = escaped(&plain(&reviews["podname"]));
    let _ = writeln!(
        out,
        "<p class=\"pod\">Reviews served by: <code>{pod}</code></p>"
    );
    out
}

fn rating_html(rating: &Value) -> String {
    if let Some(stars) = rating["stars"].as_u64() {
        let full = stars.min(5) as usize;
        let color = escaped(&plain(&rating["color"]));
        return format!(
            "<p class=\"stars {color}\" aria-label=\"{full} of 5 stars\">{}{}</p>",
            "\u{2605}".repeat(full),
            "\u{2606}".repeat(5 - full),
        );
    }
    match rating["error"].as_str() {
        Some(error) => format!("<p class=\"sorry\">{}</p>", escaped(error)),
        None => String::new(),
    }
}

fn sorry(title: &str, sentence: &str) -> String {
    format!(
        "<p class=\"sorry\"><b>{title}</b><br>{}</p>\n",
        escaped(sentence)
    )
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "unknown".to_owned(),
        other => other.to_string(),
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_errors() {
        for (rating, want, absent) in [
            (json!({"stars": 4, "color": "red"}), "stars red", "sorry"),
            (
                json!({"stars": 99, "color": "black"}),
                "5 of 5 stars",
                "sorry",
            ),
            (
                json!({"error": "Ratings service is down"}),
                "Ratings service is down",
                "stars",
            ),
            (Value::Null, "", "stars"),
        ] {
            let html = rating_html(&rating);
            assert!(
                html.contains(want) && !html.contains(absent),
                "{rating}: {html}"
            );
        }
    }

    #[test]
    fn what_came_from_elsewhere_is_escaped() {
        let settings = Settings::from_environment(|_| None);
        let reviews = Section::Loaded(json!({
            "podname": "<pod>", "reviews": [{"reviewer": "<b>", "text": "\"&'"}],
        }));
        let details = Section::Missing("a < b".to_owned());
        let html = product(Some("<u>"), &details, &reviews, &settings);
        for raw in ["<pod>", "<u>", "a < b", "\"&'"] {
            assert!(!html.contains(raw), "{raw} must be escaped");
        }
    }
}
