//! The four services as processes on loopback: the page, the stars, login, the failure sentence,
//! a graceful end.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

struct Running {
    child: Child,
    port: String,
}

impl Running {
    fn start(service: &str, environment: &[(&str, &str)]) -> Running {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bookinfo"))
            .args([service, "0"])
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        lines.read_line(&mut first).unwrap();
        let port = first.trim().rsplit(':').next().unwrap().to_owned();
        // The rest of the log is read away, so that the pipe never fills.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Running { child, port }
    }

    fn request(&self, head: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port.parse().unwrap())).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let length = body.len();
        write!(
            stream,
            "{head}\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(&self, path: &str) -> String {
        self.request(&format!("GET {path} HTTP/1.1"), "")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_page_joins_the_four_services() {
    let ratings = Running::start("ratings", &[("RATINGS", "3,2")]);
    let details = Running::start("details", &[]);
    let reviews = Running::start(
        "reviews",
        &[
            ("SERVICE_VERSION", "v3"),
            ("HOSTNAME", "reviews-v3-abc"),
            ("RATINGS_HOSTNAME", "127.0.0.1"),
            ("RATINGS_SERVICE_PORT", &ratings.port),
        ],
    );
    let page = Running::start(
        "productpage",
        &[
            ("DETAILS_HOSTNAME", "127.0.0.1"),
            ("DETAILS_SERVICE_PORT", &details.port),
            ("REVIEWS_HOSTNAME", "127.0.0.1"),
            ("REVIEWS_SERVICE_PORT", &reviews.port),
            ("RATINGS_HOSTNAME", "127.0.0.1"),
            ("RATINGS_SERVICE_PORT", &ratings.port),
        ],
    );

    let html = page.get("/productpage");
    for part in [
        "200 OK",
        "William Shakespeare",
        "stars red",
        "3 of 5 stars",
        "reviews-v3-abc",
    ] {
        assert!(html.contains(part), "{part} is missing in {html}");
    }
    let json = page.get("/api/v1/products/0/reviews");
    assert!(json.contains("x-answered-by: reviews-v3-abc"), "{json}");
    let login = page.request("POST /login HTTP/1.1", "username=jason&passwd=");
    assert!(
        login.contains("302 Found") && login.contains("session=jason"),
        "{login}"
    );
    let html = page.request("GET /productpage HTTP/1.1\r\ncookie: session=jason", "");
    assert!(html.contains("jason (<a href=\"/logout\">"), "{html}");

    drop(reviews);
    let html = page.get("/productpage");
    let sorry = "Sorry, product reviews are currently unavailable for this book.";
    assert!(html.contains("200 OK") && html.contains(sorry), "{html}");
}

#[test]
fn sigterm_ends_the_process_with_success() {
    let mut ratings = Running::start("ratings", &[]);
    let idle = TcpStream::connect(("127.0.0.1", ratings.port.parse().unwrap())).unwrap();
    let id = ratings.child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    assert!(
        ratings.child.wait().unwrap().success(),
        "a clean end, idle connection or not"
    );
    drop(idle);
}
