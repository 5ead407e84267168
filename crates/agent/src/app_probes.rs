//! The application's own probes, which injection has turned into requests to the agent: replayed
//! from an address that capture lets pass, so that they work under strict mutual TLS.

mod grpc;
mod tls;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use daemon::admin::{Request, Response, response, text};
use http::uri::{Authority, Uri};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use crate::AgentError;
use crate::http_client::{Call, connect};

const MOST_BODY: usize = 10 << 10;
const MOST_REDIRECTS: usize = 10;

#[derive(Clone, Debug)]
pub struct AppProbes {
    by_path: BTreeMap<String, Probe>,
    ip: IpAddr,
    /// 127.0.0.6 or ::6; none where the pod's traffic is not captured.
    source: Option<IpAddr>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Probe {
    http_get: Option<HttpGet>,
    tcp_socket: Option<TcpSocket>,
    grpc: Option<Grpc>,
    #[serde(default = "one")]
    timeout_seconds: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HttpGet {
    #[serde(default)]
    path: String,
    port: u16,
    host: Option<String>,
    #[serde(default)]
    scheme: String,
    #[serde(default)]
    http_headers: Vec<Header>,
}

#[derive(Clone, Debug, Deserialize)]
struct Header {
    name: String,
    value: String,
}

#[derive(Clone, Debug, Deserialize)]
struct TcpSocket {
    port: u16,
}

#[derive(Clone, Debug, Deserialize)]
struct Grpc {
    port: u16,
    #[serde(default)]
    service: Option<String>,
}

fn one() -> u64 {
    1
}

impl AppProbes {
    /// From ISTIO_KUBE_APP_PROBERS: path to probe. A bad probe is an error at the start, not a
    /// pod that never becomes ready.
    pub fn new(
        probers: &BTreeMap<String, Value>,
        ip: IpAddr,
        is_captured: bool,
    ) -> Result<AppProbes, AgentError> {
        let mut by_path = BTreeMap::new();
        for (path, value) in probers {
            let error = |reason: String| {
                AgentError::setting("ISTIO_KUBE_APP_PROBERS", format!("{path}: {reason}"))
            };
            let probe: Probe =
                serde_json::from_value(value.clone()).map_err(|e| error(e.to_string()))?;
            if [
                probe.http_get.is_some(),
                probe.tcp_socket.is_some(),
                probe.grpc.is_some(),
            ]
            .iter()
            .filter(|is_set| **is_set)
            .count()
                != 1
            {
                return Err(error("must be one of httpGet, tcpSocket, grpc".to_string()));
            }
            by_path.insert(path.clone(), probe);
        }
        let source = match ip {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6)),
        };
        Ok(AppProbes {
            by_path,
            ip,
            source: is_captured.then_some(source),
        })
    }

    pub async fn answer(&self, request: &Request) -> Response {
        let Some(probe) = self.by_path.get(&request.path) else {
            return text(
                StatusCode::BAD_REQUEST,
                format!("no probe at {}\n", request.path),
            );
        };
        let timeout = Duration::from_secs(probe.timeout_seconds.max(1));
        let done = tokio::time::timeout(timeout, self.run(probe, request)).await;
        match done {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the probe timed out\n"),
        }
    }

    async fn run(&self, probe: &Probe, request: &Request) -> std::io::Result<Response> {
        match probe {
            Probe {
                http_get: Some(get),
                ..
            } => self.http(get, request).await,
            Probe {
                tcp_socket: Some(tcp),
                ..
            } => {
                connect(SocketAddr::new(self.ip, tcp.port), self.source).await?;
                Ok(text(StatusCode::OK, ""))
            }
            Probe {
                grpc: Some(grpc), ..
            } => {
                let stream = connect(SocketAddr::new(self.ip, grpc.port), self.source).await?;
                let service = grpc.service.as_deref().unwrap_or_default();
                match grpc::is_serving(stream, service).await? {
                    true => Ok(text(StatusCode::OK, "")),
                    false => Ok(text(StatusCode::INTERNAL_SERVER_ERROR, "not serving\n")),
                }
            }
            _ => Err(std::io::Error::other("no probe")),
        }
    }

    async fn http(&self, get: &HttpGet, request: &Request) -> std::io::Result<Response> {
        let mut path = if get.path.starts_with('/') {
            get.path.clone()
        } else {
            format!("/{}", get.path)
        };
        let headers = probe_headers(get, request, self.ip);
        for _ in 0..=MOST_REDIRECTS {
            let call = Call {
                source: self.source,
                headers: headers.clone(),
                most_bytes: usize::MAX,
                ..Call::new(Method::GET, SocketAddr::new(self.ip, get.port), &path)
            };
            let answer = if get.scheme.eq_ignore_ascii_case("https") {
                let stream = connect(call.address, call.source).await?;
                call.send_on(tls::connect_unverified(stream, self.ip).await?)
                    .await?
            } else {
                call.send().await?
            };
            if !answer.status.is_redirection() {
                return Ok(relay(answer.status, answer.body));
            }
            let location = answer.headers.get(http::header::LOCATION);
            let location = location.and_then(|value| value.to_str().ok());
            match location.and_then(|to| same_host(to, &headers, call.address)) {
                Some(next) => path = next,
                // kubelet counts a redirect to another host as success.
                None => return Ok(text(StatusCode::OK, "")),
            }
        }
        Ok(text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "too many redirects\n",
        ))
    }
}

fn relay(status: StatusCode, body: Bytes) -> Response {
    let body = body.slice(..body.len().min(MOST_BODY));
    response(status, "text/plain; charset=utf-8", body)
}

/// The prober's headers, then the probe's own; the host's port is the application's.
fn probe_headers(get: &HttpGet, request: &Request, ip: IpAddr) -> HeaderMap {
    let hop = [
        "connection",
        "content-length",
        "transfer-encoding",
        "upgrade",
        "te",
        "host",
    ];
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        if !hop.contains(&name.as_str()) {
            headers.append(name, value.clone());
        }
    }
    let mut host = get
        .host
        .clone()
        .unwrap_or_else(|| SocketAddr::new(ip, get.port).to_string());
    for Header { name, value } in &get.http_headers {
        if name.eq_ignore_ascii_case("host") {
            let name_only = value.parse::<Authority>().map(|at| at.host().to_string());
            host = format!("{}:{}", name_only.unwrap_or(value.clone()), get.port);
        } else if let (Ok(name), Ok(value)) =
            (HeaderName::try_from(name), HeaderValue::try_from(value))
        {
            headers.insert(name, value);
        }
    }
    if let Ok(host) = HeaderValue::try_from(host) {
        headers.insert(http::header::HOST, host);
    }
    headers
}

/// Path and query of a redirect that stays on the host.
fn same_host(location: &str, headers: &HeaderMap, address: SocketAddr) -> Option<String> {
    let uri: Uri = location.parse().ok()?;
    let path = uri
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_string();
    let Some(authority) = uri.authority() else {
        return Some(path);
    };
    let host = headers
        .get(http::header::HOST)
        .and_then(|value| value.to_str().ok());
    let host: Option<Authority> = host.and_then(|host| host.parse().ok());
    let is_same = authority.host() == address.ip().to_string()
        || host.is_some_and(|host| host.host() == authority.host());
    is_same.then_some(path)
}

#[cfg(test)]
mod tests;
