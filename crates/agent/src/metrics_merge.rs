//! One page of metrics for Prometheus: the agent's, the proxy's, the application's.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use daemon::admin::{Request, Response, response};
use daemon::metrics::{CONTENT_TYPE, Counter, Family, Registry};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::AgentError;
use crate::http_client::{Answer, Call};

/// Ports of the proxy and the agent: scraping them as the application's would never end.
const FORBIDDEN: [u16; 9] = [
    15000, 15001, 15004, 15006, 15008, 15020, 15021, 15053, 15090,
];
const MOST_BYTES: usize = 10 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);
/// Sent on to the application: what it may answer with depends on them.
const PASSED_ON: [&str; 3] = [
    "accept",
    "accept-encoding",
    "x-prometheus-scrape-timeout-seconds",
];

#[derive(Clone, Debug)]
pub struct Merged {
    registry: Registry,
    proxy: SocketAddr,
    application: Option<Target>,
    failures: Family<Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    port: u16,
    path: String,
}

impl Merged {
    /// `annotations` is ISTIO_PROMETHEUS_ANNOTATIONS: scrape, port and path of the application.
    pub fn new(
        registry: Registry,
        proxy_port: u16,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Merged, AgentError> {
        let failures = registry.counters(
            "istio_agent_scrape_failures_total",
            "Scrapes that failed, by what was scraped.",
            &["type"],
        );
        let proxy = SocketAddr::from((Ipv4Addr::LOCALHOST, proxy_port));
        let application = target(annotations)?;
        Ok(Merged {
            registry,
            proxy,
            application,
            failures,
        })
    }

    pub async fn answer(&self, request: &Request) -> Response {
        let timeout = scrape_timeout(request);
        let (proxy, application) = tokio::join!(
            self.proxy(request, timeout),
            self.application(request, timeout)
        );
        let mut page = self.registry.encode();
        append(&mut page, &proxy);
        let mut content_type = CONTENT_TYPE.to_string();
        if let Some(answer) = application {
            let own = answer.headers.get(http::header::CONTENT_TYPE);
            let own = own
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            // The application's part is the last one: its "# EOF" ends the page.
            if own.starts_with("application/openmetrics-text") {
                content_type = own.to_string();
            }
            append(&mut page, &String::from_utf8_lossy(&answer.body));
        }
        let mut response = response(StatusCode::OK, "text/plain", page);
        if let Ok(value) = HeaderValue::try_from(content_type) {
            response
                .headers_mut()
                .insert(http::header::CONTENT_TYPE, value);
        }
        response
    }

    async fn proxy(&self, request: &Request, timeout: Duration) -> String {
        let query = &request.raw_query;
        let path = match query.as_str() {
            "" => "/stats/prometheus".to_string(),
            query => format!("/stats/prometheus?{query}"),
        };
        let call = Call {
            timeout,
            ..Call::new(Method::GET, self.proxy, &path)
        };
        let answer = self.scrape(call, "envoy").await;
        answer
            .map(|answer| String::from_utf8_lossy(&answer.body).into_owned())
            .unwrap_or_default()
    }

    async fn application(&self, request: &Request, timeout: Duration) -> Option<Answer> {
        let Target { port, path } = self.application.as_ref()?;
        let mut headers = HeaderMap::new();
        for name in PASSED_ON
            .iter()
            .copied()
            .filter(|name| *name != "accept-encoding")
        {
            if let Some(value) = request.headers.get(name) {
                headers.insert(HeaderName::from_static(name), value.clone());
            }
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        let call = Call {
            timeout,
            headers,
            most_bytes: MOST_BYTES,
            ..Call::new(Method::GET, address, path)
        };
        self.scrape(call, "application").await
    }

    async fn scrape(&self, call: Call, what: &str) -> Option<Answer> {
        let problem = match call.send().await {
            Ok(answer) if answer.status == StatusCode::OK => return Some(answer),
            Ok(answer) => format!("status {}", answer.status),
            Err(error) => error.to_string(),
        };
        tracing::debug!(what, problem, address = %call.address, "scrape failed");
        self.failures.with(&[what]).increment();
        None
    }
}

fn append(page: &mut String, part: &str) {
    if !page.is_empty() && !page.ends_with('\n') {
        page.push('\n');
    }
    page.push_str(part);
}

/// Prometheus says how long it waits; a little less, so that it hears of the failure.
fn scrape_timeout(request: &Request) -> Duration {
    let seconds = request.header("x-prometheus-scrape-timeout-seconds");
    let seconds = seconds.and_then(|text| text.parse::<f64>().ok());
    let timeout = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    timeout
        .filter(|timeout| !timeout.is_zero() && *timeout < TIMEOUT)
        .unwrap_or(TIMEOUT)
}

fn target(annotations: &BTreeMap<String, String>) -> Result<Option<Target>, AgentError> {
    let error = |reason: String| AgentError::setting("ISTIO_PROMETHEUS_ANNOTATIONS", reason);
    let text = |name: &str| {
        annotations
            .get(name)
            .map(String::as_str)
            .unwrap_or_default()
    };
    if text("scrape") != "true" {
        return Ok(None);
    }
    let port = match text("port") {
        "" => 80,
        port => port
            .parse()
            .map_err(|_| error(format!("{port:?} is no port")))?,
    };
    if FORBIDDEN.contains(&port) {
        return Err(error(format!("port {port} is the proxy's own")));
    }
    let path = match text("path") {
        "" => "/metrics".to_string(),
        path if path.starts_with('/') => path.to_string(),
        path => format!("/{path}"),
    };
    Ok(Some(Target { port, path }))
}

#[cfg(test)]
mod tests {
    use daemon::admin::{Listener, Router, serve, text};
    use daemon::drain::Drain;
    use daemon::tasks::{self, Task};

    use super::*;

    async fn server(path: &str, content_type: &'static str, page: &'static str) -> (u16, Task) {
        let router = Router::new().get(path, move |request| async move {
            let page = format!("{page}{}", request.raw_query);
            match content_type {
                "error" => text(StatusCode::INTERNAL_SERVER_ERROR, ""),
                content_type => response(StatusCode::OK, content_type, page),
            }
        });
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let port = listener.tcp_address().unwrap().port();
        let (drain, watch) = Drain::new();
        let serving = async move {
            let _drain = drain;
            serve(listener, router, watch).await;
        };
        (port, tasks::spawn("server", serving))
    }

    fn request(query: &str) -> Request {
        Request {
            method: Method::GET,
            path: "/stats/prometheus".to_string(),
            raw_query: query.to_string(),
            headers: HeaderMap::new(),
            body: Default::default(),
            peer: daemon::admin::Peer::Unix { uid: None },
        }
    }

    #[tokio::test]
    async fn three_parts_on_one_page() {
        let open = "application/openmetrics-text; version=1.0.0";
        for (application, want_type, want, why) in [
            (
                "text/plain",
                "text/plain; version=0.0.4; charset=utf-8",
                "a 1\nenvoy 2 x=1\napp 3",
                "text",
            ),
            (
                open,
                open,
                "a 1\nenvoy 2 x=1\napp 3",
                "OpenMetrics only if the application says so",
            ),
            (
                "error",
                "text/plain; version=0.0.4; charset=utf-8",
                "a 1\nenvoy 2 x=1",
                "a failing application does not hide the rest",
            ),
        ] {
            let registry = Registry::new();
            registry.gauge("a", "A.").set(1);
            let (proxy, _proxy) = server("/stats/prometheus", "text/plain", "envoy 2 ").await;
            let (port, _task) = server("/m", application, "app 3").await;
            let annotations = [
                ("scrape", "true"),
                ("path", "m"),
                ("port", &port.to_string()),
            ]
            .map(|(name, value)| (name.to_string(), value.to_string()));
            let merged = Merged::new(registry, proxy, &annotations.into()).unwrap();
            let response = merged.answer(&request("x=1")).await;
            assert_eq!(response.headers()["content-type"], want_type, "{why}");
            let body = http_body_util::BodyExt::collect(response.into_body())
                .await
                .unwrap();
            let page = String::from_utf8(body.to_bytes().to_vec()).unwrap();
            let plain: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
            let own = |line: &&&str| !line.starts_with("istio_agent_scrape");
            let plain: Vec<&str> = plain.iter().filter(own).copied().collect();
            assert_eq!(plain.join("\n"), want, "{why}");
        }
    }

    #[test]
    fn targets() {
        for (scrape, port, path, want) in [
            ("true", "9080", "/x", Some(Some((9080, "/x")))),
            ("true", "", "", Some(Some((80, "/metrics")))),
            ("false", "9080", "", Some(None)),
            ("true", "15020", "", None),
            ("true", "web", "", None),
        ] {
            let annotations = [("scrape", scrape), ("port", port), ("path", path)]
                .map(|(name, value)| (name.to_string(), value.to_string()));
            let got = target(&annotations.into()).ok();
            let want = want.map(|target| {
                target.map(|(port, path): (u16, &str)| Target {
                    port,
                    path: path.to_string(),
                })
            });
            assert_eq!(got, want, "{scrape} {port} {path}");
        }
    }
}
