//! `details`: facts about the book; v2 asks an external book service through the mesh.

use crate::call::{self, CallError};
use crate::forward::forwarded;
use crate::reply::{self, Reply};
use crate::settings::Settings;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;

const ISBN: &str = "0486424618";

pub async fn answer(settings: &Settings, path: &str, headers: &HeaderMap) -> Reply {
    if path == "/health" {
        return reply::json(StatusCode::OK, &json!({"status": "Details is healthy"}));
    }
    let Some(id) = path.strip_prefix("/details/") else {
        return reply::not_found();
    };
    let Ok(id) = id.parse::<u32>() else {
        let error = json!({"error": "please provide numeric product id"});
        return reply::json(StatusCode::BAD_REQUEST, &error);
    };
    if !settings.external_books {
        return reply::json(StatusCode::OK, &built_in(id));
    }
    match external(settings, id, headers).await {
        Ok(book) => reply::json(StatusCode::OK, &book),
        Err(error) => {
            eprintln!("details: {error}");
            let body = json!({"error": "the external book service did not answer"});
            reply::json(StatusCode::INTERNAL_SERVER_ERROR, &body)
        }
    }
}

fn built_in(id: u32) -> Value {
    json!({
        "id": id,
        "author": "William Shakespeare",
        "year": 1595,
        "type": "paperback",
        "pages": 200,
        "publisher": "PublisherA",
        "language": "English",
        "ISBN-10": "1234567890",
        "ISBN-13": "123-1234567890",
    })
}

async fn external(settings: &Settings, id: u32, headers: &HeaderMap) -> Result<Value, CallError> {
    if !settings.do_not_encrypt {
        return Err("set DO_NOT_ENCRYPT=true: the mesh originates TLS, not this program".into());
    }
    let path = format!("/books/v1/volumes?q=isbn:{ISBN}");
    let timeout = Duration::from_secs(5);
    let answer = call::get(&settings.books, &path, forwarded(headers), timeout).await?;
    if answer.status != StatusCode::OK {
        return Err(format!("{} answered {}", settings.books.host, answer.status).into());
    }
    let volumes: Value = serde_json::from_slice(&answer.body)?;
    let book = &volumes["items"][0]["volumeInfo"];
    if !book.is_object() {
        return Err(format!("{} knows no book {ISBN}", settings.books.host).into());
    }
    Ok(from_volume(id, book))
}

fn from_volume(id: u32, book: &Value) -> Value {
    let isbn = |kind: &str| {
        let list = book["industryIdentifiers"].as_array().into_iter().flatten();
        let mut found = list.filter(|entry| entry["type"] == kind);
        found
            .next()
            .map_or(Value::Null, |entry| entry["identifier"].clone())
    };
    let word = |field: &str, from: &str, to: &str| match book[field].as_str() {
        Some(value) if value == from => json!(to),
        _ => json!("unknown"),
    };
    json!({
        "id": id,
        "author": book["authors"][0],
        "year": book["publishedDate"],
        "type": word("printType", "BOOK", "paperback"),
        "pages": book["pageCount"],
        "publisher": book["publisher"],
        "language": word("language", "en", "English"),
        "ISBN-10": isbn("ISBN_10"),
        "ISBN-13": isbn("ISBN_13"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_becomes_a_book() {
        let volume = json!({
            "authors": ["A"], "publishedDate": "2002", "printType": "BOOK", "pageCount": 7,
            "publisher": "P", "language": "en",
            "industryIdentifiers": [{"type": "ISBN_13", "identifier": "978"}],
        });
        let book = from_volume(3, &volume);
        assert_eq!(book["id"], 3);
        assert_eq!(book["language"], "English");
        assert_eq!(book["ISBN-13"], "978");
        assert_eq!(book["ISBN-10"], Value::Null, "absent stays absent");
    }
}
