//! Probes against small servers of ours.

use daemon::admin::{Listener, Peer, Router, serve};
use daemon::drain::Drain;
use daemon::tasks::{self, Task};
use http::header::LOCATION;

use super::*;

async fn application() -> (u16, Drain, Task) {
    let redirect = |to: &'static str| {
        let mut response = text(StatusCode::FOUND, "");
        response
            .headers_mut()
            .insert(LOCATION, HeaderValue::from_static(to));
        response
    };
    let router = Router::new()
        .get("/ok", |request| async move {
            let header = |name| request.header(name).unwrap_or_default().to_string();
            text(
                StatusCode::OK,
                format!("{} {} {}", header("host"), header("x"), header("y")),
            )
        })
        .get("/bad", |_| async {
            text(StatusCode::SERVICE_UNAVAILABLE, "no")
        })
        .get("/here", move |_| async move { redirect("/bad") })
        .get("/there", move |_| async move {
            redirect("http://elsewhere.example/x")
        })
        .get("/loop", move |_| async move { redirect("/loop") })
        .get("/long", |_| async {
            text(StatusCode::OK, "x".repeat(50_000))
        });
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let port = listener.tcp_address().unwrap().port();
    let (drain, watch) = Drain::new();
    (
        port,
        drain,
        tasks::spawn("application", serve(listener, router, watch)),
    )
}

fn request(path: &str) -> Request {
    Request {
        method: Method::GET,
        path: path.to_string(),
        raw_query: String::new(),
        headers: [(HeaderName::from_static("x"), HeaderValue::from_static("1"))]
            .into_iter()
            .collect(),
        body: Bytes::new(),
        peer: Peer::Unix { uid: None },
    }
}

async fn body(response: Response) -> String {
    let bytes = http_body_util::BodyExt::collect(response.into_body())
        .await
        .unwrap()
        .to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn replays() {
    let (port, _drain, _task) = application().await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed_port = closed.local_addr().unwrap().port();
    drop(closed);
    let get = |path: &str, port: u16| {
        serde_json::json!({"httpGet": {"path": path, "port": port,
            "httpHeaders": [{"name": "Host", "value": "a.example:1"}, {"name": "y", "value": "2"}]},
            "timeoutSeconds": 10})
    };
    let probers = BTreeMap::from([
        ("/ok".to_string(), get("/ok", port)),
        ("/bad".to_string(), get("bad", port)),
        ("/here".to_string(), get("/here", port)),
        ("/there".to_string(), get("/there", port)),
        ("/loop".to_string(), get("/loop", port)),
        ("/long".to_string(), get("/long", port)),
        ("/closed".to_string(), get("/ok", closed_port)),
        (
            "/tcp".to_string(),
            serde_json::json!({"tcpSocket": {"port": port}}),
        ),
        (
            "/tcp-closed".to_string(),
            serde_json::json!({"tcpSocket": {"port": closed_port}}),
        ),
    ]);
    let probes = AppProbes::new(&probers, "127.0.0.1".parse().unwrap(), true).unwrap();
    for (path, status, why) in [
        ("/ok", 200, "answers"),
        ("/bad", 503, "its status is relayed"),
        ("/here", 503, "a redirect on the host is followed"),
        ("/there", 200, "one to another host counts as success"),
        ("/loop", 500, "endless redirects"),
        ("/closed", 500, "nobody listens"),
        ("/tcp", 200, "TCP connects"),
        ("/tcp-closed", 500, "TCP does not"),
        ("/unknown", 400, "no such probe"),
    ] {
        let response = probes.answer(&request(path)).await;
        assert_eq!(response.status().as_u16(), status, "{path}: {why}");
    }
    let text = body(probes.answer(&request("/ok")).await).await;
    assert_eq!(
        text,
        format!("a.example:{port} 1 2"),
        "host, the prober's and the probe's headers"
    );
    assert_eq!(
        body(probes.answer(&request("/long")).await).await.len(),
        MOST_BODY
    );
}

#[test]
fn bad_probes_are_refused() {
    for value in [
        serde_json::json!({}),
        serde_json::json!({"httpGet": {"path": "/", "port": "http"}}),
        serde_json::json!({"tcpSocket": {"port": 1}, "grpc": {"port": 1}}),
        serde_json::json!({"exec": {}}),
    ] {
        let probers = BTreeMap::from([("/x".to_string(), value.clone())]);
        assert!(
            AppProbes::new(&probers, [127, 0, 0, 1].into(), true).is_err(),
            "{value}"
        );
    }
}
